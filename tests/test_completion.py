import re
import shutil
import subprocess
from pathlib import Path

import pytest

from audits.completion import FAMILIES, completions, main, script
from audits.options import OPTIONS
from camcore.cam import METHODS
from fixtures.subjects.registry import FAMILIES as CLASSIFIERS
from fixtures.subjects.registry import GROUNDERS, IMAGE_TEXT
from fixtures.subjects.spec import find_subject

PRESSED = '{}\nCOMP_LINE="$1"; COMP_POINT=${{#1}}; COMP_WORDS=($1); _camcore; printf "%s\\n" "${{COMPREPLY[@]}}"'


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, with one press of the key after it."""
    file = tmp_path_factory.mktemp("shell") / "pressed.sh"
    file.write_text(PRESSED.format(script("bash")), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("camcore ex", ["explain"]),
        ("camcore audit --mod", ["--model"]),
        ("camcore audit -x --audit-profile ", ["smoke", "pr", "release"]),
        ("camcore audit --model wide_resnet50", ["wide_resnet50_2"]),
        ("camcore audit --model control:shortcut_o", ["shortcut_other"]),  # bash holds what is before the colon already
        ("camcore audit --model op", ["open_clip:"]),
        ("camcore audit -k toy", ["toy_wall"]),
        ("camcore audit audits/test_toy", ["audits/test_toy_wall.py"]),
        ("camcore audit --audit-policy ", [""]),  # none of ours: the shell's own names of files
        ("camcore explain dog.jpg --cam score", ["scorecam"]),
        ("camcore completion z", ["zsh"]),
        ("camcore report di", ["diff"]),
    ],
)
def test_bash_completes(bash: Path, line: str, expected: list[str]) -> None:
    done = subprocess.run(["bash", str(bash), line], capture_output=True, text=True, check=True)

    assert done.stderr == ""
    assert done.stdout.splitlines() == expected


def test_every_option_and_method_can_be_completed() -> None:
    found = completions()

    assert {option.flag for option in OPTIONS} <= set(found['"audit "*'])
    assert {f'"audit {option.flag}"' for option in OPTIONS if not option.is_flag} <= found.keys()
    assert not {f'"audit {option.flag}"' for option in OPTIONS if option.is_flag} & found.keys()
    assert set(METHODS) < set(found['"explain --cam"'])


def test_every_family_of_models_can_be_completed() -> None:
    find_subject("control:clean")  # imports them all

    assert set(FAMILIES) == {f"{name}:" for name in (*CLASSIFIERS, *IMAGE_TEXT, *GROUNDERS)}


def test_no_word_means_anything_to_a_shell() -> None:
    for words in completions().values():
        assert all(re.fullmatch(r"[\w.:/-]+", word) for word in words), words


def test_zsh_runs_the_same_function(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["zsh"]) == 0

    told = capsys.readouterr().out
    assert told.endswith(script("bash"))
    assert "bashcompinit" in told
    zsh = shutil.which("zsh")
    if zsh is not None:
        (tmp_path / "script").write_text(told, encoding="utf-8")
        assert subprocess.run([zsh, "-n", str(tmp_path / "script")], check=False).returncode == 0
