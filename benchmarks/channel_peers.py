"""Ablation-CAM and Score-CAM of one image by everybody who has them: what `benchmarks.channel_cams` times."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.gradient_cams import Setting, Work
from benchmarks.gradient_cams import prepare as prepare_batch
from camcore.cam import METHODS
from camcore.maps import is_constant, rectify
from camcore.recording import Recording, record

MODULES = {"pytorch-grad-cam": "pytorch_grad_cam", "torchcam": "torchcam"}  # what is imported for a candidate
Candidate = Callable[[Work, int], Tensor]  # (work, images per forward) -> map


def prepare(setting: Setting) -> Work:
    work = prepare_batch(setting)
    # The predicted class: pytorch-grad-cam divides by the score, and a negative one would turn its map round.
    return replace(work, target=work.subject.logits(work.images).argmax(1))


def recorded(work: Work, chunk: int | None = None) -> Recording:
    return record(work.subject, work.images, work.target, chunk=chunk)


def live_channels(rec: Recording) -> int:
    return int((~is_constant(rec.activations.flatten(0, 1))).sum())


def camcore_ablation(work: Work, _chunk: int) -> Tensor:
    return METHODS["ablationcam"](recorded(work))


def camcore_ablation_asking(work: Work, _chunk: int) -> Tensor:
    return METHODS["ablationcam"](replace(recorded(work), linear=False))


def camcore_score(work: Work, chunk: int) -> Tensor:
    return METHODS["scorecam"](recorded(work, chunk))


def grad_cam(name: str, work: Work, chunk: int) -> Tensor:
    import pytorch_grad_cam as peer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(label) for label in work.target.tolist()]
    with getattr(peer, name)(model=work.subject.module, target_layers=[work.layer]) as method:
        method.batch_size = chunk
        return torch.as_tensor(method(input_tensor=work.normalised, targets=targets))


def torchcam_score(work: Work, chunk: int) -> Tensor:
    from torchcam.methods import ScoreCAM

    with ScoreCAM(work.subject.module, target_layer=work.subject.target_layer, batch_size=chunk) as method:
        with torch.no_grad():
            scores = work.subject.module(work.normalised)
        return method(work.target.tolist(), scores, normalized=False)[0]


@torch.no_grad()
def bare_loop(work: Work, chunk: int, live: int) -> None:
    """The forwards that Score-CAM cannot do without, of a batch that is there already."""
    batch = work.normalised.repeat(chunk, 1, 1, 1)
    for start in range(0, live, chunk):
        work.subject.module(batch[: live - start])


CANDIDATES: dict[str, dict[str, Candidate]] = {
    "ablationcam": {
        "camcore": camcore_ablation,
        "camcore, made to ask": camcore_ablation_asking,
        "pytorch-grad-cam": partial(grad_cam, "AblationCAM"),
    },
    "scorecam": {
        "camcore": camcore_score,
        "pytorch-grad-cam": partial(grad_cam, "ScoreCAM"),
        "torchcam": torchcam_score,
    },
}


def shown(saliency: Tensor, work: Work) -> Tensor:
    """Rectified, resized and brought to [0, 1] by pytorch-grad-cam's own functions; its maps come so already."""
    if saliency.shape[1:] == work.images.shape[2:]:
        return saliency
    if not find_spec("pytorch_grad_cam"):
        return rectify(saliency)
    from pytorch_grad_cam.utils.image import scale_cam_image

    rectified = rectify(saliency).cpu().numpy()
    return torch.as_tensor(scale_cam_image(scale_cam_image(rectified, work.subject.geometry.crop[::-1])))
