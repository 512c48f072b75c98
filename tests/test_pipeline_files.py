"""What a pipeline is given: the action, the job, the image and the hooks. Read, and run where bash alone can."""

import os
import re
import runpy
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from audits.policy import load_policy
from audits.project import find_project

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def step(name: str) -> dict[str, Any]:
    (found,) = [step for step in ACTION["runs"]["steps"] if step.get("name") == name]
    return found


def run_step(name: str, folder: Path, code: int, **given: str) -> tuple[int, list[str], str]:
    """(exit code, the words that camcore got, what the step put out), with a camcore that exits with `code`."""
    stub = folder / "camcore"
    stub.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{folder}/words"\nexit {code}\n', encoding="utf-8")
    stub.chmod(0o755)
    (folder / "words").touch()
    (folder / "output").touch()
    environment = {**given, "PATH": f"{folder}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(folder / "output")}
    # as GitHub runs `shell: bash`
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step(name)["run"]]
    done = subprocess.run(words, env=environment, cwd=folder, check=False)
    return done.returncode, (folder / "words").read_text().splitlines(), (folder / "output").read_text()


@pytest.mark.parametrize("code", [0, 1, 6])
def test_the_action_hands_on_what_it_was_given_and_the_exit_code(tmp_path: Path, code: int) -> None:
    hostile = 'py:a b.py:build"; touch owned; "'
    given = {
        "MODELS": f"resnet50\n{hostile}\n",
        "PROFILE": "smoke",
        "REPORT": "out",
        "ARGUMENTS": "--data\nmy photos\n",
    }

    ended, words, output = run_step("Audit", tmp_path, code, **given)

    assert (ended, output) == (0, f"exit-code={code}\n")
    assert words[:5] == ["audit", "--audit-profile", "smoke", "--audit-report", "out"]
    assert words[5:] == ["--model", "resnet50", "--model", hostile, "--data", "my photos"]
    assert not (tmp_path / "owned").exists()
    assert run_step("Verdict", tmp_path, 0, CODE=str(code))[0] == code


def test_the_action_names_no_model_where_none_is_given(tmp_path: Path) -> None:
    given = {"MODELS": "", "PROFILE": "pr", "REPORT": "audit-report", "ARGUMENTS": ""}

    assert run_step("Audit", tmp_path, 0, **given)[1] == (
        ["audit", "--audit-profile", "pr", "--audit-report", "audit-report"]
    )


def test_no_input_is_spliced_into_a_script_and_every_step_has_a_shell() -> None:
    scripts = [step for step in ACTION["runs"]["steps"] if "run" in step]

    assert ACTION["runs"]["using"] == "composite"
    assert scripts
    assert all(step["shell"] == "bash" and "${{" not in step["run"] for step in scripts)


def test_every_input_is_used_and_documented() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")

    for name, given in ACTION["inputs"].items():
        assert f"inputs.{name}" in text
        assert given["description"]
        assert f"`{name}`" in PAGE or f"{name}:" in PAGE
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == ACTION["inputs"].keys()


def test_the_verdict_comes_after_the_report_is_kept() -> None:
    names = [step.get("name") for step in ACTION["runs"]["steps"]]

    assert names.index("Keep the report") < names.index("Show in code scanning") < names.index("Verdict")
    assert step("Verdict").get("if") is None


def test_the_documented_jobs_are_yaml_that_keeps_the_report() -> None:
    github, gitlab = map(yaml.safe_load, blocks("yaml"))

    given = github["jobs"]["audit"]["steps"][1]["with"]
    assert given.keys() <= ACTION["inputs"].keys()
    assert gitlab["audit"]["artifacts"]["when"] == "always"
    assert gitlab["audit"]["artifacts"]["paths"] == ["audit-report/"]
    assert any(line.startswith("camcore audit ") for line in gitlab["audit"]["script"])


def test_the_documented_table_is_accepted(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")

    found = find_project(tmp_path)
    assert found is not None
    policy = load_policy(None, profile=found.options["profile"], under=(found.where, found.policy))
    assert policy.required == ("wall", "sanity")
    assert policy.claims["bias/pull"].margin == tomllib.loads(text)["audit"]["claims"]["bias/pull"]["margin"]


def test_the_image_runs_the_command_as_nobody_in_particular() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    last = text[text.rindex("\nFROM ") :]
    steps = [line.split(maxsplit=1) for line in last.splitlines() if line and not line.startswith("#")]
    words = dict(steps)

    assert words["ENTRYPOINT"] == '["camcore"]'
    assert words["USER"] not in ("root", "0")
    assert [word for word, _ in steps].index("USER") < [word for word, _ in steps].index("ENTRYPOINT")
    assert "[audits]" in text


def test_the_hooks_are_the_checkouts_own_tools() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (local,) = config["repos"]

    assert local["repo"] == "local"
    assert {"ruff", "ruff-format", "mypy"} <= {hook["id"] for hook in local["hooks"]}
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in local["hooks"])


def test_packages_are_installed_once_for_a_pyproject_and_again_for_another(tmp_path: Path) -> None:
    venv, project = tmp_path / ".venv" / "bin", tmp_path / "pyproject.toml"
    venv.mkdir(parents=True)
    (venv / "pip").touch()
    python = venv / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{tmp_path}/asked"\n[ ! -e "{tmp_path}/offline" ]\n')
    python.chmod(0o755)
    project.write_text("[project]\n", encoding="utf-8")
    install = runpy.run_path(str(ROOT / ".ci" / "venv.py"))["main"]

    def asked() -> list[str]:
        lines = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith("-m pip install")]

    install(tmp_path, ["test"])
    install(tmp_path, ["test"])
    assert [line.split()[-1] for line in asked()] == [f"{tmp_path}[test]"]

    install(tmp_path, ["test", "bench"])
    project.write_text("[project]\nname = 'other'\n", encoding="utf-8")
    (tmp_path / "offline").touch()
    with pytest.raises(subprocess.CalledProcessError):
        install(tmp_path, ["test"])
    (tmp_path / "offline").unlink()
    install(tmp_path, ["test"])  # what failed is not taken for done

    assert [line.split()[-1].removeprefix(str(tmp_path)) for line in asked()[1:]] == [
        "[test,bench]",
        "[test]",
        "[test]",
    ]
