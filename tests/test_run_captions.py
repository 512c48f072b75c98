"""The real command on models of captions: the user's folder, photographs that are too few, and hubs out of reach."""

import subprocess
import sys
from pathlib import Path

import pytest

from audits.options import read_settings
from audits.plan import prepare
from benchmarks.binding_photographs import write
from fixtures.vision_language.tiny_clip import save_tiny_clip, save_tiny_open_clip
from tests import captions_folders as folders
from tests.refusals import refusal
from tests.running import ROOT, environment, overlay, run

PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "binding"
ONLY = ("-k", "test_binding or test_captions", "--audit-profile", "smoke")
CLAIMS = ("binding/interaction", "binding/group", "captions/choice", "captions/needs_picture")
NAMED = (
    "hf:openai/clip-vit-base-patch32",
    "hf:openai/clip-vit-large-patch14@main",
    "hf:google/siglip-base-patch16-224",
    "hf:google/siglip2-base-patch16-224",
    "open_clip:RN50-quickgelu@openai",
    "open_clip:ViT-B-32-quickgelu@openai",
)


@pytest.mark.slow
def test_a_folder_of_captions_is_judged_and_the_report_has_its_benchmarks_scores(tmp_path: Path) -> None:
    data = folders.whatsup(tmp_path / "data", tuple(f"thing{index}_table" for index in range(60)))
    control = ("--model", "control:clip-constant")
    done = run(tmp_path / "report", *control, "--data", data, *ONLY, "-p", "no:cacheprovider")

    assert done.code == 1, done.output[-2000:]
    judged = {name: verdict for (_, name), verdict in done.verdicts.items() if verdict != "NOT_APPLICABLE"}
    relations = ("binding/left", "binding/on")  # what its pairs differ in
    assert judged == dict.fromkeys((*CLAIMS, *relations), "FAIL")
    (shown,) = done.results["data"]
    assert (shown["spec"], shown["n"]) == (str(data), 60)
    counts = {claim["id"]: len(claim["units"]) for claim in done.results["claims"] if claim["id"] in judged}
    expected = {claim: 120 if "binding" in claim else 60 for claim in CLAIMS}  # all of them, certain or not
    assert counts == {**expected, **dict.fromkeys(relations, 60)}
    tables = [one for claim in done.results["claims"] for one in claim["evidence"] if one["type"] == "table"]
    rows = {row[0]: row[1:] for table in tables for row in table["rows"]}
    assert rows["controlled_images: individual accuracy"][:2] == ["0.000", "0.250"]
    assert rows["controlled_images: set accuracy"][:2] == ["0.000", "0.004"]


@pytest.mark.slow
def test_choices_without_groups_have_no_binding(tmp_path: Path) -> None:
    text = "file,caption,foil\n" + "".join(f"{n}.png,a thing {n},no thing {n}\n" for n in range(20))
    data = folders.table(tmp_path / "data", text)
    for n in range(20):
        folders.picture(data / f"{n}.png", n)
    policy = overlay(tmp_path, '[claims."captions/needs_picture"]\nseverity = "gate"\n')
    control = ("--model", "control:clip-caption-only", "--audit-policy", str(policy))
    done = run(tmp_path / "report", *control, "--data", data, *ONLY, "-p", "no:cacheprovider")

    assert done.verdicts["clip-caption-only", "binding/interaction"] == "NOT_APPLICABLE"
    assert "no groups of two pictures and two captions" in done.output
    assert done.verdicts["clip-caption-only", "captions/needs_picture"] != "PASS"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "gone", "has no captions: it does not exist"),
        (lambda folder: folders.picture(folder / "a.png").parent, "it holds 'a.png'"),
        (
            lambda folder: folders.table(folder, "file,caption,foil\n../a.png,a,b\n"),
            "expected a path inside the folder",
        ),
    ],
)
def test_a_folder_without_captions_ends_in_one_line(tmp_path: Path, make, words: str) -> None:
    given = {"model": ["control:clip-oracle"], "data": str(make(tmp_path / "data")), "report": str(tmp_path / "report")}
    settings = read_settings({f"audit_option_{name}": value for name, value in given.items()}, {})

    assert words in refusal(prepare, settings, batch_sizes={})


