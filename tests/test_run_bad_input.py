"""What the user gets wrong is answered in one line that says what to do, before anything is measured; exit code 4."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import save_file

from audits.options import OPTIONS, read_settings
from audits.plan import Plan, prepare
from camcore.errors import BadInput
from fixtures.controls.small_net import SmallNet
from tests.running import Run, factories, overlay, photographs, run


class RunsCode:
    """What a malicious checkpoint holds."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def malicious(folder: Path) -> Path:
    file = folder / "weights.pth"
    torch.save({"weight": RunsCode(folder / "code_ran")}, file)
    return file


def corrupt(folder: Path) -> Path:
    file = folder / "weights.safetensors"
    file.write_bytes(b"\x10\0\0\0\0\0\0\0{not a header}")
    return file


def weights_of_small_net(folder: Path, *, nan: bool = False) -> Path:
    state = SmallNet().state_dict()
    if nan:
        state = {name: value * torch.nan if name == "classifier.bias" else value for name, value in state.items()}
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def as_a_file(folder: Path) -> Path:
    (folder / "file").write_text("", encoding="utf-8")
    return folder / "file"


def linked(link: Path, target: Path) -> Path:
    link.symlink_to(target)
    return link


def out_of_range(folder: Path) -> Path:
    photographs(folder / "photos", ["a.png"])
    (folder / "photos" / "labels.csv").write_text("file,class_index,label\na.png,12,none\n", encoding="utf-8")
    return folder / "photos"


def empty(folder: Path) -> Path:
    (folder / "photos").mkdir()
    return folder / "photos"


def unreadable(folder: Path) -> Path:
    photographs(folder / "photos" / "0", ["a.png"])
    (folder / "photos" / "0" / "a.png").write_bytes(b"\x89PNG")
    return folder / "photos"


