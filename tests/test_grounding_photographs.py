"""Grounding asked of a user's photographs: what is measured and shown, and the verdicts of the real command."""

from pathlib import Path

import pytest
import torch
from torch import nn

from audits import grounding_photographs as audit
from audits.grounding_photographs_shown import show
from benchmarks.binding_boxes import BOXES
from benchmarks.binding_photographs import write
from camcore.cost import metered
from camcore.errors import Undefined
from camcore.grounding import BoxFinder
from camcore.images import Batch, load
from camcore.testing import audit_model
from camcore.verdict import Overlay, Table
from fixtures.datasets.phrases import Phrases
from tests import phrases_folders as folders
from tests.running import ROOT, run

PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "binding"
CLAIMS = ("grounding/sides", "grounding/relations", "grounding/finds")
HEAD = f"{folders.HEAD},foil,relation"
RED = "0.png,the red block left of it,the red block,4,10,20,30,the red block right of it,left"
GREEN = "0.png,the green block,the green block,28,10,44,30,,other"


def told(phrases: Phrases, *, deaf: bool = False, higher: str = "") -> BoxFinder:
    """A finder that has the table's boxes by heart; a deaf one has one answer to each picture."""
    seen = {phrases.view(file, folders.SQUASHED)[0].numpy().tobytes(): file for file in phrases.things}
    lines = [one for group in phrases.groups for one in group.sought]
    known = {(one.file, text, one.phrase): one for one in lines for text in (one.caption, one.foil)}

    def find(image: torch.Tensor, caption: str, phrase: str) -> tuple[torch.Tensor, torch.Tensor]:
        file = seen.get(image.numpy().tobytes())
        if file is None:  # it is tried once on a black picture
            return torch.zeros(0, 4), torch.zeros(0)
        meant = 0 if deaf else phrases.meant(known[file, caption, phrase])
        things = phrases.view(file, folders.SQUASHED)[1]
        return things[meant : meant + 1], torch.full((1,), 1.0 if caption == higher else 0.5)

    return BoxFinder(name="told", spec="told", module=nn.Identity(), geometry=folders.SQUASHED, find=find)


def batch(phrases: Phrases, claim: str = "finds") -> Batch:
    data = phrases.of(claim)
    return load(data, data.ids, folders.SQUASHED, seed=0, device=torch.device("cpu"))


def test_each_phrase_is_asked_once_and_each_foil(tmp_path: Path) -> None:
    phrases = folders.found(folders.written(tmp_path, RED, GREEN, head=HEAD))
    for higher, above in (("the red block left of it", 1.0), ("the red block right of it", 0.0), ("", 0.0)):
        found = audit.grounding(told(phrases, higher=higher), batch(phrases), phrases=phrases)
        assert (found["right"].tolist(), found["above"].tolist(), found["stays"].tolist()) == ([1.0], [above], [1.0])
    assert [found[f"around:{index}"].item() for index in range(2)] == [0, 1]
    assert found["foil:0"].item() == 0.5
    assert "foil:1" not in found
    things = phrases.view("0.png", folders.SQUASHED)[1]
    assert [found[f"box:1:{edge}"].item() for edge in range(4)] == things[1].tolist()
    deaf = audit.grounding(told(phrases, deaf=True), batch(phrases), phrases=phrases)
    assert deaf["right"].tolist() == [0.5]
    assert [deaf[f"right:{index}"].item() for index in range(2)] == [1, 0]


