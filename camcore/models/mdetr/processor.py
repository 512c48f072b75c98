"""From an image and a caption to what the network takes, and from a phrase to the tokens that it covers.

Sizes and normalisation are those of the published models' evaluation, as DETR's (Carion et al. 2020, arXiv:2005.12872,
section 4). RoBERTa tells capitals apart: captions are taken as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from torch.nn import functional

from camcore.errors import BadInput, one_line
from camcore.images import Image
from camcore.subject import Normalise, check_images

SHORTER, LONGER = 800, 1333  # pixels, of the published models' evaluation
SLOTS = 255  # tokens that a box can be named by; the slot after them says "no object"
START, PADDING, END = 0, 1, 2  # of RoBERTa's vocabulary: <s>, <pad>, </s>


def fitted_size(height: int, width: int, *, shorter: int = SHORTER, longer: int = LONGER) -> tuple[int, int]:
    """Height and width with the shorter side at `shorter`, or less where the longer would come out beyond `longer`.

    Rounded as in training: the other side is cut to whole pixels.
    """
    low, high = min(height, width), max(height, width)
    if high / low * shorter > longer:
        shorter = round(longer * low / high)
    return (shorter, int(shorter * width / height)) if height <= width else (int(shorter * height / width), shorter)


def prepare(image: Image, *, shorter: int = SHORTER, longer: int = LONGER) -> Float[Tensor, "3 rows columns"]:
    """Resize one image with values in [0, 1] and normalise it; differentiable.

    Raises:
        ValueError: Values outside [0, 1].
    """
    check_images(image)
    size = fitted_size(image.shape[1], image.shape[2], shorter=shorter, longer=longer)
    fitted = image[None]
    if size != image.shape[1:]:
        fitted = functional.interpolate(fitted, size, mode="bilinear", align_corners=False, antialias=True)
    return Normalise()(fitted)[0]


def pad(images: Sequence[Float[Tensor, "3 _ _"]]) -> tuple[Float[Tensor, "b 3 h w"], Bool[Tensor, "b h w"]]:
    """Stack prepared images of different sizes: zeros to the right and below, and a mask that is True on them."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    pixels, padding = [], []
    for image in images:
        margin = (0, width - image.shape[2], 0, height - image.shape[1])
        pixels.append(functional.pad(image, margin))
        padding.append(functional.pad(torch.zeros_like(image[0]), margin, value=1))
    return torch.stack(pixels), torch.stack(padding).bool()


def tokenizer_from(given: Any) -> Tokenizer:
    """A tokenizer of our own, from a tokenizer.json, a `tokenizers.Tokenizer`, or a fast tokenizer of transformers.

    What was given is left as it is: ours neither truncates nor pads.

    Raises:
        BadInput: No such file, not a tokenizer, or not RoBERTa's: <s>, <pad> and </s> are tokens 0, 1 and 2.
    """
    if isinstance(given, str | PathLike):
        path = Path(given)
        if not path.is_file():
            raise BadInput(f"expected a tokenizer.json file, {str(path)!r} is none; give roberta-base's")
        try:
            given = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exceptions
            raise BadInput(f"{str(path)!r} is no tokenizer.json ({one_line(error)}); copy it again") from error
    found = getattr(given, "backend_tokenizer", given)
    if not isinstance(found, Tokenizer):
        raise BadInput(
            f"expected a tokenizer.json, a tokenizers.Tokenizer or a fast tokenizer of transformers, "
            f"got {type(given).__name__}; give roberta-base's RobertaTokenizerFast"
        )
    own = Tokenizer.from_str(found.to_str())
    own.no_padding()
    own.no_truncation()
    ids = own.encode("a").ids
    if own.token_to_id("<pad>") != PADDING or ids[:1] != [START] or ids[-1:] != [END] or len(ids) < 3:
        raise BadInput(
            f"expected RoBERTa's tokenizer, in which a caption is <s> (0) … </s> (2) and <pad> is 1; "
            f"'a' becomes {ids} and <pad> is {own.token_to_id('<pad>')}"
        )
    return own


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Captions as the network takes them."""

    ids: Int[Tensor, "b t"]
    padding: Bool[Tensor, "b t"]  # True where a shorter caption has ended
    encodings: tuple[Encoding, ...]  # which characters each token covers


def tokenise(tokenizer: Tokenizer, captions: Sequence[str]) -> Tokens:
    """The captions' tokens, the shorter ones padded at the end."""
    encodings = tuple(tokenizer.encode(caption) for caption in captions)
    length = max(len(encoding.ids) for encoding in encodings)
    ids = torch.tensor([encoding.ids + [PADDING] * (length - len(encoding.ids)) for encoding in encodings])
    lengths = torch.tensor([len(encoding.ids) for encoding in encodings])
    return Tokens(ids=ids, padding=torch.arange(length) >= lengths[:, None], encodings=encodings)


def phrase_tokens(encoding: Encoding, span: tuple[int, int]) -> range:
    """Which tokens of a caption cover the characters from `span[0]` up to, without it, `span[1]`.

    The tokens of the first and of the last character, and those between. Where a character belongs to no token, as
    a space, the next two are tried at the beginning, and the two before at the end, as when the model was trained.

    Raises:
        BadInput: No token found, or one beyond the slots that a box can be named by.
    """
    start, end = span
    first = _token_at(encoding, start, start + 1, start + 2)
    last = _token_at(encoding, end - 1, end - 2, end - 3)
    if first is None or last is None or last < first:
        raise BadInput(f"no token of the caption covers its characters {start} to {end}; give words, not spaces")
    if last >= SLOTS:
        raise BadInput(
            f"expected a phrase within the first {SLOTS} tokens of its caption, it ends at token {last + 1}; "
            "shorten the caption"
        )
    return range(first, last + 1)


def _token_at(encoding: Encoding, *places: int) -> int | None:
    """The token of the first of some characters that has one."""
    tokens = (encoding.char_to_token(place) for place in places if place >= 0)
    return next((token for token in tokens if token is not None), None)
