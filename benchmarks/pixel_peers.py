"""Methods of pixels beside captum's: the largest difference, for the page of conformance."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from camcore import cam, record
from camcore.perturbations import black
from camcore.recording import Recording
from tests.tiny import CLASSES, some_images, tiny_subject

DRAWS = 10  # networks per number
SIZE = 16


class ModularNet(nn.Sequential):
    """Convolutions, ReLUs that are modules (captum rewires no others), and a linear head."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(4 * (SIZE // 2) ** 2, CLASSES)),
        )


def compared() -> dict[str, Callable[[Recording], tuple[Tensor, Tensor]]]:
    """Of each method, our map and captum's for one recording."""
    from captum import attr

    def integrated(rec: Recording) -> Tensor:
        way = attr.IntegratedGradients(rec.subject.module)
        return way.attribute(rec.images.clone(), torch.zeros_like(rec.images), rec.target, n_steps=20)

    return {
        "gradient": lambda rec: (
            cam.gradient(rec),
            attr.Saliency(rec.subject.module).attribute(rec.images.clone(), rec.target, abs=False),
        ),
        "gradient_times_input": lambda rec: (
            cam.gradient_times_input(rec),
            attr.InputXGradient(rec.subject.module).attribute(rec.images.clone(), rec.target),
        ),
        "integrated_gradients, 20 steps": lambda rec: (cam.integrated_gradients(rec, steps=20), integrated(rec)),
        "guided_backprop": lambda rec: (
            cam.guided_backprop(rec),
            attr.GuidedBackprop(rec.subject.module).attribute(rec.images.clone(), rec.target),
        ),
        "occlusion, squares that end flush": lambda rec: (
            cam.occlusion(rec, window=4, stride=4, baseline=black),
            attr.Occlusion(rec.subject.module).attribute(rec.images, (3, 4, 4), (3, 4, 4), target=rec.target)[:, :1],
        ),
    }


def differences() -> dict[str, float]:
    """Largest over networks, images and places, each map scaled to a largest value of 1; in float64."""
    worst: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's own
        for seed in range(DRAWS):
            subject = tiny_subject(ModularNet().double(), "2", seed=seed, size=SIZE)
            rec = record(subject, some_images(3, size=SIZE, seed=seed).double(), torch.arange(3) % CLASSES)
            for label, both in compared().items():
                ours, theirs = both(rec)
                gap = (ours - theirs.detach().sum(1)).abs().amax((1, 2)) / ours.abs().amax((1, 2))
                worst[label] = max(worst.get(label, 0.0), float(gap.max()))
    return worst
