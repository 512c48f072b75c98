"""Subjects that score images against captions: two towers, one for each, and the cosine between what they give.

Or any function that does, which has no embeddings to look into.

    subject.similarity(images, ["a mug on the left", "a mug on the right"])  # (b, 2)
`camcore.prompted` makes classifiers of them. What may go wrong without a sound is checked where it happens: captions of
different words that two towers cannot tell apart, and captions that are longer than they read (by `tokenise`). Sides
that are cut away (`Geometry.keeps`) are seen to by whoever gives pictures: audits refuse a model that would be shown a
part.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from camcore.cost import count
from camcore.errors import TooLong
from camcore.grounding import AsGiven
from camcore.images import Images
from camcore.seeds import generator
from camcore.similarity import first_of, row_bytes
from camcore.subject import Subject, at_least_fp32, first_tensor

Score = Callable[[Images, Sequence[str]], Float[Tensor, "b captions"]]
Tokens = Mapping[str, Tensor]  # by the name that the text tower calls them; the first axis is the captions'
AT_ONCE = 64  # captions per forward of the text tower
NEIGHBOURS = 8  # along a line, among which a row that is the same must lie
REWORD = "case and white space do not count; word one of them differently"
SAME = 1e-6  # two unit vectors that differ by no more in any coordinate differ by rounding alone


@dataclass(frozen=True, kw_only=True)
class TwoTowers(Subject):
    """An `ImageText` subject: CLIP (Radford et al. 2021, arXiv:2103.00020) or SigLIP (Zhai et al. 2023, 2303.15343).

    `module` holds both towers. `target_layer` is a name within `embed_image`: where probing would not find the right
    one, or once it has been found (`with_map`). `grid` and `placement` are those of the classifiers made of it, which
    then are not probed again.
    """

    tokenise: Callable[[Sequence[str]], Tokens]  # captions that are longer than the model reads are `TooLong`
    embed_image: (
        nn.Module
    )  # from preprocessed images to embeddings of any length; a module, for its layers are recorded
    embed_text: Callable[[Tokens], Float[Tensor, "n d"]]
    scale: float  # the temperature, exp(t)
    bias: float | None = None  # what a SigLIP adds to its logits; None: the model has no scores but cosines
    fed: str = ""  # how, if not as the model's own processor would feed it

    def similarity(self, images: Images, captions: Sequence[str]) -> Float[Tensor, "b captions"]:
        """One score per image and caption, in fp32 at least; larger for a better match.

        A CLIP's score is 100 * cosine, free of its temperature, so that models can be compared. A SigLIP's is its own
        logit, scale * cosine + bias: its sigmoid is the model's probability that the caption belongs to the image.
        Each caption is embedded once, without a graph; differentiable with respect to images that ask for it. Counts
        one forward per image, as `Classifier.logits` does, and none for captions. Captions that are the same to the
        tokeniser, and captions of the same words where the text tower does not read their order, score exactly level.

        Raises:
            TooLong: A caption has more tokens than the model reads.
            ValueError: Two captions of different words have the same embedding, there is no caption, or the model
                trains.
        """
        text, row = self.distinct(captions)
        count(forwards=len(images))
        embedded = at_least_fp32(first_tensor(self.embed_image(self.preprocess(images))))
        cosine = normalize(embedded, dim=1) @ text.to(embedded.dtype).T
        scores = 100 * cosine if self.bias is None else self.scale * cosine + self.bias
        # one product for all that are level: two of the same rows may differ in the last bit, by where they stand
        return scores[:, row]

    def embed_captions(self, captions: Sequence[str]) -> Float[Tensor, "captions d"]:
        """The captions' embeddings at length one, each different caption embedded once; level ones are equal.

        Raises:
            TooLong: See `similarity`.
            ValueError: See `similarity`.
        """
        text, row = self.distinct(captions)
        return text[row]

    def same_tokens(self, one: str, other: str) -> bool:
        """Whether two captions are the same to the tokeniser.

        Raises:
            TooLong: See `similarity`.
        """
        return first_of(_rows_of(self.tokenise([one, other]))) == [0, 0]

    @torch.no_grad()
    def distinct(self, captions: Sequence[str]) -> tuple[Float[Tensor, "rows d"], list[int]]:
        """The embeddings at length one, none twice, and which row is each caption's: level ones share theirs.

        Raises:
            TooLong: See `similarity`.
            ValueError: See `similarity`.
        """
        if self.module.training:
            raise ValueError(f"{self.name} is in training mode: its scores depend on chance; call .eval() first")
        different = list(dict.fromkeys(captions))
        if not different:
            raise ValueError(f"expected at least one caption for {self.name}, got none")
        tokens = self.tokenise(different)
        first = first_of(_rows_of(tokens))
        read = sorted(set(first))
        found = self._embed({name: value[read] for name, value in tokens.items()}, len(read))
        level = self._level([different[index] for index in read], found, _words_of(tokens, read))
        kept = {index: row for row, index in enumerate(sorted(set(level)))}
        row = {index: kept[other] for index, other in zip(read, level, strict=True)}
        column = {caption: row[index] for caption, index in zip(different, first, strict=True)}
        return found[list(kept)], [column[caption] for caption in captions]

    def _embed(self, tokens: Tokens, n: int) -> Float[Tensor, "n d"]:
        parts = []
        for start in range(0, n, AT_ONCE):
            batch = {name: value[start : start + AT_ONCE].to(self.device) for name, value in tokens.items()}
            parts.append(at_least_fp32(self.embed_text(batch)))
        return normalize(torch.cat(parts), dim=1)

    def _level(self, captions: Sequence[str], embedded: Float[Tensor, "n d"], words: Sequence[bytes]) -> list[int]:
        """Of each caption the first that it is level with, but for rounding: one of the same words in another order.

        Which order words stand in is what audits ask; a tower that does not read it has answered. Captions of
        different words that are level are a mistake in how the model was put together.
        """
        rows, with_words, level = embedded.cpu(), dict[bytes, list[int]](), list[int]()
        for index, key in enumerate(words):
            apart = with_words.setdefault(key, [])
            own = next((one for one in apart if bool((rows[one] - rows[index]).abs().max() <= SAME)), index)
            level.append(own)
            if own == index:
                apart.append(index)
        told = sorted(set(level))
        pair = same_rows(rows[told])
        if pair is not None:
            one, other = (captions[told[at]] for at in pair)
            raise ValueError(
                f"{self.name} gives {one!r} and {other!r} the same embedding, which makes every comparison of them 0: "
                "their tokens differ, so its text tower reads a position that is the same in every caption; correct "
                "eos_token_id in its config to the tokeniser's"
            )
        return level


def _rows_of(tokens: Tokens) -> list[bytes]:
    """Each caption's tokens, in their order."""
    return [b"".join(parts) for parts in zip(*(row_bytes(value) for value in tokens.values()), strict=True)]


