"""pytorch-grad-cam, as its page shows it: rectified, stretched from 0 to 1, resized to the image."""

import torch
from torch import Tensor, nn

from tests.conformance.adapter import Adapter

CLASSES = {
    "gradcam": "GradCAM",
    "gradcam_plus_plus": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
    "scorecam": "ScoreCAM",
    "ablationcam": "AblationCAM",
}


def explain(method: str, module: nn.Module, layer: str, images: Tensor, target: Tensor) -> Tensor:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(label) for label in target.tolist()]
    with getattr(pytorch_grad_cam, CLASSES[method])(module, [module.get_submodule(layer)]) as cam:
        return torch.from_numpy(cam(input_tensor=images, targets=targets))


ADAPTER = Adapter(
    name="pytorch-grad-cam",
    explain=explain,
    methods=tuple(CLASSES),
    gives="unit_range",
    requires="pytorch_grad_cam",
)
