"""Subjects that find what a phrase of a caption names: whatever does, with how it is fed and what it is called.

boxes, scores = subject.ground(image, "the red mug is on the left", "the red mug")
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.errors import BadInput
from camcore.images import Boxes, Image, Images
from camcore.subject import Subject

Find = Callable[[Image, str, str], tuple[Boxes, Float[Tensor, " n"]]]  # counts its own forwards


@dataclass(frozen=True)
class AsGiven:
    """A grounder resizes and normalises pictures itself."""

    def __call__(self, images: Images) -> Images:
        """The same."""
        return images


def find_phrase(caption: str, phrase: str) -> tuple[int, int]:
    """Where a phrase stands in a caption, in whole words: its first character and the one after its last.

    Raises:
        BadInput: It does not, or more than once: which of them is meant would be a guess.
    """
    words = phrase.strip()
    left, right = (r"(?<!\w)" if words[:1].isalnum() else ""), (r"(?!\w)" if words[-1:].isalnum() else "")
    found = [match.span() for match in re.finditer(left + re.escape(words) + right, caption)] if words else []
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(f"expected {phrase!r} once in {caption!r}, it is there {len(found)} times; give a longer phrase")
    other_case = words and re.search(left + re.escape(words) + right, caption, re.IGNORECASE)
    hint = f"in another case ({other_case[0]!r}); write it so" if other_case else "not there; give words of the caption"
    raise BadInput(f"expected {phrase!r} in {caption!r}, it is {hint}")


@dataclass(frozen=True, kw_only=True)
class BoxFinder(Subject):
    """A `Grounder` subject around a function; `geometry.crop` is the size of the pictures that it is shown."""

    find: Find
    preprocess: Callable[[Images], Tensor] = field(default_factory=AsGiven)

    @torch.no_grad()
    def ground(self, image: Image, caption: str, phrase: str) -> tuple[Boxes, Float[Tensor, " n"]]:
        """Boxes (x0, y0, x1, y1 in the image's pixels) and a score for each, larger for a better match.

        Raises:
            ValueError: What was found is no list of finite boxes with a finite score each.
        """
        boxes, scores = self.find(image, caption, phrase)
        if not (torch.is_tensor(boxes) and torch.is_tensor(scores)):
            raise ValueError(
                f"{self.name} gave {type(boxes).__name__} and {type(scores).__name__}, expected tensors (n, 4) and (n,)"
            )
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
            raise ValueError(
                f"{self.name} gave boxes {tuple(boxes.shape)} and scores {tuple(scores.shape)}, expected (n, 4) and "
                "(n,): x0, y0, x1, y1 in pixels of the image given"
            )
        if not (boxes.isfinite().all() and scores.isfinite().all()):
            raise ValueError(f"{self.name} gave boxes or scores that are not finite for {caption!r}; correct it")
        return boxes.float(), scores.float()
