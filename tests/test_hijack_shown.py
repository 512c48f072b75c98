"""What the report shows of the audit of hijacking: pictures that were read back, curves, and tables."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor

from audits import hijack_shown
from audits import test_hijack as audit
from audits.crossing import first_at
from audits.hijack_attacks import WHERE
from audits.hijack_shown import show
from audits.report_folder import SHOWN
from camcore.verdict import Curve, Overlay, Table
from tests.hijacked import FOUND, LEAST, batch, by_image, subject

LOOKS = WHERE["top"]


def test_evidence_is_read_back_from_a_file(tmp_path: Path) -> None:
    asked = subject()
    whole = batch(asked)
    columns = audit.hijack(asked, whole, effort=LEAST, found=FOUND)
    rows = by_image(whole, columns)
    shown = list(show(asked, whole, rows, effort=LEAST, column="resists", found=FOUND, folder=tmp_path / "hijacked"))

    hit = columns["resists"].bool().tolist()
    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert [re.split(":| of class", one.caption)[0] for one in pictures] == [
        what
        for fallen in hit
        for what in (
            "as it is",
            f"hijacked {LOOKS}, from its PNG" if fallen else f"attacked {LOOKS} in vain",
            "the change, 16 times",
            "a piece",
        )
    ]
    curves, tables = ([one for one in shown if isinstance(one, kind)] for kind in (Curve, Table))
    assert (len(curves), len(tables)) == (2, 1)
    assert [series[0] for series in curves[0].series.values()] == [0.0, 0.0]  # what the checks measured
    told = dict(tables[0].rows)
    assert (
        told["pictures shown that were hijacked: hijacked again, and still when read back from their files"]
        == f"{sum(hit)} of {sum(hit)}"
    )
    files = sorted((tmp_path / "hijacked").glob("*.png"))
    assert sorted(tmp_path.glob(SHOWN)) == files  # what is set aside when another run begins
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
    rows = by_image(whole, columns)
    saved = hijack_shown._save

    def as_it_was(_image: Tensor, path: Path) -> None:
        saved(whole.images[int(path.name.split("-")[1])], path)

    monkeypatch.setattr(hijack_shown, "_save", as_it_was)
    with pytest.raises(
        ValueError, match=r"hijacked pictures are right again when they are read from their files: tiny-"
    ):
        list(show(asked, whole, rows, effort=LEAST, column="resists", found=FOUND, folder=tmp_path))


def test_an_image_that_falls_in_random_pixels_alone_counts_and_is_shown_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map marks one pixel, the random one the upper half: what is told of a change is told of that."""
    asked = subject()
    whole = batch(asked)
    one, half = torch.zeros(4, 16, 16), torch.zeros(4, 16, 16)
    one[:, 15, 15], half[:, :8] = 1, 1
    where = {"top": one, "random": half, "anti": one, "all": torch.ones(4, 16, 16)}
    for module in (audit, hijack_shown):
        monkeypatch.setattr(module, "masks", lambda *_, **__: where)
    columns = audit.hijack(asked, whole, effort=LEAST, found=FOUND)
    rows = by_image(whole, columns)
    shown = list(show(asked, whole, rows, effort=LEAST, column="resists", found=FOUND, folder=tmp_path))

    hit = columns["resists"] == 1
    assert 0 < int(hit.sum()) < 4
    assert torch.equal(columns["random:4"] == 1, hit)
    assert not columns["marked"].any()
    assert (columns["changed"][hit] > 0.1).all()  # one pixel is 0.004
    pictures = [one for one in shown if isinstance(one, Overlay)]
    fallen = [one for one in pictures if one.caption.startswith("hijacked in random pixels, from its PNG")]
    assert len(fallen) == int(hit.sum()) == len(list(tmp_path.glob("*.png")))
    for picture in fallen:
        assert picture.outline is not None
        assert torch.equal(picture.outline, half[0])
        change = picture.image - (whole.images[whole.ids.index(picture.unit)] * 255).round() / 255
        assert change[:, :8].abs().max() > 3.5 / 255
        assert change[:, 8:].abs().max() < 1e-6
    (table,) = (one for one in shown if isinstance(one, Table))
    told = dict(table.rows)
    assert told[f"{LOOKS}, 4/255, by any of these"].startswith("0.000")
    judged = told[f"{LOOKS}, at random or where it looks least, 4/255: what is judged"]
    assert judged.startswith(f"{float(hit.double().mean()):.3f}")


def test_success_over_steps_never_falls_and_ends_at_what_was_found() -> None:
    rows = {f"img{index}": {"top:4": 1.0, "steps:top": steps} for index, steps in enumerate((1.0, 2, 2, 5, 6))}
    rows |= {f"still{index}": {"top:4": 0.0, "steps:top": torch.nan} for index in range(3)}
    curve = hijack_shown._steps({**rows, "empty": {"top:4": torch.nan}}, LEAST)

    assert curve.x == (0, 1, 2, 4, 6)
    assert curve.series[LOOKS] == (0, 0.125, 0.375, 0.375, 0.625)
    assert curve.series["at random"] == (0,) * 5


def test_a_run_that_goes_on_leaves_no_picture_that_it_does_not_show(tmp_path: Path) -> None:
    asked = subject()
    whole = batch(asked)
    rows = by_image(whole, audit.hijack(asked, whole, effort=LEAST, found=FOUND))
    theirs = ("tiny-0-holiday.png", f"other-0-{whole.ids[0]}.png", "notes.txt")
    for name in (*theirs, f"tiny-3-{whole.ids[0]}.png"):
        (tmp_path / name).write_text("before", encoding="utf-8")
    list(show(asked, whole, rows, effort=LEAST, column="resists", found=FOUND, folder=tmp_path))

    hit = [index for index, image_id in enumerate(whole.ids) if rows[image_id]["resists"] == 1]
    assert {path.name for path in tmp_path.iterdir()} == {
        *theirs,
        *(f"tiny-{index}-{whole.ids[index]}.png" for index in hit),
    }


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


@pytest.mark.parametrize(("net", "said"), [(None, "not measured: its weights are not at hand"), ("vgg", "0.2500")])
def test_the_report_says_what_lpips_is_or_that_it_is_not_measured(net: str | None, said: str) -> None:
    rows = {"a": {"lpips": 0.25}, "b": {"lpips": torch.nan}}
    lines = hijack_shown._lpips(rows, replace(FOUND, lpips=net))
    assert [value for _, value in lines] == [said]