def test_without_a_box_everything_is_wrong_and_groups_of_any_length_go_together(tmp_path: Path) -> None:
    more = (line.replace("0.png", "1.png") for line in (RED, GREEN))
    phrases = folders.found(
        folders.written(tmp_path, RED, GREEN, "0.png,a thing,a thing,52,10,68,30,,", *more, head=HEAD)
    )
    nothing = BoxFinder(
        name="nothing",
        spec="nothing",
        module=nn.Identity(),
        geometry=folders.SQUASHED,
        find=lambda image, caption, phrase: (torch.zeros(0, 4), torch.zeros(0)),
    )
    found = audit.grounding(nothing, batch(phrases), phrases=phrases)

    assert found["right"].tolist() == [0, 0]
    assert found["around:0"].tolist() == [-1, -1]
    assert found["score:0"].isnan().all()
    assert found["right:2"].isnan().tolist() == [False, True]
    assert found["above"].tolist() == [0, 0]
    rows = {one: {key: float(column[at]) for key, column in found.items()} for at, one in enumerate(batch(phrases).ids)}
    shown = list(show(nothing, batch(phrases), rows, phrases=phrases))
    assert all("no box" in one.caption for one in shown if isinstance(one, Overlay))


def test_what_is_shown_is_wrong_phrases_first_with_both_boxes_and_rates_by_relation(tmp_path: Path) -> None:
    phrases = folders.found(folders.written(tmp_path, RED, GREEN, head=HEAD))
    subject, some = told(phrases, deaf=True), batch(phrases)
    found = audit.grounding(subject, some, phrases=phrases)
    rows = {some.ids[0]: {key: float(column[0]) for key, column in found.items()}}
    with metered() as cost:
        wrong, right, by_relation, foils = show(subject, some, rows, phrases=phrases)

    assert cost.forwards == 0  # the boxes were kept
    assert isinstance(wrong, Overlay)
    assert isinstance(right, Overlay)
    assert wrong.caption.startswith("“the green block”, find “the green block”: around another thing, score 0.50")
    assert "line 3, 0.png" in wrong.caption
    assert "around what is meant" in right.caption
    larger = wrong.image.shape[1] // 40
    for image, white, magenta in ((wrong.image, 1, 0), (right.image, 0, 0)):
        for thing, colour in ((white, (1.0, 1.0, 1.0)), (magenta, (1.0, 0.0, 1.0))):
            rows_of, columns_of = (image == torch.tensor(colour)[:, None, None]).all(0).nonzero().T / larger
            box = phrases.view("0.png", folders.SQUASHED)[1][thing].tolist()
            edges = [columns_of.min(), rows_of.min(), columns_of.max(), rows_of.max()]
            assert edges == pytest.approx(box, abs=2)
    assert isinstance(by_relation, Table)
    assert [(row[0], row[1], row[2]) for row in by_relation.rows] == [
        ("all", 1, "1 of 2"),
        ("left", 1, "1 of 1"),
        ("other", 1, "0 of 1"),
    ]
    assert all(len(row) == len(by_relation.columns) for row in by_relation.rows)
    assert isinstance(foils, Table)
    assert foils.rows[0] == ("phrases with a foil", 1, "")


def test_a_claim_that_no_line_is_about_does_not_apply(tmp_path: Path) -> None:
    phrases = folders.found(folders.blocks(tmp_path, 2, claims=("finds",)))

    assert len(audit.about(phrases, "finds").ids) == 2
    with pytest.raises(Undefined, match=r"no line of the phrases in .* has 'sides' in the column claim"):
        audit.about(phrases, "sides")


@pytest.mark.slow
def test_whoever_reads_passes_whoever_is_deaf_fails_and_the_exit_codes_say_so(tmp_path: Path) -> None:
    data, file = folders.blocks(tmp_path / "data", 32), folders.finders(tmp_path)
    options = ("--data", data, "-p", "no:cacheprovider")
    passed = run(tmp_path / "passed", "--model", f"py:{file}:reads", *options)  # the other audits do not apply

    assert passed.code == 0, passed.output[-2000:]
    assert [passed.verdicts["finders.py-reads", claim] for claim in CLAIMS] == ["PASS"] * 3
    shown = {claim["id"]: claim for claim in passed.results["claims"]}
    assert shown["grounding/finds"]["sentence"] == audit.SAID["finds"]
    assert [len(shown[claim]["units"]) for claim in CLAIMS] == [32] * 3  # all of them, certain or not
    assert [shown[claim]["cost"]["forwards"] for claim in CLAIMS] == [64, 128, 64]
    (pictures,) = passed.results["data"]
    assert (pictures["spec"], pictures["n"]) == (str(data), 32)
    failed = run(tmp_path / "failed", "--model", f"py:{file}:deaf", *options, "-k", "test_grounding")
    assert failed.code == 1, failed.output[-2000:]
    assert [failed.verdicts["finders.py-deaf", claim] for claim in CLAIMS] == ["FAIL"] * 3


