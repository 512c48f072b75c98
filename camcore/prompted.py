"""Classifiers made of models that score captions: every audit of classes runs on them.

    as_classifier(subject, ["cat", "dog"], templates=["a photo of a {}."])

Classes that are the same to the model are refused: a choice between them would be by rounding.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from camcore.imagetext import REWORD, CaptionScorer, TwoTowers
from camcore.layers import with_target_layer
from camcore.similarity import Similarity
from camcore.subject import Classifier, at_least_fp32, first_tensor, refuse_half

ENCODER = "encoder."  # what the image tower's layers begin with in the classifiers made of it
PROBES = ("a photo of a cat", "two dogs on the left")  # captions that any model tells apart


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