def _words_of(tokens: Tokens, captions: Sequence[int]) -> list[bytes]:
    """The tokens of some captions, whatever their order."""
    return _rows_of({name: value[captions].reshape(len(captions), -1).sort(1).values for name, value in tokens.items()})


@dataclass(frozen=True, kw_only=True)
class CaptionScorer(Subject):
    """An `ImageText` subject that is a function, given images in [0, 1]."""

    score: Score
    preprocess: Callable[[Images], Tensor] = field(default_factory=AsGiven)

    def similarity(self, images: Images, captions: Sequence[str]) -> Float[Tensor, "b captions"]:
        """One score per image and caption, as the function gives them; counts one forward per image.

        Raises:
            ValueError: It gives no row per image and column per caption.
        """
        count(forwards=len(images))
        found = self.score(images, captions)
        if not torch.is_tensor(found) or found.shape != (len(images), len(captions)):
            given = tuple(found.shape) if torch.is_tensor(found) else type(found).__name__
            raise ValueError(
                f"{self.name} gave {given} for {len(images)} pictures and {len(captions)} captions, expected a tensor "
                f"({len(images)}, {len(captions)})"
            )
        return found


def reads(subject: Subject, captions: Sequence[str]) -> bool:
    """Whether a model reads captions to their end; of a function it is not known, and taken to be so."""
    if not isinstance(subject, TwoTowers):
        return True
    try:
        subject.tokenise(captions)
    except TooLong:
        return False
    return True


def same_rows(embedded: Float[Tensor, "n d"]) -> tuple[int, int] | None:
    """Two rows that are the same but for rounding, if there are any.

    Rows are sorted along one fixed direction and each compared with the next few, for a thousand classes in eighty
    templates make three thousand million pairs.
    """
    rows = embedded.cpu().double()
    direction = torch.randn(rows.shape[1], generator=generator(0, "same rows"), dtype=torch.float64)
    order = (rows @ direction).argsort()
    for step in range(1, min(NEIGHBOURS + 1, len(rows))):
        first, second = order[:-step], order[step:]
        close = ((rows[first] - rows[second]).abs().amax(1) <= SAME).nonzero()  # NaN is close to nothing
        if len(close):
            one, other = sorted((int(first[close[0]]), int(second[close[0]])))
            return one, other
    return None
