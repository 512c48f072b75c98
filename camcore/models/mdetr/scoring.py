"""What the network found, as boxes in pixels with a score each: MDETR as a `camcore.subject.Grounder`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor

from camcore.cost import count
from camcore.errors import BadInput
from camcore.grounding import find_phrase
from camcore.images import Image
from camcore.models.mdetr.model import MDETR
from camcore.models.mdetr.processor import (
    LONGER,
    SHORTER,
    pad,
    phrase_tokens,
    prepare,
    tokenise,
)


def pixel_boxes(boxes: Float[Tensor, "*n 4"], height: int, width: int) -> Float[Tensor, "*n 4"]:
    """From centre, width and height as shares of an image to (x0, y0, x1, y1) in its pixels; not clipped to it."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    corners = torch.cat([centre - half, centre + half], dim=-1)
    return corners * corners.new_tensor([width, height, width, height])


def object_scores(logits: Float[Tensor, "*n slots"]) -> Float[Tensor, "*n"]:
    """How sure the network is that a box holds anything the caption names: 1 - p(no object).

    By this score boxes are ranked for models trained on referring expressions, whose caption is one phrase: Kamath et
    al. 2021 (arXiv:2104.12763), on referring expression comprehension.
    """
    return 1 - logits.softmax(-1)[..., -1]


def phrase_scores(logits: Float[Tensor, "*n slots"], tokens: Sequence[int]) -> Float[Tensor, "*n"]:
    """How sure the network is that a box holds what some tokens name: the largest of their probabilities.

    By this score boxes are ranked where a caption names several things: Kamath et al. 2021 (arXiv:2104.12763), on
    phrase grounding.
    """
    return logits.softmax(-1)[..., list(tokens)].amax(-1)


@dataclass(frozen=True, kw_only=True)
class PhraseGrounder:
    """MDETR with its tokenizer: boxes for what a phrase of a caption names.

    A trained MDETR was never shown a false caption: a score says which box, not whether the caption is true.
    """

    name: str  # short, free of slashes: used in ids and file names
    module: MDETR  # in eval mode
    tokenizer: Tokenizer  # from `processor.tokenizer_from`
    score: Literal["phrase", "object"] = "phrase"  # "object" for models trained on referring expressions
    shorter: int = SHORTER  # pixels; what images are resized to
    longer: int = LONGER
    sha256: str = ""  # of the weights
    weights: str = ""  # where they came from

    def __post_init__(self) -> None:
        """Refuse a tokenizer of another vocabulary: its numbers would be read as other words."""
        known, expected = self.tokenizer.get_vocab_size(), self.module.config.text.vocabulary
        if known != expected:
            raise BadInput(
                f"expected the tokenizer of the model, with {expected} entries, got one with {known}; "
                "published models have roberta-base's"
            )

    def ground(self, image: Image, caption: str, phrase: str) -> tuple[Float[Tensor, "n 4"], Float[Tensor, " n"]]:
        """All the network's boxes (x0, y0, x1, y1 in the image's pixels), best first, and a score in [0, 1] for each.

        One forward, of this image alone, so that nothing is padded. Differentiable with respect to the image.

        Raises:
            BadInput: The phrase is not in the caption, there more than once, or too far from its beginning; or the
                caption is too long.
            ValueError: The image has values outside [0, 1].
        """
        span = find_phrase(caption, phrase)
        text = tokenise(self.tokenizer, [caption])
        longest = self.module.config.text.positions - 2
        if text.ids.shape[1] > longest:
            raise BadInput(f"expected a caption of at most {longest} tokens, got {text.ids.shape[1]}; shorten it")
        tokens = phrase_tokens(text.encodings[0], span)
        weight = self.module.query_embed.weight
        pixels, padding = pad([prepare(image, shorter=self.shorter, longer=self.longer).to(weight)])
        count(forwards=1)
        found = self.module(pixels, padding, text.ids.to(weight.device), text.padding.to(weight.device))
        logits = found.logits[0]
        scores = phrase_scores(logits, tokens) if self.score == "phrase" else object_scores(logits)
        order = scores.argsort(descending=True, stable=True)
        return pixel_boxes(found.boxes[0], image.shape[1], image.shape[2])[order], scores[order]
