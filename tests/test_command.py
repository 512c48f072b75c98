import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from audits import command
from audits.catalogue import audit_modules, questions
from audits.listing import COLUMNS, beginning
from audits.policy import load_policy
from camcore.command import COMMANDS, WRONG, main
from fixtures.controls import CONTROLS
from tests.running import finished, overlay

ROOT = Path(__file__).parents[1]


def listed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["audit", "--list", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    told = capsys.readouterr().out
    assert all(f"  {name} " in told and found.help in told for name, found in COMMANDS.items())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "name a command: audit, explain"),
        (["audti"], "no command 'audti'; did you mean 'audit'?"),
        (["--model", "x"], "no command '--model'; known: audit, explain"),
        (["audit", "--list", "--modle", "x"], "unrecognized arguments: --modle x; see camcore audit --help"),
        (["audit", "--list", "--audit-profile", "night"], "no profile 'night' in policy.toml; known: smoke"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_code_4(
    capsys: pytest.CaptureFixture[str], words: list[str], hint: str
) -> None:
    assert main(words) == WRONG == 4

    told = capsys.readouterr().err
    assert hint in told
    assert told.count("\n") == 1


def test_without_the_extra_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camcore.command.find_spec", lambda name: None if name == "pydantic" else object())

    assert main(["audit"]) == WRONG
    said = "'pydantic' is not installed; camcore audit needs the extra: pip install 'WHEEL[audits]'"
    assert said in capsys.readouterr().err


def test_the_help_of_audit_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--help"]) == 0

    told = capsys.readouterr().out
    assert all(option.flag in told for option in command.options.OPTIONS)
    assert "--junitxml" in told


def test_audits_that_are_named_are_put_alone_wherever_they_lie() -> None:
    folder = Path("/somewhere")
    one = "audits/test_wall.py::test_it[clean-hirescam]"

    assert command.audits_in(["--model", "x"], folder) == [str(folder / "audits"), "--model", "x"]
    assert command.audits_in([one, "-x"], folder) == [str(folder / one), "-x"]
    # the folders of a user are no audits of ours
    assert command.audits_in(["--data", "audits/photos"], folder)[0] == str(folder / "audits")


@pytest.mark.parametrize("line", ["--model x", "audits/test_wall.py -k 'a or b'", "-n 2"])
def test_the_command_is_recorded_as_it_was_typed(line: str) -> None:
    words = shlex.split(line)
    args = [*command.settings_of_pytest(ROOT), *command.audits_in(words, ROOT)]

    assert command.as_typed(args, ROOT) == f"camcore audit {line}"
    assert command.as_typed(["audits", *words], ROOT) == f"pytest audits {line}"


def test_an_audit_is_asked_again_with_the_command_of_the_run() -> None:
    assert command.program(None, ROOT) == command.program("setup.cfg", ROOT) == "pytest"
    assert command.program(command.settings_of_pytest(ROOT)[1], ROOT) == "camcore audit"


def test_the_list_explains_every_audit_claim_and_control_on_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    told = listed(capsys)
    policy = load_policy(None, profile="pr")

    assert max(map(len, told.splitlines())) <= COLUMNS
    blocks = dict(block.partition(":")[::2] for block in told.split("\n\n")[1:])
    assert list(blocks) == list(audit_modules(policy))
    for name, claim in policy.claims.items():
        audit, _, rest = name.partition("/")
        assert f"{claim.severity:<5}{rest}:" in blocks[audit]
    for control in CONTROLS.values():
        for audit in {claim.partition("/")[0] for claim in control.caught_by}:
            assert f"control:{control.name}" in blocks[audit].partition("catches ")[2].replace(",", " ").split()
    assert "models that find what a phrase names" in blocks["grounding"]


def test_the_list_for_machines_holds_the_policy_in_force(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = overlay(tmp_path, 'level = 0.9\n[claims."wall/leakage"]\nmargin = 0.2\nseverity = "info"')
    found = json.loads(listed(capsys, "--json", "--audit-policy", file, "--audit-profile", "smoke"))

    assert found["policy"]["path"] == str(file)
    assert (found["policy"]["level"], found["policy"]["images"]) == (0.9, load_policy(None, profile="smoke").images)
    claims = {claim["id"]: claim for audit in found["audits"] for claim in audit["claims"]}
    assert claims.keys() == questions(load_policy(None, profile="smoke")).keys()
    assert (claims["wall/leakage"]["margin"], claims["wall/leakage"]["severity"]) == (0.2, "info")
    assert all(claim["source"] and claim["why"] and "{cam}" not in claim["sentence"] for claim in claims.values())
    assert all(audit["catches"] and audit["measures"].endswith(".") for audit in found["audits"])


def test_the_list_reads_the_users_pyproject(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text('[audit]\nprofile = "smoke"\nlevel = 0.99', encoding="utf-8")

    assert "together at 99%" in listed(capsys)


def test_a_waiver_stands_at_the_head_of_the_list(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (
        '[[waivers]]\nclaim = "wall/leakage[gradcam]"\nbound = 0.2\nreason = "so"\nowner = "me"\nexpires = 2031-05-01'
    )

    assert "waived until 2031-05-01: wall/leakage[gradcam] (so)" in listed(
        capsys, "--audit-policy", overlay(tmp_path, text)
    )


HOSTILE = "\x1b[31mred\x1b]0;title\x07 \u202etfel"


def test_what_others_wrote_is_inert_on_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    text = '[[waivers]]\nclaim = "wall/leakage[gradcam]"\nbound = 0.2\nowner = "me"\nexpires = 2031-05-01\nreason = '
    file = overlay(folder, text + json.dumps(HOSTILE))

    said = listed(capsys, "--audit-policy", file)
    assert main(["audit", "--list", "--audit-policy", str(folder / "none.toml")]) == WRONG
    said += capsys.readouterr().err

    assert said.count("31mred") == 3  # the waiver's reason, and the file's name where it is read and where it is not
    assert not set(said) & {"\x1b", "\x07", "\u202e"}


def test_a_beginning_is_a_sentence_that_says_something() -> None:
    long = "The image is cut into 5 x 5 patches, e.g. as here, and each is replaced by its mean."

    assert beginning(f"{long} Then comes more.") == long
    assert beginning("The method, not the model. Two networks are set side by side. More.") == (
        "The method, not the model. Two networks are set side by side."
    )


@pytest.mark.slow
def test_what_failed_last_in_a_folder_is_asked_again(tmp_path: Path) -> None:
    model = ("--model", "control:edge_map", "--audit-profile", "smoke", "--audit-batch-size", "8")
    told = []
    for chosen in (("-k", "leaks_through_the_wall"), ("--lf",)):
        words = [sys.executable, "-m", "camcore", "audit", *model, *chosen]
        done = finished(words, cwd=tmp_path, extra={"PYTHONPATH": str(ROOT)})
        assert done.returncode == 1, done.stdout
        told.append(re.sub(r" in .*", "", done.stdout.splitlines()[-1]).strip("= "))

    # the claim that only warns was not failed
    assert told[0].startswith("1 failed, ")
    assert told[0].endswith(", 1 xfailed")
    assert told[1] == "1 failed"
