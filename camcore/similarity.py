"""Captions as classes: what in an image speaks for a caption, or for one caption rather than another."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcore.images import Geometry, Images
from camcore.subject import Classifier, Normalise, first_tensor

CLIP_NORMALISE = Normalise(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))


class Similarity(nn.Module):
    """Scaled product of an image's embedding, at length one, with fixed rows: the captions' embeddings.

    Rows of length one give Radford et al. 2021 (CLIP, arXiv:2103.00020), figure 3: logits_i = exp(t) · cos(image,
    caption_i); Zhai et al. 2023 (SigLIP, arXiv:2303.15343), algorithm 1, add a bias. A row that is the mean of several
    such gives the mean of their scores.
    """

    text: Tensor
    column: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        text: Float[Tensor, "captions d"],
        scale: float,
        bias: float,
        embedding: Callable[[Any], Tensor],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.scale = scale
        self.bias = bias
        self.embedding = embedding
        first = torch.tensor(first_of(row_bytes(text.detach())), device=text.device)
        kept, column = first.unique(return_inverse=True)  # sorted: in the captions' order
        self.register_buffer("text", text.detach()[kept], persistent=False)
        self.register_buffer("column", column, persistent=False)

    def forward(self, images: Tensor) -> Float[Tensor, "b captions"]:
        """One score per image and caption; captions of the same row are exactly level."""
        found = nn.functional.normalize(self.embedding(self.encoder(images)), dim=1)
        scores = self.scale * found @ self.text.to(found.dtype).T + self.bias
        # one product for all that are the same: two may differ in the last bit, by where they stand
        return scores if len(self.column) == len(self.text) else scores[:, self.column]


def row_bytes(rows: Tensor) -> list[bytes]:
    """What each row holds, to tell which are the same."""
    flat = rows.cpu().reshape(len(rows), -1).contiguous()
    return [row.tobytes() for row in flat.view(torch.uint8).numpy()]


def first_of(keys: Sequence[bytes]) -> list[int]:
    """Of each key the place where it stands first."""
    places: dict[bytes, int] = {}
    return [places.setdefault(key, index) for index, key in enumerate(keys)]


def captions_as_classes(
    encoder: nn.Module,
    text: Float[Tensor, "captions d"],
    captions: Sequence[str],
    *,
    geometry: Geometry,
    name: str = "similarity",
    scale: float = 100.0,
    bias: float = 0.0,
    embedding: Callable[[Any], Tensor] = first_tensor,
    preprocess: Callable[[Images], Tensor] = CLIP_NORMALISE,
) -> Classifier:
    """A classifier whose classes are captions, so that every method here explains an image-text similarity.

    `record(subject, images, target, against=other)` then asks what speaks for one caption rather than for another, for
    example "on the left of" rather than "on the right of".

    Args:
        encoder: From normalised images to embeddings; in eval mode.
        text: The captions' embeddings by the model's text encoder; their length does not matter.
        captions: As many as rows of `text`.
        geometry: The encoder's input.
        name: Short, for ids and file names.
        scale: The model's temperature, exp(logit_scale).
        bias: What a SigLIP adds to every score: it moves no softmax, no contrast and no gradient.
        embedding: Finds the embeddings in what the encoder returns.
        preprocess: The encoder's normalisation; CLIP's if not given.

    Raises:
        ValueError: Captions and embeddings differ in number.
    """
    if len(captions) != len(text):
        raise ValueError(f"expected one embedding per caption, got {len(text)} embeddings for {len(captions)} captions")
    unit = nn.functional.normalize(text, dim=1)
    module = Similarity(encoder, unit, scale, bias, embedding).train(encoder.training)
    return Classifier(
        name=name, spec=name, module=module, geometry=geometry, preprocess=preprocess, classes=tuple(captions)
    )
