import os
from pathlib import Path

import pytest

from audits.options import Project, Settings, read_settings
from audits.policy import load_policy
from audits.project import find_project
from camcore.errors import BadInput
from tests.running import overlay


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def project(text: str) -> Project:
    Path("pyproject.toml").write_text(text, encoding="utf-8")
    found = find_project(Path.cwd())
    assert found is not None
    return found


def settings(text: str, environment: dict[str, str] | None = None, **given: object) -> Settings:
    return read_settings(
        {f"audit_option_{name}": value for name, value in given.items()}, environment or {}, project=project(text)
    )


def test_options_and_the_policy_stand_in_one_table() -> None:
    found = project('[audit]\nseed = 7\nmodel = "resnet50"\nlevel = 0.9\n[audit.claims."wall/leakage"]\nmargin = 0.2')

    assert found.where == f"{Path.cwd() / 'pyproject.toml'} [audit]"
    assert found.options == {"seed": 7, "model": ["resnet50"]}
    assert found.policy == {"level": 0.9, "claims": {"wall/leakage": {"margin": 0.2}}}


def test_a_table_of_tools_is_the_same() -> None:
    text = 'seed = 7\nmodel = ["a", "b"]\n'

    assert project(f"[tool.camcore.audit]\n{text}").options == project(f"[audit]\n{text}").options


def test_the_nearest_file_with_such_a_table_counts() -> None:
    Path("pyproject.toml").write_text("[audit]\nseed = 1", encoding="utf-8")
    below = Path("a", "b")
    below.mkdir(parents=True)
    Path("a", "pyproject.toml").write_text('[project]\nname = "mine"', encoding="utf-8")
    assert find_project(below.resolve()).options == {"seed": 1}

    Path("a", "pyproject.toml").write_text("[audit]\nseed = 2", encoding="utf-8")
    assert find_project(below.resolve()).options == {"seed": 2}


def test_without_such_a_table_there_is_none() -> None:
    Path("pyproject.toml").write_text('[project]\nname = "mine"\n[tool.camcore]\n', encoding="utf-8")

    assert find_project(Path.cwd()) is None


def test_the_command_line_and_the_environment_come_before_it() -> None:
    text = '[audit]\nseed = 7\nprofile = "smoke"\nmodel = ["a"]\nresume = true'

    assert (settings(text).seed, settings(text).profile, settings(text).models) == (7, "smoke", ("a",))
    assert settings(text).resume
    assert settings(text, {"AUDIT_SEED": "8", "AUDIT_RESUME": "0"}).seed == 8
    assert not settings(text, {"AUDIT_RESUME": "0"}).resume
    assert settings(text, {"AUDIT_SEED": "8", "AUDIT_MODEL": "b"}, seed="9", model=["c"]).seed == 9
    assert settings(text, {"AUDIT_MODEL": "b"}, model=["c"]).models == ("c",)


def test_a_policy_file_is_laid_over_it(tmp_path: Path) -> None:
    found = settings('[audit]\nlevel = 0.9\nmin_images = 20\n[audit.claims."wall/leakage"]\nmargin = 0.2')
    file = overlay(tmp_path, "level = 0.8")
    over = load_policy(file, profile="pr", under=found.laid_under)

    assert (over.level, over.min_images, over.claims["wall/leakage"].margin) == (0.8, 20, 0.2)
    assert over.path == f"{file} over {Path.cwd() / 'pyproject.toml'} [audit]"
    assert load_policy(None, profile="pr", under=found.laid_under).level == 0.9


def test_a_table_of_options_alone_leaves_the_policy_as_it_is() -> None:
    shipped = load_policy(None, profile="pr")

    assert load_policy(None, profile="pr", under=settings("[audit]\nseed = 7").laid_under) == shipped


def test_paths_are_meant_from_the_files_folder(tmp_path: Path) -> None:
    text = '[audit]\npolicy = "p.toml"\nartefact = ["a.png"]\ndata = "photos"\nweights = "random:1"\nreport = "/r"'
    assert project(text).options["policy"] == "p.toml"  # here, as on the command line

    below = tmp_path / "below"
    (tmp_path / "photos").mkdir()
    below.mkdir()
    assert find_project(below).options == {
        "policy": str(tmp_path / "p.toml"),
        "artefact": [str(tmp_path / "a.png")],
        "data": str(tmp_path / "photos"),
        "weights": "random:1",
        "report": "/r",
    }


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[audit]\nsed = 7", "[audit]: unknown key 'sed'; did you mean 'seed'?"),
        ("[audit]\nmargin = 7", "[audit]: unknown key 'margin'; "),
        ("[audit]\nseed = '7'", "[audit]: seed must be int, got '7'"),
        ("[audit]\nseed = true", "[audit]: seed must be int, got True"),
        ("[audit]\nprofile = 3", "[audit]: profile must be str, got 3"),
        ("[audit]\nresume = 1", "[audit]: resume must be true or false, got 1"),
        ("[audit]\ncam = [1]", "[audit]: cam must be a list of strings, got [1]"),
        ("audit = 3", "audit must be a table, got 3"),
        ("[audit", "cannot be read as TOML"),
        ("[audit]\nlevel = " + 5000 * "9", "cannot be read as TOML"),
        ("x = " + 3000 * "[" + 3000 * "]", "cannot be read as TOML"),
        ("[audit]\nmodel = 0x" + 5000 * "f", "model must be a list of strings, got a number beyond all bounds"),
        ("[audit]\nseed = 0x" + 5000 * "f", "--audit-seed must be at most 9223372036854775808, got a number beyond"),
        ("[audit]\n[tool.camcore.audit]", "has both [audit] and [tool.camcore.audit]"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, hint: str) -> None:
    with pytest.raises(BadInput) as raised:
        settings(text)

    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('[audit.claims."wall/leakage"]\nmargn = 3', "unknown key 'claims.wall/leakage.margn'; did you mean 'margin'?"),
        ("[audit]\nlevel = 3", "level: Input should be less than 1, got 3"),
        ("[audit]\nrequired = ['walls']", "'walls' is required, which is no audit; did you mean 'wall'?"),
    ],
)
def test_the_policys_part_is_as_strict_as_a_policy_file(text: str, hint: str) -> None:
    with pytest.raises(BadInput) as raised:
        load_policy(None, profile="pr", under=settings(text).laid_under)

    assert f"{Path.cwd() / 'pyproject.toml'} [audit]: {hint}" in str(raised.value)


def test_a_number_out_of_range_is_refused_as_on_the_command_line() -> None:
    with pytest.raises(BadInput, match="--audit-batch-size must be at least 1, got 0"):
        settings("[audit]\nbatch_size = 0")


def test_a_file_that_cannot_be_read_is_not_passed_over() -> None:
    Path("pyproject.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(BadInput, match="cannot be read as TOML"):
        find_project(Path(os.curdir).resolve())
