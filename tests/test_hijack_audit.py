"""What the audit of hijacking measures and shows, what it costs, and that batches do not matter."""

import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor

from audits import hijack_shown
from audits import test_hijack as audit
from audits.crossing import first_at
from audits.hijack_blind import COLOURS, LENGTHS, NOISES
from audits.hijack_shown import show
from audits.hijack_signatures import TRIED
from audits.policy import load_policy
from camcore.cost import metered
from camcore.errors import Undefined
from camcore.images import Batch
from camcore.verdict import Curve, Overlay, Table
from tests.hijacked import FOUND, LEAST, SIGNATURES, batch, subject
from tests.tiny import numbered_dataset


def part(whole: Batch, index: int) -> Batch:
    one = slice(index, index + 1)
    return Batch(images=whole.images[one], labels=whole.labels[one], ids=whole.ids[one], seed=whole.seed, chunk=7)


def test_the_judged_columns_are_one_number_per_image_within_their_bounds() -> None:
    asked = subject()
    columns = audit.hijack(asked, batch(asked), effort=LEAST, found=FOUND)

    for question in audit.QUESTIONS:
        values = columns[question.name.partition("/")[2]]
        assert values.shape == (4,)
        assert ((values >= question.bounds[0]) & (values <= question.bounds[1])).all()
    hit = columns["resists"] == 1
    assert 0 < int(hit.sum()) < 4
    for name, most in (("largest", audit.JUDGED + 1e-3), ("changed", LEAST.area + 0.01), ("ssim", 1.0)):
        assert columns[name][~hit].isnan().all()
        assert columns[name][hit].max() <= most
    assert (columns["ssim"][hit] > 0.9).all()


def test_more_may_be_changed_everywhere_than_in_a_part() -> None:
    asked = subject()
    columns = audit.hijack(asked, batch(asked, 12), effort=LEAST, found=FOUND)

    assert columns["all:4"].mean() >= columns["top:4"].mean()
    assert (columns["loss"] > 0)[columns["top:4"] == 1].any()
    assert columns["loss"].isfinite().all()


def test_what_is_measured_of_an_image_does_not_depend_on_its_batch() -> None:
    asked = subject()
    whole = batch(asked, 3)
    together = audit.hijack(asked, whole, effort=LEAST, found=FOUND)
    for index in range(3):
        alone = audit.hijack(asked, part(whole, index), effort=LEAST, found=FOUND)
        for name, column in together.items():
            torch.testing.assert_close(alone[name][0], column[index], rtol=1e-4, atol=1e-4, equal_nan=True, msg=name)


def test_the_cost_is_at_most_that_of_the_attacks_it_names() -> None:
    asked = subject()
    whole = batch(asked)
    with metered() as cost:
        audit.hijack(asked, whole, effort=LEAST, found=FOUND)

    attacks = 2 * len(LEAST.sizes) + 4
    blind = NOISES + len(LENGTHS) * len(COLOURS) + LEAST.queries
    of_attacks = attacks * LEAST.restarts * (LEAST.steps + 1)
    assert cost.backwards <= 4 * (of_attacks + 1)
    assert cost.forwards <= 4 * (of_attacks + 2 + 2 * (TRIED + 1) + blind)


def test_what_no_claim_is_about_is_tried_on_the_chosen_images_alone() -> None:
    asked = subject()
    whole = batch(asked)
    everywhere = audit.hijack(asked, whole, effort=LEAST, found=FOUND)
    with metered() as cost:
        columns = audit.hijack(asked, whole, effort=LEAST, found=replace(FOUND, beside=frozenset(whole.ids[1:2])))

    for name, values in everywhere.items():
        alone = (
            name.partition(":")[0] in ("anti", "all", "l2", "squares", "target", "signature", "ssim") and ":" in name
        )
        expected = values.masked_fill(torch.arange(4) != 1, torch.nan) if alone else values
        torch.testing.assert_close(columns[name], expected, equal_nan=True, msg=name)
    with metered() as least:
        none = audit.hijack(asked, whole, effort=LEAST, found=replace(FOUND, beside=frozenset()))
    # everywhere, where it looks least, l2, a drawn class: of one image
    assert 0 < cost.backwards - least.backwards <= 4 * LEAST.restarts * (LEAST.steps + 1)
    assert all(none[name].isnan().all() for name in ("anti:4", "all:4", "l2:4", "target:4", "signature:64"))


def test_evidence_is_read_back_from_a_file(tmp_path: Path) -> None:
    asked = subject()
    whole = batch(asked)
    columns = audit.hijack(asked, whole, effort=LEAST, found=FOUND)
    rows = {unit: {key: float(values[i]) for key, values in columns.items()} for i, unit in enumerate(whole.ids)}
    shown = list(show(asked, whole, rows, effort=LEAST, column="resists", found=FOUND, folder=tmp_path / "hijacked"))

    hit = columns["resists"].bool().tolist()
    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert [re.split(":| of class", one.caption)[0] for one in pictures] == [
        what
        for fallen in hit
        for what in ("as it is", "from its PNG" if fallen else "attacked in vain", "the change, 16 times", "a piece")
    ]
    curves, tables = ([one for one in shown if isinstance(one, kind)] for kind in (Curve, Table))
    assert len(curves) == len(tables) == 1
    assert [series[0] for series in curves[0].series.values()] == [0.0, 0.0]  # what the checks measured
    told = dict(tables[0].rows)
    assert (
        told["pictures shown that were hijacked: hijacked again, and still when read back from their files"]
        == f"{sum(hit)} of {sum(hit)}"
    )
    files = sorted((tmp_path / "hijacked").glob("*.png"))
    assert [file.name for file in files] == [
        f"tiny-{index}-{whole.ids[index]}.png" for index, fallen in enumerate(hit) if fallen
    ]
    assert 0 < len(files) < 4
    with torch.no_grad():
        for file in files:
            pixels = torch.from_numpy(np.asarray(Pillow.open(file)).copy()).permute(2, 0, 1) / 255
            index = whole.ids.index(file.stem.split("-")[-1])
            assert int(asked.logits(pixels[None]).argmax()) != int(whole.labels[index])


