"""Does the map of a caption lie on the thing and the side that the caption names?

## What it measures

What speaks for a picture's true caption rather than for a false one: the map of s(I,T) - s(I,T'), the mean over
wordings, differentiated after the embeddings have length one. It has two signs: a place that speaks against T' is as
telling as one that speaks for T. energy and beats_centre: on groups of two pictures in which the colours of two things
change places, what share of the map, signs aside, lies in the boxes of the two things named; less their share of the
area, less that of a blob in the middle. Then one thing is named and a side ("a red mug on the left of the picture", or
on the right), of two things side by side. side: what the map says for the true side in the half where the thing is,
less what it says there against it, the other half the other way round; halved, so that a map without negative parts
gives its half-mass less a half. object: what share of the map lies on the thing named, less that on the other thing,
which neither caption names. false_caption: how much less of what speaks for the false caption alone lies on the thing
named than of what speaks for the true one; what puts the thing where it is not finds nothing there, unless sides are
not read. Values are means over the two pictures of a group: in the one the thing is on the left, in the other on the
right, so that a map that ignores picture and caption gives 0 in the last three, and in energy on average.

## Why it matters

A model that says yes to "the child on the left" and looks at the grass is right by accident. And a map that shows the
child in a caption that puts it on the wrong side shows that the side was not read.

## Known limits

The pictures are drawn, few things in plain rooms. A true map of a model that reads no sides fails side and
false_caption, a true one of a model that reads no colours fails object: audits of maps cannot tell a wrong map from a
wrong model, `binding` says which it is. Where attention has mixed places, a cell holds what other places show. Grad-CAM
weighs channels by their mean gradient; where the head reads places, as an attention pool does, that mean says little.
Two captions that are one to the model, as swapped ones are to a bag of words, have nothing that tells them apart: the
map has no gradient at any layer, and counts as the worst case; if more than one in twenty are, the claim is an ERROR.
Whatever goes by the caption's word alone, "left" to the left half, passes side; object and energy tell. So may a map
that is never negative, of a model that reads no sides and prefers a colour.

## Caught by

clip-no-places, clip-no-colours, clip-mirrored-map, clip-middle-map, clip-background-map

## References

Zhang et al. 2018 (Excitation Backprop, IJCV; arXiv:1608.00507, pointing game); Wang et al. 2020 (Score-CAM,
arXiv:1910.01279, energy-based pointing game); Selvaraju et al. 2017 (arXiv:1610.02391, section 3.1, for regions that
speak against); Kamath et al. 2023 (What'sUp, arXiv:2310.19785) for what models read of sides.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.caption_contrasts import Contrast, in_pixels, of_groups, of_sides
from audits.caption_maps_shown import Asked, show
from audits.question import Question
from camcore import chance
from camcore.cam import CamMethod
from camcore.errors import Undefined
from camcore.images import Batch, Images
from camcore.imagetext import TwoTowers
from camcore.maps import upsample
from camcore.metrics.localisation import energy_inside
from fixtures.datasets.binding_scenes import Bindings
from fixtures.datasets.binding_sides import side_by_side_scenes

VERSION = "1"

ENERGY = Question(
    name="caption_maps/energy",
    sentence="{cam} of what tells a caption from its swapped twin lies on the things they name more than a map that "
    "ignores the picture would",
    kind="DIR",
    measure="share of the map's sum, signs aside, in the boxes of both things, minus their share of the area",
    unit="of the map's sum",
    bounds=(-1.0, 1.0),
    needs="captions",
)
BEATS_CENTRE = Question(
    name="caption_maps/beats_centre",
    sentence="{cam} of what tells a caption from its swapped twin lies on the things they name more than a blob in the "
    "middle of the picture does",
    kind="DIR",
    measure="share of the map's sum, signs aside, in the boxes of both things, minus that of a blob in the middle",
    unit="of the map's sum",
    bounds=(-1.0, 1.0),
    needs="captions",
)
SIDE = Question(
    name="caption_maps/side",
    sentence="{cam} of what tells a thing's side speaks for the true one in the half where the thing is",
    kind="DIR",
    measure="half of the map's sum in the half where the thing is less that in the other, of the sum without signs",
    unit="of the map's sum",
    bounds=(-0.5, 0.5),
    needs="captions",
)
OBJECT = Question(
    name="caption_maps/object",
    sentence="{cam} of what tells a thing's side lies on that thing more than on the other one",
    kind="DIR",
    measure="share of the map's sum, signs aside, on the thing named, minus that on the thing not named",
    unit="of the map's sum",
    bounds=(-1.0, 1.0),
    needs="captions",
)
FALSE_CAPTION = Question(
    name="caption_maps/false_caption",
    sentence="{cam} of a caption lies on the thing it names less if it puts it on the wrong side",
    kind="DIR",
    measure="share of the positive map on the thing named, of the true caption alone minus of the false one alone",
    unit="of the map's sum",
    bounds=(-1.0, 1.0),
    needs="captions",
)
QUESTIONS = (ENERGY, BEATS_CENTRE, SIDE, OBJECT, FALSE_CAPTION)


def pairs(subject: TwoTowers, batch: Batch, *, cams: Mapping[str, CamMethod], bindings: Bindings) -> dict[str, Tensor]:
    """How much of what tells true captions from swapped ones lies on the two things; one recording of each picture.

    Returns:
        Means over the pictures of a group: `<cam>:energy` and `<cam>:positive` (share in the boxes of the map without
        its signs, and of its positive part), `<cam>:over_area`, `<cam>:over_centre`, `<cam>:degenerate`;
        `centre:energy`, `things:area`, and `right`, the share of pictures whose true caption is scored higher.
    """
    asked = of_groups(subject, bindings, batch)
    rec = asked.record(chunk=batch.chunk)
    area = asked.named.mean((1, 2))
    centre = energy_inside(upsample(chance.centre(rec), rec.images.shape[2:]), asked.named)
    columns = {"things:area": area, "centre:energy": centre, "right": _right(asked, rec.logits)}
    for name, cam in cams.items():
        cells = cam(rec)
        signed, code = in_pixels(rec, cells), asked.degenerate(rec, cells)
        energy = energy_inside(signed.abs(), asked.named)
        found = {"energy": energy, "over_area": energy - area, "over_centre": energy - centre}
        found["positive"] = _or_nothing(energy_inside(signed.relu(), asked.named))
        columns |= {f"{name}:{what}": column.masked_fill(code != 0, torch.nan) for what, column in found.items()}
        columns[f"{name}:degenerate"] = code.double()
    return _by_group(columns)


def sides(subject: TwoTowers, batch: Batch, *, cams: Mapping[str, CamMethod], bindings: Bindings) -> dict[str, Tensor]:
    """Where the map of a thing's side lies; three recordings of each picture: the contrast, and either caption alone.

    Returns:
        Means over the pictures of a group: `<cam>:side`, `<cam>:object`, `<cam>:false_caption`, what is judged;
        `<cam>:half_mass` (share of the positive map in the half where the thing is), `<cam>:on_named` and
        `<cam>:on_other` (without its signs); `<cam>:true:<place>` and `<cam>:false:<place>`, the shares of either
        caption's own map on what it names, on the other thing, and in the half that it names; `<cam>:degenerate`;
        `named:area`, and `right`.
    """
    asked = of_sides(subject, bindings, batch)
    rec = asked.record(chunk=batch.chunk)
    true, false = (asked.alone(said, cams, chunk=batch.chunk) for said in (asked.true, asked.false))
    columns = {"named:area": asked.named.mean((1, 2)), "right": _right(asked, rec.logits)}
    for name, cam in cams.items():
        cells = cam(rec)
        signed, code = in_pixels(rec, cells), asked.degenerate(rec, cells)
        sign = 2 * asked.half - 1
        on_named, on_other = (energy_inside(signed.abs(), where) for where in (asked.named, asked.other))
        found = {
            "side": (signed * sign).sum((1, 2)) / signed.abs().sum((1, 2)) / 2,
            "object": on_named - on_other,
            "half_mass": _or_nothing(energy_inside(signed.relu(), asked.half)),
            "on_named": on_named,
            "on_other": on_other,
        }
        for what, saliency, half in (("true", true[name], asked.half), ("false", false[name], 1 - asked.half)):
            for place, mask in (("named", asked.named), ("other", asked.other), ("half", half)):
                found[f"{what}:{place}"] = _or_nothing(energy_inside(saliency, mask))
        found["false_caption"] = found["true:named"] - found["false:named"]
        columns |= {f"{name}:{what}": column.masked_fill(code != 0, torch.nan) for what, column in found.items()}
        columns[f"{name}:degenerate"] = code.double()
    return _by_group(columns)


def _or_nothing(share: Tensor) -> Tensor:
    """Of an empty map nothing lies anywhere."""
    return share.nan_to_num(0.0)


def _right(asked: Contrast, logits: Tensor) -> Tensor:
    found = (logits.gather(1, said[:, None])[:, 0] for said in (asked.true, asked.false))
    return (next(found) > next(found)).double()


def _by_group(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean over a group's two pictures; of codes the larger, which names what was wrong with either."""
    return {
        name: both.amax(1) if name.endswith(":degenerate") else both.mean(1)
        for name, both in ((name, column.unflatten(0, (-1, 2))) for name, column in columns.items())
    }


