"""What the model says of pictures, and the map of it if there is one: what audits of behaviour show side by side."""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcore.cam import CamMethod
from camcore.engine import Row, rank
from camcore.images import Batch, Images
from camcore.maps import rectify, unit_range, upsample
from camcore.recording import record
from camcore.subject import Classifier
from camcore.verdict import Overlay


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


def side_by_side(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    versions: Mapping[str, Images],
    *,
    cam: CamMethod | None,
    target: Int[Tensor, " b"] | None,
    column: str,
    outline: Float[Tensor, "b h w"] | None = None,
) -> Iterator[Overlay]:
    """Each image in every version of it, with what the model says of that.

    Args:
        subject: The model.
        batch: The images, the worst first.
        rows: What was measured of them.
        versions: What to call each version, and the images of the batch in it.
        cam: As `seen`.
        target: As `seen`.
        column: What is judged.
        outline: 1 on the pixels that the audit is about, if there are any.
    """
    shown = {what: seen(subject, images, cam, target, chunk=batch.chunk) for what, images in versions.items()}
    for index, image_id in enumerate(batch.ids):
        for what, images in versions.items():
            probability, saliency = shown[what]
            guess = int(probability[index].argmax())
            yield Overlay(
                unit=image_id,
                role=rank(index, len(batch)),
                value=rows[image_id].get(column, torch.nan),
                caption=f"{what}: {subject.classes[guess]} ({probability[index, guess]:.2f})",
                image=images[index],
                saliency=None if saliency is None else saliency[index],
                outline=None if outline is None else outline[index],
            )
