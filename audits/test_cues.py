"""Where shape and texture say different classes, which of them does the model go by?

## What it measures

Pictures with two cues: the outline of one class and the surface of another. The model's decision is the category whose
classes have the highest mean probability. shape counts 1 where that is the category of the outline, -1 where it is that
of the surface and 0 where it is neither, or where two are level: its mean is above 0 where the shape bias, shape /
(shape + texture), is above one half. coverage is how often it is one of the two. The pictures are the user's
(`--audit-cues FOLDER`, named as the cue-conflict set of Geirhos et al. is; the sixteen categories of that set are known
for models of ImageNet's classes, by their names) or, for models of scenes, drawn. Of K categories chance decides for
one of two in 2 / K of the pictures; where that reaches the margin (of 0.5: four categories or fewer), coverage does not
apply. It is not corrected for chance, so that it can be compared with what is published for sixteen.

## Why it matters

A model that goes by texture is right about photographs and wrong about drawings, statues, fog and night; and what it
calls a cat has no need of a cat's shape. Which cue it goes by cannot be told from pictures on which both agree.

## Known limits

Neither cue is wrong: a class may well be what its surface is. Cue-conflict pictures are made, not seen, so that a model
may be at a loss with them, which is why coverage stands beside the bias; a shape bias over few decisions says little.
Coverage of few categories says less than of many: of five chance alone gives 0.4, of sixteen 0.125. A model of a
thousand classes without names is taken for one of ImageNet's. In drawn pictures the outline is exact and the surface is
laid over it in tiles; where a surface holds much of its class (the spots of a ladybird), that is a strong cue. Shape
bias moves by points with decoder, resizing and the version of the weights.

## Caught by

texture_bag, patch_bag, permuted

## References

Geirhos et al. 2019 (arXiv:1811.12231); Geirhos et al. 2021 (arXiv:2106.07411, bethgelab/model-vs-human) for the
decision rule and the sixteen categories.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from audits.ask import Among, Ask
from audits.question import Question
from audits.seen import seen
from audits.shares import share_so_far
from camcore.cam import CamMethod
from camcore.engine import Row, rank
from camcore.errors import Undefined
from camcore.images import Batch, Dataset, Images
from camcore.metrics.cues import decisions
from camcore.subject import Classifier
from camcore.verdict import Evidence, Overlay, Table
from fixtures.datasets.cue_conflict import Conflicts

VERSION = "2"
NEITHER, LEVEL = "neither", "level"

SHAPE = Question(
    name="cues/shape",
    sentence="where shape and texture say different classes, the model goes by the shape",
    kind="DIR",
    measure="1 where it decides for the class of the shape, -1 for that of the texture, 0 for neither",
    unit="of the pictures",
    bounds=(-1.0, 1.0),
)
COVERAGE = Question(
    name="cues/coverage",
    sentence="of most pictures whose shape and texture say different classes the model says one of the two",
    kind="MFT",
    measure="1 where it decides for the class of the shape or for that of the texture",
    unit="of the pictures",
    bounds=(0.0, 1.0),
)
QUESTIONS = (SHAPE, COVERAGE)


@torch.no_grad()
def cues(subject: Classifier, batch: Batch, *, conflicts: Conflicts) -> dict[str, Tensor]:
    """What the model decides for.

    Returns:
        `shape` and `coverage`, what is judged; `decision`, the number of the category, -1 for none.
    """
    logits = subject.logits(batch.images)
    decision = decisions(logits, list(conflicts.categories.values()))
    texture = torch.tensor([conflicts.textures[image_id] for image_id in batch.ids], device=decision.device)
    by_shape, by_texture = (decision == batch.labels).double(), (decision == texture).double()
    broken = ~logits.isfinite().all(1)  # no scores: nothing was decided, and nothing left open
    return {
        "shape": (by_shape - by_texture).masked_fill(broken, torch.nan),
        "coverage": (by_shape + by_texture).masked_fill(broken, torch.nan),
        "decision": decision.double(),
    }


def show(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    column: str,
    conflicts: Conflicts,
    cam: CamMethod | None,
) -> Iterable[Evidence]:
    """Each picture, with the map of what is predicted; how often shape, texture and neither decide, by category."""
    names = list(conflicts.categories)
    probability, saliency = seen(subject, batch.images, cam, None, chunk=batch.chunk)
    for index, image_id in enumerate(batch.ids):
        shape, texture = names[int(batch.labels[index])], names[conflicts.textures[image_id]]
        yield Overlay(
            unit=image_id,
            role=rank(index, len(batch)),
            value=rows[image_id].get(column, torch.nan),
            caption=f"shape of {shape}, texture of {texture}: {_said(rows[image_id], names)} "
            f"({float(probability[index].max()):.2f} for {subject.classes[int(probability[index].argmax())]})",
            image=batch.images[index],
            saliency=None if saliency is None else saliency[index],
        )
    yield _table(rows, conflicts)


def _said(row: Row, names: Sequence[str]) -> str:
    decision = int(row["decision"])
    return f"called {names[decision]}" if decision >= 0 else "two are level"


def _table(rows: Mapping[str, Row], conflicts: Conflicts) -> Table:
    """Of every shape, and of all: what decided."""
    shapes = dict(zip(conflicts.dataset.ids, conflicts.dataset.labels, strict=True))
    names = list(conflicts.categories)
    lines = [
        _line(name, [row for image_id, row in rows.items() if shapes[image_id] == number])
        for number, name in enumerate(names)
        if number in {shapes[image_id] for image_id in rows}
    ]
    left_out = f"; {conflicts.agreeing} more, whose cues agree, are left out" if conflicts.agreeing else ""
    return Table(
        title="Which cue decides, by the category of the shape (shape bias: shape / (shape + texture), with its "
        f"95 % interval; coverage: shape or texture{left_out})",
        columns=("shape of", "pictures", "shape", "texture", NEITHER, LEVEL, "shape bias", "coverage"),
        rows=(_line("all", list(rows.values())), *lines),
    )


def _line(name: str, rows: Sequence[Row]) -> tuple[str | int | float, ...]:
    count = len(rows)
    shape, texture = (sum(row["shape"] == sign for row in rows) for sign in (1, -1))
    level = sum(row["decision"] < 0 for row in rows)
    told = share_so_far(torch.tensor([1.0] * shape + [0.0] * texture), digits=3)  # of those that were decided
    covered = round((shape + texture) / count, 4)
    return (name, count, shape, texture, count - shape - texture - level, level, told, covered)


@pytest.mark.audit("cues")
def test_cues_of_shape_decide(ask: Ask) -> None:
    ask_about(ask, SHAPE, "shape")


@pytest.mark.audit("cues")
def test_cues_decide_at_all(ask: Ask) -> None:
    ask_about(ask, COVERAGE, "coverage", partial(beyond_chance, margin=ask.policy.claims[COVERAGE.name].margin))


def beyond_chance(dataset: Dataset, given: Mapping[str, Any], *, margin: float) -> Dataset:
    """All of the pictures, if a model that decides at random would cover fewer of them than the margin asks.

    Raises:
        Undefined: So few categories that chance reaches the margin: two of K are the picture's own.
    """
    count = len(given["conflicts"].categories)
    chance = min(1.0, 2 / count)
    if chance >= margin:
        raise Undefined(
            f"of {count} categories chance alone decides for the shape's or the texture's in {chance:.2f} of the "
            f"pictures, and the margin is {margin:g}; give pictures of more categories with --audit-cues"
        )
    return dataset


def ask_about(ask: Ask, question: Question, column: str, among: Among | None = None) -> None:
    """Put one of the claims, about pictures with two cues instead of the run's images."""
    conflicts, cams = ask.conflicts, ask.defined

    def premise(_images: Images) -> dict[str, Conflicts]:
        """Raises `Undefined` where there are no such pictures."""
        if conflicts is None:
            raise Undefined(
                f"there are no pictures whose shape and texture say different classes of {ask.subject.name}; give a "
                "folder of them with --audit-cues"
            )
        return {"conflicts": conflicts}

    ask_those = ask if conflicts is None else replace(ask, dataset=conflicts.dataset)
    ask_those(
        question,
        measure=cues,
        column=column,
        show=partial(show, column=column, cam=next(iter(cams.values()), None)),
        version=VERSION,
        premise=premise,
        among=among,
    )
