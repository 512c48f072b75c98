"""Two towers that read the place of every letter, and what they must say."""

import torch
from torch import nn

from camcore import Geometry, TwoTowers
from tests.tiny import CLASSES, SIZE, GapNet, as_they_are, randomised

LEFT, RIGHT, DOG = "a mug on the left", "a mug on the right", "a dog"
LONGEST = 24


class Words(nn.Module):
    """Reads the place of every letter, in lower case; keeps the sizes of the batches it was given."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(128, 4)
        self.mix = nn.Linear(4 * LONGEST, CLASSES)
        self.batches = []

    def forward(self, tokens):
        self.batches.append(len(tokens["ids"]))
        return self.mix(self.table(tokens["ids"]).flatten(1))


def tokenise(captions):
    return {"ids": torch.tensor([[*caption.lower().encode().ljust(LONGEST)][:LONGEST] for caption in captions])}


def towers(**given):
    pair = randomised(nn.ModuleDict({"image": GapNet(), "text": Words()}))
    defaults = {"tokenise": tokenise, "scale": 14.0, "sha256": "abc", "weights": "random:0", "unsafe": ("a reason",)}
    return TwoTowers(
        name="towers",
        spec="towers",
        module=pair,
        geometry=Geometry(crop=(SIZE, SIZE)),
        preprocess=as_they_are,
        embed_image=pair["image"],
        embed_text=pair["text"],
        **{**defaults, **given},
    )


def cosines(subject, images, captions):
    """The definition, one pair at a time."""
    image, text = subject.embed_image(images), subject.embed_text(tokenise(captions))
    return torch.stack([torch.stack([(i @ t) / (i.norm() * t.norm()) for t in text]) for i in image])
