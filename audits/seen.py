"""What the model says of pictures, and the map of it if there is one: what audits of behaviour show side by side."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcore.cam import CamMethod
from camcore.images import Images
from camcore.maps import rectify, unit_range, upsample
from camcore.record import record
from camcore.subject import Classifier


def seen(
    subject: Classifier, images: Images, cam: CamMethod | None, target: Int[Tensor, " b"] | None, *, chunk: int
) -> tuple[Float[Tensor, "b classes"], Float[Tensor, "b h w"] | None]:
    """Probabilities, and the map for the target (the predicted class, if not given) as it is shown.

    Args:
        subject: The model.
        images: To ask about.
        cam: Whose map; without, the model is asked and not recorded.
        target: What the map is for.
        chunk: Images per forward of methods that ask again.
    """
    if cam is None:
        with torch.no_grad():
            return subject.logits(images).softmax(1), None
    rec = record(subject, images, target, chunk=chunk)
    return rec.logits.softmax(1), unit_range(upsample(rectify(cam(rec)), images.shape[2:], rec.placement))