@pytest.mark.audit("caption_maps")
def test_what_tells_captions_apart_lies_on_the_things(ask: Ask, cam: str) -> None:
    ask_about(ask, ENERGY, cam, column=f"{cam}:over_area")


@pytest.mark.audit("caption_maps")
def test_what_tells_captions_apart_beats_the_centre(ask: Ask, cam: str) -> None:
    ask_about(ask, BEATS_CENTRE, cam, column=f"{cam}:over_centre")


@pytest.mark.audit("caption_maps")
def test_the_side_is_told_where_the_thing_is(ask: Ask, cam: str) -> None:
    ask_about_sides(ask, SIDE, cam, column=f"{cam}:side")


@pytest.mark.audit("caption_maps")
def test_the_side_is_told_by_the_thing_that_is_named(ask: Ask, cam: str) -> None:
    ask_about_sides(ask, OBJECT, cam, column=f"{cam}:object")


@pytest.mark.audit("caption_maps")
def test_a_false_caption_has_another_map(ask: Ask, cam: str) -> None:
    ask_about_sides(ask, FALSE_CAPTION, cam, column=f"{cam}:false_caption", single=True)


def ask_about(ask: Ask, question: Question, cam: str, *, column: str) -> None:
    """Put one of the claims about groups as they are."""
    _ask(ask, question, cam, column, ask.bindings, measure=pairs, asked=of_groups, single=False)


