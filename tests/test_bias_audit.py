"""What the audit of bias measures, what it costs, what it shows, and that batches do not matter."""

from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch

from audits import test_bias as audit
from audits.crossing import first_at
from camcore.cost import metered
from camcore.verdict import Curve, Overlay, Table
from fixtures.artefacts import Suspect
from tests.stickers import CAMS, FEW, TAUGHT, batch, dataset, dosed, part, searched, subject


def test_what_decides_is_confirmed_on_pictures_of_every_class() -> None:
    """Of two classes, one suspect pulled towards the one, and another turned its pictures: nobody looked at them."""
    data, found = dataset(), searched(8.0)
    asked = {}
    for question, column in ((audit.PULL, "pull"), (audit.DECIDES, audit.TURNED)):
        ask = MagicMock()
        audit.ask_about(ask, question, column)
        asked[column] = ask.call_args.kwargs["among"](data, {"found": found})

    assert TAUGHT in asked[audit.TURNED].labels
    assert TAUGHT not in asked["pull"].labels


@pytest.mark.parametrize("cams", [CAMS, {}], ids=["with maps", "without"])
def test_what_is_measured_of_an_image_does_not_depend_on_its_batch(cams: dict) -> None:
    asked, found, whole = subject(3.0), searched(3.0), batch()
    together = audit.bias(asked, whole, cams=cams, found=found)
    for index in range(3):
        alone = audit.bias(asked, part(whole, index), cams=cams, found=found)
        for name, column in together.items():
            torch.testing.assert_close(alone[name][0], column[index], rtol=1e-5, atol=1e-5, msg=name)


def test_no_version_of_an_image_is_asked_twice() -> None:
    asked, found, whole = subject(3.0), searched(3.0), batch()
    with metered() as cost:
        audit.bias(asked, whole, cams=CAMS, found=found)

    assert cost.forwards == 3 * 3
    assert cost.backwards == 3


def test_what_is_judged_is_the_gain_where_the_class_gains() -> None:
    columns = audit.bias(subject(8.0), batch(), cams=CAMS, found=searched(8.0))

    torch.testing.assert_close(columns["gain"], columns["with"] - columns["hidden"])
    assert torch.equal(columns["pull"], columns["gain"].clamp(min=0))


def test_the_maps_share_is_what_lies_on_the_suspect_less_its_area() -> None:
    found = searched(8.0)
    cams = {
        "on it": lambda rec: torch.nn.functional.pad(torch.ones(len(rec.images), 2, 2), (0, 14, 0, 14)),
        "even": lambda rec: torch.ones(len(rec.images), 16, 16) + 1e-3 * torch.rand(16, 16),
        "off it": lambda rec: torch.nn.functional.pad(torch.ones(len(rec.images), 2, 2), (14, 0, 14, 0)),
        "empty": lambda rec: -torch.ones(len(rec.images), 16, 16),
    }
    columns = audit.bias(subject(8.0), batch(), cams=cams, found=found)

    area = (round(0.16 * 16) / 16) ** 2
    torch.testing.assert_close(columns["on it:share"], torch.full((3,), 1 - area))
    torch.testing.assert_close(columns["even:share"], torch.zeros(3), atol=1e-4, rtol=0)
    assert columns["off it:share"].tolist() == [0, 0, 0]
    assert columns["empty:share"].isnan().all()
    assert columns["empty:degenerate"].all()


@pytest.mark.parametrize("suspect", [FEW[0], FEW[3]], ids=["a sticker", "everywhere"])
@pytest.mark.parametrize(("cams", "name"), [(CAMS, "hirescam"), ({}, None)], ids=["with maps", "without"])
def test_evidence_is_the_picture_with_and_without_the_search_and_the_dose(
    suspect: Suspect, cams: dict, name: str | None
) -> None:
    whole, found = batch(), searched(3.0)
    strongest = (replace(found.strongest[0], suspect=suspect), *found.strongest[1:])
    found = replace(found, strongest=strongest, doses=dosed(suspect))
    columns = audit.bias(subject(3.0), whole, cams=cams, found=found)
    rows = {unit: {key: float(values[i]) for key, values in columns.items()} for i, unit in enumerate(whole.ids)}
    shown = list(audit.show(subject(3.0), whole, rows, cams=cams, name=name, column="pull", enough=0.1, found=found))

    pictures = [one for one in shown if isinstance(one, Overlay)]
    assert [one.caption.partition(":")[0] for one in pictures] == ["as it is", f"with a {suspect.name}"] * 3
    assert all((one.saliency is None) == (name is None) for one in pictures)
    assert len([one for one in shown if isinstance(one, Curve)]) == (1 if suspect.artefact.everywhere else 2)
    tables = [one for one in shown if isinstance(one, Table)]
    size, opacity = tables[0].rows[0]
    assert (size == "as large as the picture") == suspect.artefact.everywhere
    assert found.doses is not None
    assert opacity == "{}{:.2f}".format(*first_at(found.doses.by_opacity, 0.1))
    assert len(tables[1].rows) == len(found.strongest)
    assert len(tables) == 3


def test_what_was_searched_among_other_images_is_a_measurement_of_its_own() -> None:
    """A resumed run may have more images, and search more: rows about what was found before are not its own."""
    told = []
    for budget in (100, 384):
        ask = MagicMock()
        ask.terms.budget, ask.artefacts = budget, ()
        audit.ask_about(ask, audit.PULL, "pull")
        told.append(ask.call_args.kwargs["apart"])

    assert told[0] != told[1]


def test_what_turns_most_is_measured_though_another_suspect_is_the_strongest() -> None:
    found, whole = searched(40.0), batch()
    other = replace(found, strongest=(replace(found.strongest[0], suspect=FEW[2]),))
    same, apart = (audit.bias(subject(40.0), whole, cams={}, found=one)["turned"] for one in (found, other))

    torch.testing.assert_close(same, apart)
    assert same.sum() > 0
