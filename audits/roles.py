"""What a model is asked as (a classifier, a scorer of captions), with what it is shown as such.

One model may have several roles: two towers score captions, and are a classifier through prompts. A question names the
ability that it needs, and is put to the role of that name.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from audits.ask import Established, may_classify
from audits.options import Settings
from audits.policy import Policy
from camcore.cam import PARTIAL, CamMethod
from camcore.engine import Terms
from camcore.errors import BadInput, Undefined, one_line
from camcore.images import Dataset
from camcore.imagetext import CaptionScorer, TwoTowers
from camcore.prompted import PROBES, as_classifier, scorer_as_classifier, with_map
from camcore.recording import record
from camcore.subject import Ability, Classifier, Subject
from camcore.throughput import fastest_batch_size
from fixtures.controls.registry import control_of
from fixtures.datasets.binding_scenes import Bindings, binding_scenes
from fixtures.datasets.captions import Captions, drawn_captions, find_captions, has_captions, refuse_cut
from fixtures.datasets.cue_conflict import Conflicts, find_conflicts
from fixtures.datasets.grounding_scenes import GroundingScenes, grounding_scenes
from fixtures.datasets.phrases import HEADER, Phrases, find_phrases, has_phrases

TEMPLATES = ("a photo of a {}",)  # Radford et al. 2021, section 3.1.4
PAIRS = 8  # groups of pictures and captions at a time


@dataclass(frozen=True, kw_only=True)
class Role:
    """A model in one of its abilities, what it is shown, and on which terms."""

    subject: Any  # a Classifier, an ImageText, a Grounder
    dataset: Dataset
    terms: Terms
    undefined: Mapping[str, str] = field(default_factory=dict)  # methods that it has no such map of, with the reason
    conflicts: Conflicts | None = None  # pictures with two cues, if there are any for its classes
    bindings: Bindings | None = None  # drawn groups of pictures and captions, if it scores captions
    captions: Captions | None = None  # the same, or what the user brings
    scenes: GroundingScenes | None = None  # groups of pictures with phrases, if it finds what they name
    phrases: Phrases | None = None  # or photographs of the user's with phrases
    premises: dict[str, Established] = field(default_factory=dict)  # established once for all methods

    @property
    def shown(self) -> tuple[Dataset, ...]:
        """Everything that the model is asked about."""
        return (self.dataset,) if self.conflicts is None else (self.dataset, self.conflicts.dataset)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the caller has in hand, so that it is not looked up by its name."""

    name: str  # the model's id
    subject: Subject | None = None
    cams: Mapping[str, CamMethod] | None = None
    data: Dataset | Captions | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a role is made from."""

    subject: Any
    spec: str
    cams: Mapping[str, CamMethod]
    settings: Settings
    policy: Policy
    terms: Callable[[int], Terms]  # by the batch size
    batch_size: int | None  # the user's, or measured before; None: the role's own choice
    data: Dataset | Captions | None = None  # instead of what the settings name


def classes(asked: Asked) -> Role:
    """As a classifier, of the user's pictures, or of those that belong to it."""
    from fixtures.datasets.find import default_data, find_dataset  # torchvision's data sets, which a list does not need

    subject, settings, policy = asked.subject, asked.settings, asked.policy
    if isinstance(subject, TwoTowers | CaptionScorer):
        with trying(asked.spec):
            subject = _prompted(subject, settings)
    if settings.cams and subject.target_layer is None:
        raise BadInput(
            f"--cam {settings.cams[0]} needs a map of features, and {asked.spec!r} has no layer that gives one; "
            "leave --cam out, or name a layer with --audit-layer"
        )
    made = control_of(asked.spec)
    if asked.data is not None:
        dataset = _pictures(asked.data, subject)
    elif made is not None and made.data is not None and settings.data is None:
        dataset = made.data(policy.images, settings.seed)
    else:
        data = settings.data or default_data(asked.spec, settings.weights)
        dataset = find_dataset(data, subject=subject, n=policy.images, seed=settings.seed)
    with trying(asked.spec):
        size = asked.batch_size or fastest_batch_size(subject)
        undefined = undefined_methods(subject, asked.cams)
    return Role(
        subject=subject,
        dataset=dataset,
        terms=asked.terms(size),
        undefined=undefined,
        conflicts=find_conflicts(settings.cues, subject=subject, n=policy.images, seed=settings.seed),
    )


def _pictures(data: Dataset | Captions, subject: Classifier) -> Dataset:
    if isinstance(data, Captions):
        raise BadInput(f"captions were given to {subject.name}, which scores classes; give pictures with labels")
    if not data.labels:
        raise BadInput(f"{data.spec} holds no pictures; {subject.name} cannot be asked about none")
    if max(data.labels) >= len(subject.classes):
        raise BadInput(
            f"{data.spec} has labels up to {max(data.labels)}, but {subject.name} has {len(subject.classes)} classes"
        )
    return data


