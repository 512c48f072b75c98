"""Subjects whose cells lie where a test can say, and functions that only average and move."""

from torch import nn
from torch.nn import functional as F

from camcore.grid import Grid
from camcore.images import Geometry
from camcore.subject import Classifier
from tests.tiny import as_they_are


def subject_of(module, size, layer, cells=None):
    """A subject that takes pixels; with the cells of its map, if they could be mistaken for no map."""
    grid = None if cells is None else Grid(layout="channels_first", height=cells[0], width=cells[1])
    return Classifier(
        name="net",
        spec="net",
        module=module.eval(),
        geometry=Geometry(crop=size),
        preprocess=as_they_are,
        target_layer=layer,
        grid=grid,
        classes=("a",),
    )


class Formula(nn.Module):
    """Features by a function that only averages and moves."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.last = nn.Identity()

    def forward(self, images):
        return self.last(self.function(images)).flatten(1)[:, :1]


def smooth(features, kernel=3, stride=1, padding=0, dilation=1):
    """A convolution whose weights are alike and sum to 1."""
    weight = features.new_full((3, 3, kernel, kernel), 1 / (3 * kernel**2))
    return F.conv2d(features, weight, stride=stride, padding=padding, dilation=dilation)
