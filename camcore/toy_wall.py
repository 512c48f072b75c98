"""A wall that needs no weights: the simple network of arXiv:2404.01964 as it is initialised, blind to its lower half.

Taimeskhanov, Sicre and Garreau 2024 draw it for 29 x 29 images: a convolution without bias, ReLU, a 2 x 2 maximum, one
linear layer without bias, all weights N(0, 1), and zeros where the linear layer would read the lower half of the map.
"""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from camcore.grid import Grid, Placement
from camcore.images import Geometry, Images
from camcore.seeds import generator
from camcore.subject import Classifier
from camcore.wall import certify_pixels
from camcore.wall_zone import Zone

SIDE, KERNEL, FILTERS, CLASSES = 29, 2, 256, 10
CELLS = SIDE - KERNEL + 1  # of the map, a side: 28
DEAD_FROM = CELLS // 2 + KERNEL - 1  # the last kept row of cells reads KERNEL rows of pixels
TOY_WALL = Zone(
    kept_rows=CELLS // 2,
    rows=CELLS,
    dead_from=DEAD_FROM,
    pixels=SIDE,
    centre=CELLS // 2 + (KERNEL - 1) / 2,
    step=1.0,
)


class SimpleCnn(nn.Module):
    """Convolution, ReLU, maximum over 2 x 2, one linear layer, without bias; blind to the lower half of the map.

    It takes grey images as three equal channels. Weights are N(0, std²), drawn from a generator of their own.
    """

    def __init__(
        self,
        *,
        filters: int,
        pooled: tuple[int, int],
        seed: int,
        kernel: int = KERNEL,
        classes: int = CLASSES,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        rows, columns = pooled
        parts = OrderedDict(
            conv=nn.utils.skip_init(nn.Conv2d, 1, filters, kernel, bias=False),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            dense=nn.utils.skip_init(nn.Linear, filters * rows * columns, classes, bias=False),
        )
        draws = generator(seed, "simple cnn")
        with torch.no_grad():
            parts["conv"].weight.normal_(std=std, generator=draws)
            parts["dense"].weight.normal_(std=std, generator=draws)
            parts["dense"].weight.view(classes, filters, rows, columns)[:, :, rows - rows // 2 :] = 0
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Class scores."""
        scores = images.mean(1, keepdim=True)
        for part in self.children():
            scores = part(scores)
        return scores


def toy_subject(seed: int) -> Classifier:
    """The network of that seed, on the CPU: what is asked of it is the same whatever device a run has.

    Its wall is `TOY_WALL`, and stands in its weights: record it as it is.
    """
    pooled = (CELLS // 2, CELLS // 2)
    return Classifier(
        name="toy",
        spec="toy",
        module=SimpleCnn(filters=FILTERS, pooled=pooled, seed=seed).eval().requires_grad_(False),
        geometry=Geometry(crop=(SIDE, SIDE)),
        preprocess=_as_they_are,
        classes=tuple(f"class {index}" for index in range(CLASSES)),
        target_layer="relu",
        grid=Grid(layout="channels_first", height=CELLS, width=CELLS),
        placement=Placement(first=((KERNEL - 1) / 2,) * 2, step=(1.0, 1.0), source="traced"),
    )


def _as_they_are(images: Images) -> Images:
    return images


def toy_images(images: Images) -> Float[Tensor, "b 3 rows columns"]:
    """Any images made grey and shrunk to the toy's side, on the CPU."""
    grey = images.float().mean(1, keepdim=True).cpu()
    small = functional.interpolate(grey, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return small.clamp(0, 1).expand(-1, 3, -1, -1)


def certify_toy(subject: Classifier, images: Images, *, seed: int) -> None:
    """Noise in the dead pixel rows moves the logits by not one bit, and no gradient arrives there.

    Raises:
        WallLeaks: It does.
    """
    certify_pixels(subject, subject.logits, DEAD_FROM, TOY_WALL.side, images, seed)