@pytest.mark.slow
def test_what_the_folder_does_not_have_is_no_pass_and_a_cut_picture_is_refused(tmp_path: Path) -> None:
    data, file = folders.blocks(tmp_path / "data", 32, claims=("sides",)), folders.finders(tmp_path)
    options = ("--data", data, "-k", "test_grounding", "-p", "no:cacheprovider")
    done = run(tmp_path / "report", "--model", f"py:{file}:reads", *options)

    assert [done.verdicts["finders.py-reads", claim] for claim in CLAIMS] == [
        "PASS",
        "NOT_APPLICABLE",
        "NOT_APPLICABLE",
    ]
    assert done.code == 6  # of what gates, only these were asked
    cut = run(tmp_path / "cut", "--model", f"py:{file}:cut", *options)
    assert cut.code == 4
    assert "of '0.png', 96 x 48 pixels, the model would see 72 x 48" in cut.output


@pytest.mark.slow
def test_a_grounder_in_hand_is_asked_of_a_folder(tmp_path: Path) -> None:
    phrases = folders.found(folders.blocks(tmp_path, 32, claims=("finds",)))
    for deaf, verdict in ((False, "PASS"), (True, "FAIL")):
        results = audit_model(told(phrases, deaf=deaf), data=tmp_path, audits=["grounding"])
        found = {claim.id: claim.verdict for claim in results.claims}
        assert found == dict(zip(CLAIMS, ("NOT_APPLICABLE", "NOT_APPLICABLE", verdict), strict=True))


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="the shared folder with photographs of relations is not here")
def test_a_few_photographs_decide_nothing_for_any_grounder_at_hand(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from fixtures.vision_language.tiny_grounders import save_tiny_grounder

    data = write(PHOTOGRAPHS, tmp_path / "photographs")
    tiny = [f"hf:{save_tiny_grounder(tmp_path / kind, kind=kind)}" for kind in ("grounding-dino", "owlv2")]
    specs = [*tiny, "control:grounder-oracle", "control:grounder-anywhere"]
    models = [word for spec in specs for word in ("--model", spec)]
    done = run(tmp_path / "report", *models, "--data", data, "-k", "test_grounding", "-p", "no:cacheprovider")

    assert done.code == 6, done.output[-2000:]
    assert len(BOXES) == 21
    (pictures,) = done.results["data"]
    assert pictures["n"] == len(BOXES)
    judged = [claim for claim in done.results["claims"] if claim["verdict"] != "NOT_APPLICABLE"]
    assert [(claim["id"], claim["verdict"]) for claim in judged] == [("grounding/finds", "INCONCLUSIVE")] * len(specs)
    for claim in judged:
        assert claim["reason"].startswith("too few images: 12 images, at least 16 are needed")
        assert claim["cost"]["forwards"] == 2 * 2 * len(BOXES)  # two phrases, each with a foil


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="the shared folder with photographs of relations is not here")
def test_whoever_has_the_boxes_by_heart_is_right_about_every_photograph(tmp_path: Path) -> None:
    phrases = folders.found(write(PHOTOGRAPHS, tmp_path / "photographs"))

    assert len(phrases.groups) == 12
    assert (audit.grounding(told(phrases), batch(phrases), phrases=phrases)["right"] == 1).all()
    assert (audit.grounding(told(phrases, deaf=True), batch(phrases), phrases=phrases)["right"] == 0.5).all()
