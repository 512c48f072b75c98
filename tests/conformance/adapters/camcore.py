"""camcore: one recording, then the method."""

from torch import Tensor, nn

from camcore import Classifier, Geometry, record
from camcore.cam import METHODS
from tests.conformance import adapter


def explain(method: str, module: nn.Module, layer: str, images: Tensor, target: Tensor) -> Tensor:
    subject = Classifier(
        name="net",
        spec="net",
        module=module,
        geometry=Geometry(crop=(images.shape[2], images.shape[3])),
        preprocess=lambda network_input: network_input,
        classes=(),
    )
    return METHODS[method](record(subject, images, target, layer=layer))


ADAPTER = adapter.Adapter(
    name="camcore", explain=explain, methods=tuple(name for name in adapter.METHODS if name in METHODS)
)
