"""captum: Grad-CAM, signed unless asked otherwise."""

from torch import Tensor, nn

from tests.conformance.adapter import Adapter


def explain(method: str, module: nn.Module, layer: str, images: Tensor, target: Tensor) -> Tensor:
    from captum.attr import LayerGradCam

    return LayerGradCam(module, module.get_submodule(layer)).attribute(images, target=target)[:, 0].detach()


ADAPTER = Adapter(name="captum", explain=explain, methods=("gradcam",), requires="captum")
