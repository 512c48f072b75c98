# docker build -t camcore .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" camcore audit --model py:mymodel.py:build --data photos/
#
# For a CPU. For a GPU build with the wheels of your CUDA: --build-arg TORCH=https://download.pytorch.org/whl/cu126
FROM python:3.11-slim AS build
WORKDIR /src
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.11-slim
ARG TORCH=https://download.pytorch.org/whl/cpu
RUN python -m pip install --no-cache-dir --index-url "$TORCH" torch torchvision
COPY --from=build /dist /dist
RUN python -m pip install --no-cache-dir "$(echo /dist/camcore-*.whl)[audits]"

# Weights and data that are fetched lie under /cache: mount a volume there to keep them.
ENV CAMCORE_CACHE=/cache/camcore TORCH_HOME=/cache/torch
RUN useradd --create-home --uid 1000 auditor && mkdir -p /cache /data && chmod 1777 /cache /data
USER auditor
WORKDIR /data
ENTRYPOINT ["camcore"]
CMD ["--help"]