def through_captions(subject: Subject, settings: Settings) -> tuple[Ability, ...]:
    """What a model can do beside what it was made for: classify through captions, if `--data` says which classes."""
    named = settings.data is not None and not has_captions(settings.data)
    return ("classes",) if may_classify(subject) and named else ()


def _prompted(subject: TwoTowers | CaptionScorer, settings: Settings) -> Classifier:
    """A classifier of the data's classes, by what a caption would call them."""
    from fixtures.datasets.class_names import class_names

    names = class_names(settings.data or "")
    for template in settings.templates:
        if "{}" not in template:
            raise BadInput(f"--audit-template needs {{}} where the class's name goes, got {template!r}")
    templates = settings.templates or TEMPLATES
    if isinstance(subject, CaptionScorer):
        return scorer_as_classifier(subject, names, templates=templates)
    return as_classifier(with_map(subject, layer=settings.layer), names, templates=templates)


def captions(asked: Asked) -> Role:
    """As a scorer of captions, of the user's pictures and captions, or of groups that are drawn."""
    subject, settings, terms = asked.subject, asked.settings, asked.terms(asked.batch_size or PAIRS)
    undefined: dict[str, str] = {}
    if isinstance(subject, TwoTowers):
        with trying(asked.spec):
            subject = with_map(subject, layer=settings.layer)
            undefined = undefined_methods(as_classifier(subject, PROBES), asked.cams)
    elif settings.layer is not None:
        raise BadInput(
            f"--audit-layer {settings.layer!r}: {asked.spec!r} has no tower of images; leave it out, or return a "
            "camcore.TwoTowers"
        )
    if isinstance(asked.data, Dataset):
        raise BadInput(
            f"pictures with labels were given to {subject.name}, which scores captions; "
            "give it classes with camcore.as_classifier, or pictures with captions"
        )
    # two towers may be given classes: then of captions they are asked about scenes
    if asked.data is not None:
        return Role(subject=subject, dataset=asked.data.dataset, terms=terms, undefined=undefined, captions=asked.data)
    if settings.data is not None and (has_captions(settings.data) or not may_classify(subject)):
        given = find_captions(settings.data, geometry=subject.geometry)
        return Role(subject=subject, dataset=given.dataset, terms=terms, undefined=undefined, captions=given)
    size = max(subject.geometry.crop)
    refuse_cut(subject.geometry, size, size, "drawn scenes")
    drawn = binding_scenes(asked.policy.images, seed=settings.seed, size=size)
    return Role(
        subject=subject,
        dataset=drawn.first,
        terms=terms,
        undefined=undefined,
        bindings=drawn,
        captions=drawn_captions(drawn),
    )


def boxes(asked: Asked) -> Role:
    """As what finds phrases, of the user's photographs with phrases to be found, or of groups that are drawn."""
    subject, settings, terms = asked.subject, asked.settings, asked.terms(asked.batch_size or PAIRS)
    if asked.data is not None or (settings.data is not None and not has_phrases(settings.data)):
        raise BadInput(
            f"--data {settings.data or 'as given'!r} has no phrases for {asked.spec!r}; give a folder with phrases.csv "
            f"({HEADER}), or leave it out: grounding scenes are drawn"
        )
    if settings.data is not None:
        phrases = find_phrases(settings.data, geometry=subject.geometry)
        return Role(subject=subject, dataset=phrases.dataset, terms=terms, phrases=phrases)
    high, wide = subject.geometry.crop
    if high != wide:
        raise BadInput(
            f"{subject.name} takes pictures of {high}x{wide}, and drawn scenes are square; give it a square geometry"
        )
    refuse_cut(subject.geometry, high, high, "drawn scenes")
    scenes = grounding_scenes(asked.policy.images, seed=settings.seed, size=high)
    return Role(subject=subject, dataset=scenes.first, terms=terms, scenes=scenes)


ROLES: dict[Ability, Callable[[Asked], Role]] = {"classes": classes, "captions": captions, "boxes": boxes}


def undefined_methods(subject: Classifier, cams: Mapping[str, CamMethod]) -> dict[str, str]:
    """Those of the chosen methods that the model has no such map of, found by trying them on a blank image."""
    tried = {name: cam for name, cam in cams.items() if name in PARTIAL and subject.target_layer is not None}
    reasons: dict[str, str] = {}
    if tried:
        rec = record(subject, torch.full((1, 3, *subject.geometry.crop), 0.5, device=subject.device), chunk=1)
        for name, cam in tried.items():
            try:
                cam(rec)
            except Undefined as problem:
                reasons[name] = str(problem)
    return reasons


@contextmanager
def trying(spec: str) -> Iterator[None]:
    """The model's own code can raise anything while it is loaded, probed and timed; a warning is no obstacle."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    except BadInput:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as problem:
        raise BadInput(
            f"the model {spec!r} does not run ({one_line(problem)}); "
            "it must take batches of any size, and give one row of scores per image"
        ) from problem
