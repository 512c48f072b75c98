import sys
from pathlib import Path
from types import ModuleType

import pytest

import camcore.suite
from camcore.errors import BadInput
from camcore.suite import PARTS, enter, suite

ROOT = Path(__file__).parents[1]


def laid_out(root: Path, *, inside: bool) -> Path:
    """A folder with camcore and the suite beside it, or in it."""
    folder = root / "camcore" / "_suite" if inside else root
    for part in PARTS:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).touch()
    return folder


def test_a_checkout_holds_the_suite_beside_the_library() -> None:
    assert suite() == ROOT
    assert (suite() / "audits" / "policy.toml").is_file()


@pytest.mark.parametrize("inside", [True, False])
def test_the_suite_is_found_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    folder = laid_out(tmp_path, inside=inside)
    monkeypatch.setattr(camcore.suite, "__file__", str(tmp_path / "camcore" / "suite.py"))

    assert suite() == folder


def test_a_strangers_folders_beside_the_library_are_not_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = laid_out(tmp_path, inside=True)
    (tmp_path / "fixtures").mkdir()
    (tmp_path / "fixtures" / "__init__.py").touch()
    monkeypatch.setattr(camcore.suite, "__file__", str(tmp_path / "camcore" / "suite.py"))

    assert suite() == folder


def test_a_library_without_its_suite_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camcore.suite, "__file__", str(tmp_path / "camcore" / "suite.py"))

    with pytest.raises(BadInput, match=r"neither beside .* nor in it; install camcore's wheel"):
        suite()


def test_entering_twice_puts_the_suite_first_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["elsewhere", str(ROOT)])

    assert enter() == enter() == ROOT
    assert sys.path == [str(ROOT), "elsewhere"]


@pytest.mark.parametrize("where", ["__path__", "__file__"])
def test_a_strangers_package_of_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    stranger = ModuleType("fixtures")
    place = tmp_path / "fixtures"
    setattr(stranger, where, [str(place)] if where == "__path__" else f"{place}.py")
    monkeypatch.setitem(sys.modules, "fixtures", stranger)
    monkeypatch.setattr(sys, "path", before := ["elsewhere"])

    with pytest.raises(BadInput, match=r"'fixtures' that is not camcore's .*, from '.*fixtures") as told:
        enter()
    assert "\n" not in str(told.value)
    assert sys.path == before == ["elsewhere"]
