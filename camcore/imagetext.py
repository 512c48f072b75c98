"""Subjects that score images against captions: two towers, one for each, and the cosine between what they give.

Or any function that does, which has no embeddings to look into.

    subject.similarity(images, ["a mug on the left", "a mug on the right"])  # (b, 2)
    as_classifier(subject, ["cat", "dog"], templates=["a photo of a {}."])   # every audit of classes runs on it

What may go wrong without a sound is checked where it happens: captions of different words that two towers cannot tell
apart, and captions that are longer than they read (by `tokenise`). Sides that are cut away (`Geometry.keeps`) are seen
to by whoever gives pictures: audits refuse a model that would be shown a part.
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
from camcore.similarity import Similarity
from camcore.subject import Classifier, Subject, at_least_fp32, first_tensor, refuse_half

Score = Callable[[Images, Sequence[str]], Float[Tensor, "b captions"]]
Tokens = Mapping[str, Tensor]  # by the name that the text tower calls them; the first axis is the captions'
AT_ONCE = 64  # captions per forward of the text tower
NEIGHBOURS = 8  # along a line, among which a row that is the same must lie
ENCODER = "encoder."  # what the image tower's layers begin with in the classifiers made of it
PROBES = ("a photo of a cat", "two dogs on the left")  # captions that any model tells apart
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
        one forward per image, as `Classifier.logits` does, and none for captions. Captions of the same words in
        another order score exactly level where the text tower does not read the order.

        Raises:
            TooLong: A caption has more tokens than the model reads.
            ValueError: Two captions of different words have the same embedding, there is no caption, or the model
                trains.
        """
        different = list(dict.fromkeys(captions))  # scored once: a caption that stands twice ties with itself exactly
        text = self.embed_captions(different)
        count(forwards=len(images))
        embedded = at_least_fp32(first_tensor(self.embed_image(self.preprocess(images))))
        cosine = normalize(embedded, dim=1) @ text.to(embedded.dtype).T
        scores = 100 * cosine if self.bias is None else self.scale * cosine + self.bias
        column = {caption: index for index, caption in enumerate(different)}
        return scores[:, [column[caption] for caption in captions]]

    @torch.no_grad()
    def embed_captions(self, captions: Sequence[str]) -> Float[Tensor, "captions d"]:
        """The captions' embeddings at length one, each different caption embedded once.

        Raises:
            ValueError: See `similarity`.
        """
        if self.module.training:
            raise ValueError(f"{self.name} is in training mode: its scores depend on chance; call .eval() first")
        different = list(dict.fromkeys(captions))
        if not different:
            raise ValueError(f"expected at least one caption for {self.name}, got none")
        batches = [different[start : start + AT_ONCE] for start in range(0, len(different), AT_ONCE)]
        parts = [self._embed(batch) for batch in batches]
        found = normalize(torch.cat([embedded for embedded, _ in parts]), dim=1)
        found = self._told_apart(different, found, [words for _, of_batch in parts for words in of_batch])
        row = {caption: index for index, caption in enumerate(different)}
        return found[[row[caption] for caption in captions]]

    def _embed(self, captions: Sequence[str]) -> tuple[Float[Tensor, "n d"], list[bytes]]:
        """The embeddings, of any length, and of each caption its tokens, whatever their order."""
        tokens = self.tokenise(captions)
        sorted_rows = [value.cpu().long().reshape(len(captions), -1).sort(1).values for value in tokens.values()]
        embedded = self.embed_text({key: value.to(self.device) for key, value in tokens.items()})
        return at_least_fp32(embedded), [row.tobytes() for row in torch.cat(sorted_rows, 1).numpy()]

    def _told_apart(
        self, captions: Sequence[str], embedded: Float[Tensor, "n d"], words: Sequence[bytes]
    ) -> Float[Tensor, "n d"]:
        """The embeddings, those made exactly level that a bag of words makes level but for rounding.

        Which order words stand in is what audits ask; a tower that does not read it has answered. Captions of
        different words that are level are a mistake in how the model was put together.
        """
        with_words: dict[bytes, int] = {}
        first = [with_words.setdefault(key, index) for index, key in enumerate(words)]
        level = (embedded - embedded[first]).abs().amax(1) <= SAME
        bag = [
            index
            for index, other in enumerate(first)
            if other != index and level[index] and not self._same_tokens(captions[index], captions[other])
        ]
        apart = sorted(set(range(len(captions))) - set(bag))
        pair = same_rows(embedded[apart])
        if pair is None:
            return embedded.index_copy(0, _index(bag, embedded), embedded[[first[index] for index in bag]])
        one, other = (captions[apart[at]] for at in pair)
        why = (
            "its tokeniser gives both the same tokens (case and white space do not count); word one of them differently"
            if self._same_tokens(one, other)
            else "their tokens differ, so its text tower reads a position that is the same in every caption; "
            "correct eos_token_id in its config to the tokeniser's"
        )
        raise ValueError(
            f"{self.name} gives {one!r} and {other!r} the same embedding, which makes every comparison of them 0: {why}"
        )

    def _same_tokens(self, one: str, other: str) -> bool:
        return all(torch.equal(*values) for values in self.tokenise([one, other]).values())


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


def _index(rows: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64, device=like.device)


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
        ValueError: A template without "{}", or two different captions with the same embedding.
    """
    captions = [caption for _, wordings in _said(classes, templates) for caption in wordings]
    means = subject.embed_captions(captions).unflatten(0, (len(classes), len(templates))).mean(1)
    return _asked(subject, normalize(means, dim=1), tuple(classes), captions, layer)


def as_scorer(subject: TwoTowers, said: Sequence[Sequence[str]]) -> Classifier:
    """A classifier whose classes are said in as many wordings each, scored by the mean over the wordings' scores.

    What `similarity` gives, averaged (and at the model's own scale): a map of its logits, or of a contrast of two,
    explains what questions about captions judge. `as_classifier` averages embeddings instead, as a prompt ensemble.

    Args:
        subject: The two towers.
        said: Of each class its wordings, as many of each; the first names the class.

    Raises:
        ValueError: Not as many wordings of each class, or two different captions with the same embedding.
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
