"""torchcam, as its page shows it: the extractor around the user's forward, here without the normalisation."""

from torch import Tensor, nn

from tests.conformance.adapter import Adapter

CLASSES = {
    "cam": "CAM",
    "gradcam": "GradCAM",
    "gradcam_plus_plus": "GradCAMpp",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "scorecam": "ScoreCAM",
}


def explain(method: str, module: nn.Module, layer: str, images: Tensor, target: Tensor) -> Tensor:
    from torchcam import methods

    # CAM looks for the head by itself and says so on the log
    named = {"fc_layer": "head"} if method == "cam" else {}
    with getattr(methods, CLASSES[method])(module, target_layer=layer, **named) as extractor:
        scores = module(images)
        (saliency,) = extractor(target.tolist(), scores, normalized=False)
    return saliency.relu()  # CAM alone comes signed


ADAPTER = Adapter(name="torchcam", explain=explain, methods=tuple(CLASSES), gives="rectified", requires="torchcam")
