"""What a class loses when the suspect is taken out of its pictures that carry it."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from camcore.images import Batch, Dataset, Images, Progress, batches
from camcore.perturbations import noisy_linear
from camcore.subject import Classifier
from fixtures.artefacts import Suspect

LIKE = 0.1  # mean difference of colours: pixels no farther from the suspect's are it, and farther ones are not
ELSEWHERE = {
    "top left": "bottom right",
    "top right": "bottom left",
    "middle": "top left",
    "bottom left": "top right",
    "bottom right": "top left",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Removal:
    """The class's pictures with the suspect in them, without it, and with as much taken out elsewhere."""

    looked_at: int  # pictures of the class
    right: Bool[Tensor, "3 n"]  # whether each that carries it is called by its class: as it is, without, elsewhere


def removed(
    subject: Classifier,
    dataset: Dataset,
    ids: list[str],
    suspect: Suspect,
    label: int,
    *,
    seed: int,
    chunk: int,
    progress: Progress | None = None,
) -> Removal:
    """Look for the suspect in the class's pictures, and inpaint it (`noisy_linear`) where it is.

    Args:
        subject: The model.
        dataset: Where the pictures are.
        ids: Of the pictures; those of other classes are left out.
        suspect: What is looked for, in its place and at its own size. One that is everywhere is not looked for.
        label: Of the class.
        seed: Of the run.
        chunk: Pictures per forward.
        progress: Called after every batch.
    """
    own = [one for one in ids if dataset.label(one) == label and not suspect.artefact.everywhere]
    parts = [torch.zeros(3, 0, dtype=torch.bool)]
    device = subject.device
    for batch in batches(dataset, own, subject.geometry, seed=seed, device=device, size=chunk, progress=progress):
        without = inpainted(batch, suspect)
        carries = carriers(batch.images, without, suspect)
        if carries.any():
            elsewhere = inpainted(batch, replace(suspect, place=ELSEWHERE[suspect.place]))
            with torch.no_grad():
                said = [subject.logits(each[carries]).argmax(1) for each in (batch.images, without, elsewhere)]
            parts.append((torch.stack(said) == label).cpu())
    return Removal(looked_at=len(own), right=torch.cat(parts, 1))


def inpainted(batch: Batch, suspect: Suspect) -> Images:
    """The pictures as if the suspect had never been there: its pixels follow from their neighbours."""
    hole = suspect.coverage(batch.images) > 0
    gone = hole.expand(len(batch.images), *hole.shape)
    return noisy_linear(batch.images, gone, generators=batch.generators("bias inpainting"))


def carriers(images: Images, without: Images, suspect: Suspect) -> Bool[Tensor, " b"]:
    """Which pictures have the suspect's colours in its place, and not because everything around it has them too."""
    solid = (suspect.coverage(images) > 0.5).to(images)
    colour = suspect.layer((images.shape[2], images.shape[3]))[0].to(images)

    def difference(one: Images, other: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, " b"]:
        return ((one - other).abs().mean(1) * solid).sum((1, 2)) / solid.sum()

    return (difference(images, colour) <= LIKE) & (difference(images, without) > LIKE)
