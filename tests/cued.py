"""A model of some classes, to be asked about pictures with two cues."""

from torch import nn

from camcore.images import Geometry
from camcore.subject import Classifier


def model(classes: tuple[str, ...], module: nn.Module | None = None) -> Classifier:
    geometry = Geometry(crop=(8, 8), resize=8)
    return Classifier(name="tiny", spec="tiny", module=module or nn.Identity(), geometry=geometry, classes=classes)
