"""Subjects that score images against captions: two towers, one for each, and the cosine between what they give.

Or any function that does, which has no embeddings to look into.

    subject.similarity(images, ["a mug on the left", "a mug on the right"])  # (b, 2)
    as_classifier(subject, ["cat", "dog"], templates=["a photo of a {}."])   # every audit of classes runs on it

What may go wrong without a sound is checked where it happens: captions of different words that two towers cannot tell
apart, classes that are the same to them, and captions that are longer than they read (by `tokenise`). Sides that are
cut away (`Geometry.keeps`) are seen to by whoever gives pictures: audits refuse a model that would be shown a part.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from camcore.cost import count
from camcore.errors import TooLong
from camcore.grounding import AsGiven
from camcore.images import Images
from camcore.layers import with_target_layer
from camcore.seeds import generator
from camcore.similarity import Similarity, first_of, row_bytes
from camcore.subject import Classifier, Subject, at_least_fp32, first_tensor, refuse_half

Score = Callable[[Images, Sequence[str]], Float[Tensor, "b captions"]]
Tokens = Mapping[str, Tensor]  # by the name that the text tower calls them; the first axis is the captions'
AT_ONCE = 64  # captions per forward of the text tower
NEIGHBOURS = 8  # along a line, among which a row that is the same must lie
ENCODER = "encoder."  # what the image tower's layers begin with in the classifiers made of it
PROBES = ("a photo of a cat", "two dogs on the left")  # captions that any model tells apart
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


class Prompted(nn.Module):
    """What a caption scorer says of fixed captions, averaged by class."""

    def __init__(self, subject: CaptionScorer, said: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.model = subject.module  # so that its weights, device and precision are known
        self.score = subject.score
        self.said = [list(wordings) for wordings in said]

    def forward(self, images: Tensor) -> Float[Tensor, "b classes"]:
        """One score per image and class.

        Raises:
            ValueError: The scores come in half precision, in which some are level that are not.
        """
        found = self.score(images, [caption for wordings in self.said for caption in wordings])
        refuse_half(found)
        return at_least_fp32(found).unflatten(1, (len(self.said), -1)).mean(2)


def reads(subject: Subject, captions: Sequence[str]) -> bool:
    """Whether a model reads captions to their end; of a function it is not known, and taken to be so."""
    if not isinstance(subject, TwoTowers):
        return True
    try:
        subject.tokenise(captions)
    except TooLong:
        return False
    return True


def scorer_as_classifier(
    subject: CaptionScorer, classes: Sequence[str], *, templates: Sequence[str] = ("{}",)
) -> Classifier:
    """As `as_classifier`, of what has no embeddings: a class's score is the mean over its captions' scores.

    The captions are scored anew with every batch. It has no target layer, and so no maps: which of the layers that run
    within the function are those of the picture cannot be told.

    Raises:
        ValueError: A template without "{}".
    """
    said = [wordings for _, wordings in _said(classes, templates)]
    captions = [caption for wordings in said for caption in wordings]
    return Classifier(
        name=subject.name,
        spec=subject.spec,
        module=Prompted(subject, said).train(subject.module.training),
        geometry=subject.geometry,
        preprocess=subject.preprocess,
        classes=tuple(classes),
        sha256=hashlib.sha256("\0".join((subject.sha256, *captions)).encode()).hexdigest(),
        settings=subject.settings,
        weights=subject.weights,
        unsafe=subject.unsafe,
    )


def _said(classes: Sequence[str], templates: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each class with its captions.

    Raises:
        ValueError: A template without "{}".
    """
    for template in templates:
        if "{}" not in template:
            raise ValueError(
                f"expected a template with {{}} for the class, as in 'a photo of a {{}}', got {template!r}"
            )
    return [(name, [template.replace("{}", name) for template in templates]) for name in classes]


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


def refuse_same(subject: TwoTowers, said: Sequence[tuple[str, Sequence[str]]], row: Sequence[int]) -> None:
    """Refuse classes of which two are one to the model: a choice between them would be by rounding.

    Args:
        subject: The two towers.
        said: What each class is called, and its captions; what is called the same is the same class.
        row: Of all captions one after the other, from `TwoTowers.distinct`.

    Raises:
        ValueError: All captions of two classes score exactly level.
    """
    rows, known = iter(row), dict[tuple[int, ...], tuple[str, str]]()
    for name, wordings in said:
        other, caption = known.setdefault(tuple(sorted(next(rows) for _ in wordings)), (name, wordings[0]))
        if other == name:
            continue
        why = "its text tower does not read the order of words; word one of them differently"
        if subject.same_tokens(caption, wordings[0]):
            why = f"its tokeniser gives both the same tokens ({REWORD})"
        raise ValueError(
            f"{subject.name} gives {other!r} and {name!r} the same embedding, which makes every comparison of them 0: "
            f"{why}"
        )