def test_two_towers_given_captions_are_asked_about_captions_alone_and_given_classes_about_scenes_too(
    tmp_path: Path,
) -> None:
    data = folders.table(tmp_path / "data")
    for name in ("left.png", "right.png", "on.png"):
        folders.picture(data / name, size=(100, 120))
    given = {"model": ["control:clip-by-hand"], "data": str(data), "batch_size": 8}
    settings = {f"audit_option_{name}": value for name, value in {"report": str(tmp_path / "report"), **given}.items()}
    (alone,) = prepare(read_settings(settings, {}), batch_sizes={}).audited
    (both,) = prepare(read_settings({**settings, "audit_option_data": "scenes"}, {}), batch_sizes={}).audited

    assert list(alone.roles) == ["captions"]
    assert len(alone.roles["captions"].captions.items) == 2
    assert alone.roles["captions"].bindings is None
    assert list(both.roles) == ["captions", "classes"]
    assert both.roles["captions"].captions.benchmark == "binding scenes"


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="the shared folder with photographs of relations is not here")
def test_a_few_photographs_decide_nothing_for_any_model_at_hand(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("open_clip")
    data = write(PHOTOGRAPHS, tmp_path / "photographs")
    tiny = f"hf:{save_tiny_clip(tmp_path / 'clip')}", f"open_clip:{save_tiny_open_clip(tmp_path / 'rn50')}"
    specs = [*tiny, "control:clip-oracle", "control:clip-caption-only", "control:clip-constant"]
    models = [word for spec in specs for word in ("--model", spec)]
    done = run(tmp_path / "report", *models, "--data", data, *ONLY, "-p", "no:cacheprovider")

    assert done.code == 6, done.output[-2000:]
    judged = [claim for claim in done.results["claims"] if claim["verdict"] != "NOT_APPLICABLE"]
    assert len(judged) == len(specs) * len(CLAIMS)
    assert {claim["verdict"] for claim in judged} == {"INCONCLUSIVE"}
    for claim in judged:
        n = {"binding": 6, "captions": 15}[claim["audit"]]
        assert claim["reason"].startswith(f"too few images: {n} images, at least 16 are needed")
        assert claim["n_needed"] == 16


def test_photographs_that_are_twins_are_groups_and_an_unknown_relation_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    lines = ["file,object,relation,reference", "x_cup_on.jpg,cup,on,table", "x_cup_under.jpg,cup,under,table"]
    for line in lines[1:]:
        folders.picture(source / line.partition(",")[0])
    (source / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    said = (write(source, tmp_path / "out") / "captions.csv").read_text(encoding="utf-8").splitlines()

    assert said[1:] == [
        "x_cup_on.jpg,a cup on a table,a cup under a table,x-cup-table-on-under,on-under",
        "x_cup_under.jpg,a cup under a table,a cup on a table,x-cup-table-on-under,on-under",
    ]
    (source / "labels.csv").write_text("\n".join(lines).replace("under", "near"), encoding="utf-8")
    assert "has the relation 'near'" in refusal(write, source, tmp_path / "other")


ASK_EACH = """
import sys
from camcore.errors import BadInput
from fixtures.subjects.spec import find_any
for spec in sys.argv[1:]:
    try:
        find_any(spec)
    except BadInput as problem:
        print(problem)
"""


@pytest.mark.slow
@pytest.mark.parametrize("reach", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_offline_each_model_of_a_hub_ends_in_one_clear_line(tmp_path: Path, reach: dict[str, str]) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("open_clip")
    extra = {"HF_HOME": str(tmp_path), "no_proxy": "127.0.0.1", **reach}
    command = [sys.executable, "-c", ASK_EACH, *NAMED]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(extra), capture_output=True, text=True, timeout=300, check=False
    )

    said = done.stdout.splitlines()
    assert len(said) == len(NAMED), done.stdout + done.stderr[-2000:]
    for spec, line in zip(NAMED, said, strict=True):
        name = spec.partition(":")[2].partition("@")[0]
        assert line.startswith(f"cannot download {name}")
        assert "; fetch it" in line or "; give " in line or "give open_clip:" in line
        assert len(line) < 300
        assert ("HF_HUB_OFFLINE is set, and" if "HF_HUB_OFFLINE" in reach else "the hub is out of reach, and") in line
    assert done.stderr == ""