def plan(tmp_path: Path, given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Plan:
    """What conftest makes before the first test is collected."""
    by_flag = {option.flag.removeprefix("--").removeprefix("audit-").replace("-", "_"): option for option in OPTIONS}
    parsed = {by_flag[name].dest: value for name, value in {"report": str(tmp_path / "report"), **given}.items()}
    return prepare(read_settings(parsed, environment or {}), batch_sizes={})


CASES: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "an unknown model": (lambda at: {"model": ["resnet5"]}, "did you mean 'resnet50'"),
    "an unknown kind of model": (lambda at: {"model": ["torchvison:resnet50"]}, "did you mean 'torchvision'"),
    "an unknown control": (lambda at: {"model": ["control:edge_mpa"]}, "did you mean 'edge_map'"),
    "a misspelt CAM": (lambda at: {"cam": ["hirescan"]}, "did you mean 'hirescam'"),
    "no such weights": (lambda at: {"model": ["alexnet"], "weights": str(at / "none.pth")}, "does not exist"),
    "corrupt weights": (lambda at: {"model": ["alexnet"], "weights": str(corrupt(at))}, "is damaged"),
    "weights that run code": (lambda at: {"model": ["alexnet"], "weights": str(malicious(at))}, "would run"),
    "weights of another model": (
        lambda at: {"model": ["squeezenet1_1"], "weights": str(weights_of_small_net(at))},
        "another architecture",
    ),
    "NaN in the weights": (
        lambda at: {
            "model": ["py:fixtures.controls.small_net:SmallNet"],
            "weights": str(weights_of_small_net(at, nan=True)),
        },
        "10 NaN or infinite values in 'classifier.bias'",
    ),
    "weights for a control": (lambda at: {"weights": "random:0"}, "brings its own weights"),
    "an empty folder": (lambda at: {"data": str(empty(at))}, "photos"),
    "a folder without one good image": (lambda at: {"data": str(unreadable(at))}, "1 skipped"),
    "a label out of range": (lambda at: {"data": str(out_of_range(at))}, "expected 0 to 9"),
    "no such data": (lambda at: {"data": "scnes"}, "did you mean 'scenes'"),
    "an unknown key in the policy": (lambda at: {"policy": str(overlay(at, "lvel = 0.9"))}, "did you mean 'level'"),
    "no such policy": (lambda at: {"policy": str(at / "none.toml")}, "no policy file"),
    "a bad profile": (lambda at: {"profile": "rp"}, "known: smoke, pr, release"),
    "a method for a model without features": (
        lambda at: {"model": [f"{factories(at)}dense"], "cam": ["gradcam"]},
        "leave --cam out",
    ),
    "a report below a file": (lambda at: {"report": str(as_a_file(at) / "report")}, "--audit-report"),
    "a report among other things": (
        lambda at: {"report": str(as_a_file(at).parent)},
        "holds 'file', which no audit wrote",
    ),
    "a report that is a file": (lambda at: {"report": str(as_a_file(at))}, "--audit-report"),
    "no such device": (lambda at: {"device": "gpu"}, "pass cpu or auto"),
    "no such layer": (lambda at: {"layer": "features.block7"}, "features.block"),
    "a batch size below 1": (lambda at: {"batch_size": -3}, "at least 1, got -3"),
    "a model that takes one image at a time": (
        lambda at: {"model": [f"{factories(at)}one_at_a_time"], "data": "scenes"},
        "batches of any size",
    ),
    "no such factory": (lambda at: {"model": [f"{factories(at)}convolution"]}, "did you mean 'Convolutional'"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_said_in_one_line(case: str, tmp_path: Path) -> None:
    make, hint = CASES[case]

    with pytest.raises(BadInput) as raised:
        plan(tmp_path, make(tmp_path))

    message = str(raised.value)
    assert hint.lower() in message.lower()
    assert len(message.splitlines()) == 1
    assert message.strip() == message != ""


def test_a_malicious_checkpoint_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="mkdir"):
        plan(tmp_path, {"model": ["alexnet"], "weights": str(malicious(tmp_path))})

    assert not (tmp_path / "code_ran").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--audit-device 'cuda' cannot be used here"):
        plan(tmp_path, {"device": "cuda"})


def test_a_mistake_leaves_the_last_report_as_it_was(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    begins = {"results.json": '{"schema_version"', "results.jsonl": '{"type": "', "report.html": "<"}
    held = {name: f"{begin} of last night: {name}" for name, begin in begins.items()}
    for name, text in held.items():
        (report / name).write_text(text, encoding="utf-8")

    with pytest.raises(BadInput):
        plan(tmp_path, {"model": ["control:none"]})
    assert {file.name: file.read_text(encoding="utf-8") for file in report.iterdir()} == held

    plan(tmp_path, {"batch_size": 8})
    left = {file.name: file.read_text(encoding="utf-8") for file in report.iterdir()}
    assert left == {f"results.previous.{kind}": held[f"results.{kind}"] for kind in ("json", "jsonl")}


COMMANDS: dict[str, tuple[Callable[[Path], tuple[str | Path, ...]], dict[str, str], str]] = {
    "a misspelt CAM": (lambda at: ("--cam", "hirescan"), {}, "did you mean 'hirescam'"),
    "weights that run code": (
        lambda at: ("--model", "alexnet", "--weights", malicious(at), "-n", "2"),
        {},
        "would run",
    ),
    "a bad variable": (lambda at: (), {"AUDIT_SEED": "x"}, "AUDIT_SEED must be int, got 'x'"),
    "a misspelt variable": (lambda at: (), {"AUDIT_PROFLIE": "pr"}, "did you mean 'AUDIT_PROFILE'"),
    "a report below a file": (
        lambda at: ("--audit-report", as_a_file(at) / "report", "-n", "2"),
        {},
        "cannot write the report",
    ),
    "a baseline that the run would write over": (
        lambda at: ("--audit-baseline", at / "report" / "results.json"),
        {},
        "lies in the folder that this run writes its own results.json to",
    ),
    "a baseline that the run would write over, behind a link": (
        lambda at: ("--audit-baseline", linked(at / "latest.json", at / "report" / "results.json")),
        {},
        "lies in the folder that this run writes its own results.json to",
    ),
    "a name that is no UTF-8": (lambda at: ("--data", os.fsdecode(b"caf\xe9")), {}, "is no UTF-8"),
    "a bad choice at collection": (lambda at: ("--collect-only", "--cam", "hirescan"), {}, "did you mean 'hirescam'"),
}


def one_line(found: Run, hint: str) -> None:
    errors = [line for line in found.output.splitlines() if line.strip()]
    assert found.code == pytest.ExitCode.USAGE_ERROR, found.output
    assert len(errors) == 1, found.output
    assert errors[0].startswith("ERROR: ")
    assert hint in errors[0]
    assert "Traceback" not in found.output
    assert "INTERNALERROR" not in found.output


@pytest.mark.slow
@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_says_it_and_exits_4(case: str, tmp_path: Path) -> None:
    make, variables, hint = COMMANDS[case]

    found = run(tmp_path / "report", *make(tmp_path), extra=variables)

    one_line(found, hint)
    assert not (tmp_path / "code_ran").exists()
    assert not (tmp_path / "report" / "results.json").exists()


@pytest.mark.slow
def test_options_of_the_audits_without_audits_are_refused(tmp_path: Path) -> None:
    found = run(tmp_path, "--model", "control:clean", what="tests/test_options.py")

    one_line(found, "run pytest audits")


@pytest.mark.slow
def test_a_truncated_image_among_good_ones_is_named_and_skipped(tmp_path: Path) -> None:
    names = [f"{label}/{index}.png" for label in ("0", "1") for index in range(10)]
    folder = photographs(tmp_path / "photos", names)
    broken = folder / "1" / "9.png"
    broken.write_bytes(broken.read_bytes()[:200])
    Pillow.open(folder / "0" / "0.png").verify()
    options = ("--data", folder, "--audit-profile", "smoke", "-k", "wall")

    found = run(tmp_path / "report", "--model", f"{factories(tmp_path)}convolutional", *options)

    assert found.code in (1, 6), found.output
    assert "(19 images" in found.output
    assert "skipped: 1/9.png: " in found.output
    assert found.results["data"][0]["n"] == 19
    assert [one["file"] for one in found.results["data"][0]["skipped"]] == ["1/9.png"]
    assert len(found.results["claims"][0]["values"]) >= 16