def test_a_hijacked_picture_that_its_file_does_not_hold_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = subject()
    whole = batch(asked)
    columns = audit.hijack(asked, whole, effort=LEAST, found=FOUND)
    rows = {unit: {key: float(values[i]) for key, values in columns.items()} for i, unit in enumerate(whole.ids)}
    saved = hijack_shown._save

    def as_it_was(_image: Tensor, path: Path) -> None:
        saved(whole.images[int(path.name.split("-")[1])], path)

    monkeypatch.setattr(hijack_shown, "_save", as_it_was)
    with pytest.raises(
        ValueError, match=r"hijacked pictures are right again when they are read from their files: tiny-"
    ):
        list(show(asked, whole, rows, effort=LEAST, column="resists", found=FOUND, folder=tmp_path))


@pytest.mark.parametrize(
    ("curve", "at"),
    [
        ({1: 0.9, 2: 1.0}, ("at most ", 1)),
        ({1: 0.0, 2: 1.0}, ("", 1.5)),
        ({1: 0.1, 2: 0.2, 4: 0.4, 8: 0.8}, ("", 5.0)),
        ({1: 0.0, 8: 0.4}, ("more than ", 8)),
        ({0.1: 0.0, 0.2: 0.6, 0.3: 0.1}, ("", pytest.approx(0.1 + 0.5 / 6))),
    ],
)
def test_where_a_curve_first_reaches_one_half(curve: dict[float, float], at: tuple[str, float]) -> None:
    assert first_at(curve, 0.5) == at


def test_the_release_profile_has_a_hundred_steps_and_five_restarts() -> None:
    most = load_policy(None, profile="release").attacks

    assert (most.steps, most.restarts) >= (100, 5)
    assert most.sizes == [1, 2, 4, 8]


def test_what_is_right_among_other_images_is_a_measurement_of_its_own() -> None:
    """A resumed run may have more images: others are the first then, and are attacked in more ways."""
    told = []
    for budget in (100, 384):
        ask = MagicMock()
        ask.terms.budget = budget
        audit.ask_about(ask, audit.RESISTS, "resists")
        told.append(ask.call_args.kwargs["apart"])

    assert told[0] != told[1]


def test_nothing_guides_where_nothing_is_hijacked() -> None:
    data = numbered_dataset(4)
    none = replace(FOUND, right=data.ids[:2], by_gradient=0)

    assert audit.to_attack(data, {"found": none}, guided=False).ids == data.ids[:2]
    with pytest.raises(Undefined, match="of 2 pictures none was hijacked with 8/255 everywhere"):
        audit.to_attack(data, {"found": none}, guided=True)
    assert audit.to_attack(data, {"found": replace(none, by_gradient=1)}, guided=True).ids == data.ids[:2]


def test_an_image_without_another_class_at_hand_is_left_alone_and_not_counted() -> None:
    asked = subject()
    whole = batch(asked, 4)
    alone = replace(FOUND, signatures={int(whole.labels[0]): SIGNATURES[0]})
    columns = audit.hijack(asked, whole, effort=LEAST, found=alone)

    own = whole.labels == whole.labels[0]
    for name in ("target:4", "signature:4", "signature:64"):
        assert torch.equal(columns[name].isnan(), own)


def test_pictures_are_compared_by_lpips_too_where_its_weights_are_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject()

    def told(one: Tensor, other: Tensor, *, net: str) -> Tensor:
        assert net == "alex"
        return (one - other).abs().mean((1, 2, 3))

    monkeypatch.setattr(audit, "lpips", told)
    columns = audit.hijack(asked, batch(asked), effort=LEAST, found=replace(FOUND, lpips="alex"))

    hit = columns["resists"] == 1
    assert torch.equal(columns["lpips"].isnan(), ~hit)
    assert (columns["lpips"][hit] > 0).all()
    # a piece may change a value by sixteen times as much
    assert (columns["lpips:signature:64"] > columns["lpips:signature:4"]).any()
    assert not any(name.startswith("lpips") for name in audit.hijack(asked, batch(asked), effort=LEAST, found=FOUND))


@pytest.mark.parametrize(("net", "said"), [(None, "not measured: its weights are not at hand"), ("vgg", "0.2500")])
def test_the_report_says_what_lpips_is_or_that_it_is_not_measured(net: str | None, said: str) -> None:
    rows = {"a": {"lpips": 0.25}, "b": {"lpips": torch.nan}}
    lines = hijack_shown._lpips(rows, replace(FOUND, lpips=net))
    assert [value for _, value in lines] == [said]