def as_classifier(
    subject: TwoTowers, classes: Sequence[str], *, templates: Sequence[str] = ("{}",), layer: str | None = None
) -> Classifier:
    """A classifier whose classes are captions, with its target layer found, so that every audit of classes can ask it.

    Its logits are the model's own, scale * cosine (+ bias): the temperature belongs to a softmax over classes. With
    several templates a class is the mean of its captions' embeddings at length one (Radford et al. 2021, 3.1.4).

    Args:
        subject: The two towers; the classifier holds the one of images, which it shares.
        classes: Names, or whole captions where the template is "{}".
        templates: Captions with "{}" where the class's name goes.
        layer: The target layer, by its name in the classifier's `named_modules`; None for the subject's, or to have it
            found. Of a ViT that reads its class token it is the last block's first norm: the last block's output has no
            gradient at patches.

    Raises:
        ValueError: A template without "{}", or two classes that are one to the model.
    """
    said = _said(classes, templates)
    captions = [caption for _, wordings in said for caption in wordings]
    text, row = subject.distinct(captions)
    refuse_same(subject, said, row)
    means = text[row].unflatten(0, (len(classes), len(templates))).mean(1)
    return _asked(subject, normalize(means, dim=1), tuple(classes), captions, layer)


def as_scorer(subject: TwoTowers, said: Sequence[Sequence[str]]) -> Classifier:
    """A classifier whose classes are said in as many wordings each, scored by the mean over the wordings' scores.

    What `similarity` gives, averaged (and at the model's own scale): a map of its logits, or of a contrast of two,
    explains what questions about captions judge. `as_classifier` averages embeddings instead, as a prompt ensemble.
    Classes that are one to the model are level, as they are in `similarity`; a contrast of two has no gradient.

    Args:
        subject: The two towers.
        said: Of each class its wordings, as many of each; the first names the class.

    Raises:
        ValueError: Not as many wordings of each class; or see `TwoTowers.similarity`.
    """
    counts = {len(wordings) for wordings in said}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"expected as many wordings of each class, at least one, got {sorted(counts)}")
    captions = [caption for wordings in said for caption in wordings]
    means = subject.embed_captions(captions).unflatten(0, (len(said), -1)).mean(1)
    return _asked(subject, means, tuple(wordings[0] for wordings in said), captions, None)


def with_map(subject: TwoTowers, *, layer: str | None = None) -> TwoTowers:
    """The subject with its target layer, grid and placement found, once for all captions; unchanged if it has none.

    Args:
        subject: The two towers.
        layer: The user's choice, by its name within the image tower or within a classifier made of it.

    Raises:
        BadInput: The chosen layer cannot be recorded.
    """
    named = layer and f"{ENCODER}{layer.removeprefix(ENCODER)}"
    found = as_classifier(replace(subject, grid=None), PROBES, layer=named)
    own = None if found.target_layer is None else found.target_layer.removeprefix(ENCODER)
    return replace(subject, target_layer=own, grid=found.grid, placement=found.placement)


def _asked(
    subject: TwoTowers,
    text: Float[Tensor, "classes d"],
    classes: tuple[str, ...],
    captions: Sequence[str],
    layer: str | None,
) -> Classifier:
    """The tower of images with fixed rows to compare with, and its target layer."""
    module = Similarity(subject.embed_image, text, subject.scale, subject.bias or 0.0, first_tensor)
    asked = Classifier(
        name=subject.name,
        spec=subject.spec,
        module=module.train(subject.embed_image.training),
        geometry=subject.geometry,
        preprocess=subject.preprocess,
        classes=classes,
        # other captions are other classes, though the weights are the same: journals and baselines are keyed by this
        sha256=hashlib.sha256("\0".join((subject.sha256, *captions)).encode()).hexdigest(),
        settings=subject.settings,
        weights=subject.weights,
        unsafe=subject.unsafe,
    )
    own = subject.target_layer and f"{ENCODER}{subject.target_layer}"
    if layer is None and own is not None and subject.grid is not None:
        return replace(asked, target_layer=own, grid=subject.grid, placement=subject.placement)
    return with_target_layer(asked, layer=layer or own)