def ask_about_sides(ask: Ask, question: Question, cam: str, *, column: str, single: bool = False) -> None:
    """Put one of the claims about one thing and its side, of two side by side."""
    drawn = ask.bindings and side_by_side_scenes(ask.terms.budget, seed=ask.terms.seed, size=ask.bindings.size)
    those = ask if drawn is None else replace(ask, dataset=drawn.first)
    _ask(those, question, cam, column, drawn, measure=sides, asked=of_sides, single=single)


def _ask(
    ask: Ask,
    question: Question,
    cam: str,
    column: str,
    bindings: Bindings | None,
    *,
    measure: Callable[..., dict[str, Tensor]],
    asked: Asked,
    single: bool,
) -> None:
    def premise(_images: Images) -> dict[str, Bindings]:
        if bindings is None or not isinstance(ask.subject, TwoTowers):
            raise Undefined(f"{ask.subject.name} has no tower of images whose features a caption's score could explain")
        high, wide = ask.subject.geometry.crop
        if high != wide:
            raise Undefined(f"{ask.subject.name} takes pictures of {high}x{wide}, and drawn scenes are square")
        return {"bindings": bindings}

    ask(
        question,
        cam,
        premise=premise,
        measure=partial(measure, cams=ask.defined),
        column=column,
        show=partial(
            show, name=cam, cam=ask.cams.get(cam), cams=ask.defined, column=column, asked=asked, single=single
        ),
        version=VERSION,
        apart=asked.__name__,
    )
