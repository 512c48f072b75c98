"""Who may import whom, where hooks may be registered, and what is not imported before it is needed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import camcore

ROOT = Path(__file__).parents[1]
OURS = ("camcore", "fixtures", "audits", "reports", "conftest", "tests", "benchmarks", "docs")
DOORS = {  # from the library to the suite, opened when they are called
    Path("camcore/explain/command.py"): {"fixtures"},
    Path("camcore/testing.py"): {"audits", "reports"},
}
MAY_IMPORT = {
    "camcore": {"camcore"},
    "fixtures": {"camcore", "fixtures"},
    "audits": {"camcore", "fixtures", "audits"},
    "reports": {"reports"},
}


def imported(source: str) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def wrong_arrows(root: Path) -> list[str]:
    """Imports that run against the order of the house."""
    return [
        f"{path.relative_to(root)} imports {name}"
        for package, allowed in MAY_IMPORT.items()
        for path in sorted((root / package).rglob("*.py"))
        for name in sorted(imported(path.read_text(encoding="utf-8")) & (set(OURS) - allowed))
        if name not in DOORS.get(path.relative_to(root), set())
    ]


def test_imports_run_one_way() -> None:
    assert wrong_arrows(ROOT) == []


@pytest.mark.parametrize("line", ["import reports.html", "from fixtures.controls import CONTROLS", "import conftest"])
def test_an_arrow_that_runs_back_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "camcore").mkdir()
    (tmp_path / "camcore" / "planted.py").write_text(f"def late():\n    {line}\n", encoding="utf-8")

    assert len(wrong_arrows(tmp_path)) == 1


@pytest.mark.parametrize("package", ["pytest", "matplotlib", "PIL", "requests", "urllib"])
def test_the_library_draws_nothing_reads_no_pictures_and_fetches_nothing(package: str) -> None:
    for path in (ROOT / "camcore").rglob("*.py"):
        draws = {"PIL"} if "explain" in path.relative_to(ROOT / "camcore").parts else set()
        assert package not in imported(path.read_text(encoding="utf-8")) - draws, path


def test_hooks_are_registered_in_one_place() -> None:
    places = [
        path.relative_to(ROOT / "camcore").as_posix()
        for path in sorted((ROOT / "camcore").rglob("*.py"))
        if re.search(r"register_\w*hook", path.read_text(encoding="utf-8"))
    ]

    assert places == ["hooks.py"]


def test_no_gradient_is_left_on_parameters_because_nothing_calls_backward() -> None:
    for folder in ("camcore", "audits"):
        for path in (ROOT / folder).rglob("*.py"):
            assert ".backward(" not in path.read_text(encoding="utf-8"), path


@pytest.mark.slow
def test_the_library_is_imported_without_torchvision_transformers_and_matplotlib() -> None:
    heavy = ("torchvision", "transformers", "tokenizers", "matplotlib")
    code = (
        f"import sys, camcore.engine; from camcore import *; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["report", "--help"], ["auditt"]])
def test_what_needs_no_network_of_neurons_does_not_wait_for_torch(words: list[str]) -> None:
    code = f"import sys; from camcore.command import main; sys.argv = ['camcore', *{words}]\ntry:\n    main()\n"
    code += "except SystemExit:\n    pass\nprint('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stderr.strip().splitlines()[-1] == "False"


def test_each_name_that_the_library_gives_is_there() -> None:
    assert len(camcore.__all__) > 20
    for name in camcore.__all__:
        assert getattr(camcore, name) is not None
    assert callable(camcore.record)  # and no module of that name, whatever was imported before
