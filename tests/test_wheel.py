"""The wheel, built and unpacked: what it occupies in site-packages, and that it audits as the checkout does."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hatchling.build import build_editable, build_sdist, build_wheel

from tests.running import ROOT, Run, command, difference, environment

CHEAP = ("--model", "control:clean", "--audit-profile", "smoke", "-k", "labels or cues")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, the source distribution and, in a folder below, the wheel of an editable install."""
    folder = tmp_path_factory.mktemp("dist")
    (folder / "editable").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        build_wheel(str(folder))
        build_sdist(str(folder))
        build_editable(str(folder / "editable"))
    return folder


@pytest.fixture(scope="module")
def unpacked(built: Path) -> Path:
    """The wheel's content, as it lies in site-packages."""
    folder = built / "site-packages"
    zipfile.ZipFile(one(built, "*.whl")).extractall(folder)
    return folder


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def sources() -> set[str]:
    """The suite in the checkout, less what Python compiled of it."""
    parts = [ROOT / part for part in ("audits", "fixtures", "reports")]
    files = [path for part in parts for path in part.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {str(path.relative_to(ROOT)) for path in (*files, ROOT / "conftest.py", ROOT / "pyproject.toml")}


def test_the_wheel_occupies_one_name(built: Path) -> None:
    tops = {name.partition("/")[0] for name in names(one(built, "*.whl"))}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"camcore"}


def test_the_wheel_carries_the_whole_suite(built: Path) -> None:
    carried = {name for name in names(one(built, "*.whl")) if name.startswith("camcore/_suite/")}

    assert carried == {f"camcore/_suite/{path}" for path in sources()}
    for kind in ("audits/policy.toml", "reports/templates/template.html", "fixtures/weights/clean.safetensors"):
        assert f"camcore/_suite/{kind}" in carried


def test_the_source_distribution_can_build_the_wheel(built: Path) -> None:
    with tarfile.open(one(built, "*.tar.gz")) as archive:
        carried = {name.partition("/")[2] for name in archive.getnames()}

    assert sources() | {"camcore/suite.py", "README.md", "LICENSE"} <= carried


def test_an_editable_install_is_a_path_to_the_checkout(built: Path) -> None:
    wheel = one(built / "editable", "*.whl")

    assert zipfile.ZipFile(wheel).read("_camcore.pth").decode().strip() == str(ROOT)
    assert not any(name.endswith((".py", ".safetensors")) for name in names(wheel) - {"camcore/_suite/conftest.py"})


@pytest.mark.slow
def test_the_wheel_audits_as_the_checkout_does(unpacked: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # what pytest would read of the user's, were it asked for the user's tests
    (elsewhere / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n", encoding="utf-8")
    (elsewhere / "conftest.py").write_text("raise RuntimeError('the conftest of the user')\n", encoding="utf-8")
    before = {path for path in unpacked.rglob("*") if path.suffix != ".pyc"}

    piped: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    here = subprocess.Popen(command(tmp_path / "here", *CHEAP), cwd=ROOT, env=environment(), **piped)
    words = [sys.executable, "-P", "-m", "camcore", "audit", *CHEAP, "--audit-batch-size", "8", "--junitxml", "j.xml"]
    there = subprocess.run(
        words,
        cwd=elsewhere,
        env={**environment({"PYTHONPATH": str(unpacked)}), "PYTHONDONTWRITEBYTECODE": ""},
        timeout=600,
        check=False,
        **piped,
    )
    output, _ = here.communicate(timeout=600)
    wheel = Run(code=there.returncode, output=there.stdout, report=elsewhere / "audit-report")
    checkout = Run(code=here.returncode, output=output, report=tmp_path / "here")

    assert wheel.code == checkout.code == 6, wheel.output + checkout.output  # what -k left out was not shown
    assert f"rootdir: {unpacked / 'camcore' / '_suite'}" in wheel.output
    assert wheel.verdicts == checkout.verdicts
    assert {claim for _, claim in wheel.verdicts} == {"labels/depends_on_labels", "cues/shape", "cues/coverage"}
    assert "PASS" in wheel.verdicts.values()
    for results, program in ((wheel.results, "camcore audit "), (checkout.results, "pytest ")):
        assert results["run"]["command"].startswith(program)
        for claim in results["claims"]:
            assert not claim["rerun"] or claim["rerun"].startswith(program)
            claim["rerun"] = claim["rerun"].removeprefix(program)
    assert difference(wheel.results, checkout.results, tolerance=0) == ""
    # nothing is left in site-packages but what Python compiles of any import, nor in the folder but what was asked for
    assert {path for path in unpacked.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"} == before
    assert not list(unpacked.rglob("*-pytest-*.pyc"))
    asked = {"audit-report", "j.xml", ".pytest_cache"}
    assert {path.name for path in elsewhere.iterdir()} == {"pytest.ini", "conftest.py", *asked}
