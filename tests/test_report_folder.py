from pathlib import Path

import pytest

from audits.journal import Log, read_lines
from audits.report_folder import make, set_aside
from camcore.errors import BadInput


def test_what_an_earlier_run_measured_is_set_aside_and_the_users_own_files_are_left(tmp_path: Path) -> None:
    made = ("results.json", "results.jsonl", "results.gw0.jsonl", "report.html", "summary.md", "model-index.yaml")
    theirs = ("results_of_mine.json", "results.csv", "notes.html", "results.backup.jsonl")
    for name in (*made, *theirs, "results.previous.jsonl"):
        (tmp_path / name).write_text(name, encoding="utf-8")

    set_aside(tmp_path)

    held = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert held == {name: name for name in theirs} | {
        "results.previous.json": "results.json",
        "results.previous.jsonl": "results.jsonl",
        "results.previous.gw0.jsonl": "results.gw0.jsonl",
    }
    assert list(read_lines(tmp_path)) == []


def test_a_finished_run_outlives_a_later_one_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("finished", encoding="utf-8")
    set_aside(tmp_path)
    (tmp_path / "results.jsonl").write_text("killed", encoding="utf-8")
    set_aside(tmp_path)

    assert (tmp_path / "results.previous.json").read_text(encoding="utf-8") == "finished"
    assert (tmp_path / "results.previous.jsonl").read_text(encoding="utf-8") == "killed"


def test_what_becomes_of_earlier_runs_is_told(tmp_path: Path) -> None:
    assert set_aside(tmp_path) == ""
    (tmp_path / "results.json").write_text("first", encoding="utf-8")
    assert set_aside(tmp_path) == "the run before this one was set aside as results.previous.*"
    (tmp_path / "results.json").write_text("second", encoding="utf-8")
    assert set_aside(tmp_path).endswith(", in place of the one before it (results.previous.json)")


def test_beside_a_journal_alone_nothing_is_a_report(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "summary.md").write_text("mine", encoding="utf-8")

    set_aside(tmp_path)

    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == "mine"


def test_who_goes_on_keeps_the_journals(tmp_path: Path) -> None:
    for name in ("results.json", "results.jsonl"):
        (tmp_path / name).write_text(name, encoding="utf-8")

    set_aside(tmp_path, resume=True)

    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.jsonl", "results.previous.json"]


def pictures(folder: Path) -> dict[str, str]:
    """Path -> content, of all files below."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("results.")
    }


def measured(folder: Path, name: str, **hijacked: str) -> None:
    """A run of that name, and what it left in the folder of hijacked pictures."""
    (folder / "results.json").write_text(name, encoding="utf-8")
    for path, picture in hijacked.items():
        (folder / "hijacked" / path).mkdir(parents=True, exist_ok=True)
        (folder / "hijacked" / path / picture).write_text(name, encoding="utf-8")


def test_hijacked_pictures_go_with_the_run_that_they_are_of(tmp_path: Path) -> None:
    measured(tmp_path, "first", resists="net-0-a.png", guided="net-1-b.png")
    said = set_aside(tmp_path)
    assert said == "the run before this one was set aside as results.previous.* and hijacked.previous"
    assert pictures(tmp_path) == {
        "hijacked.previous/resists/net-0-a.png": "first",
        "hijacked.previous/guided/net-1-b.png": "first",
    }
    assert not (tmp_path / "hijacked").exists()

    measured(tmp_path, "second", resists="net-0-c.png")
    assert set_aside(tmp_path).endswith("in place of the one before it (results.previous.json, hijacked.previous)")
    assert pictures(tmp_path) == {"hijacked.previous/resists/net-0-c.png": "second"}

    measured(tmp_path, "third")  # hijacked nothing
    set_aside(tmp_path)
    assert pictures(tmp_path) == {}
    assert not (tmp_path / "hijacked.previous").exists()


def test_who_goes_on_keeps_the_hijacked_pictures(tmp_path: Path) -> None:
    measured(tmp_path, "first", resists="net-0-a.png")
    set_aside(tmp_path, resume=True)
    assert pictures(tmp_path) == {"hijacked/resists/net-0-a.png": "first"}


def test_pictures_that_no_run_wrote_stay_where_they_are(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "mine"
    elsewhere.mkdir(parents=True)
    (elsewhere / "net-0-a.png").write_text("mine", encoding="utf-8")
    report = tmp_path / "report"
    report.mkdir()
    measured(report, "first", resists="holiday.png", guided="net-0-notes.txt")
    (report / "hijacked" / "net-0-a.png").write_text("mine", encoding="utf-8")
    (report / "hijacked" / "link").symlink_to(elsewhere)
    held = pictures(tmp_path)
    assert set_aside(report) == "the run before this one was set aside as results.previous.*"
    assert pictures(tmp_path) == held

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "hijacked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "other" / "results.json").write_text("first", encoding="utf-8")
    set_aside(tmp_path / "other")
    assert (elsewhere / "net-0-a.png").read_text(encoding="utf-8") == "mine"


def test_beside_no_results_the_pictures_are_somebodys_own(tmp_path: Path) -> None:
    measured(tmp_path, "first", resists="net-0-a.png")
    (tmp_path / "results.json").unlink()
    assert set_aside(tmp_path) == ""
    assert pictures(tmp_path) == {"hijacked/resists/net-0-a.png": "first"}


@pytest.mark.parametrize(
    ("held", "stranger"),
    [
        ({"thesis.tex": "x"}, "thesis.tex"),
        ({"results.json": '{"mine": 1}', "thesis.tex": "x"}, "results.json"),
        ({".env": "x"}, ".env"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_left_as_it_was(
    held: dict[str, str], stranger: str, tmp_path: Path
) -> None:
    for name, content in held.items():
        (tmp_path / name).write_text(content, encoding="utf-8")

    with pytest.raises(BadInput, match=f"holds '{stranger}', which no audit wrote; give a new or an empty folder"):
        make(tmp_path)
    assert {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()} == held


def test_the_lines_of_another_tool_are_no_journal(tmp_path: Path) -> None:
    held = {"results.jsonl": '{"step": 1, "loss": 0.5}\n', "report.html": "<p>mine</p>", "notes.txt": "mine"}
    for name, content in held.items():
        (tmp_path / name).write_text(content, encoding="utf-8")

    with pytest.raises(BadInput, match=r"holds 'results\.jsonl', which no audit wrote"):
        make(tmp_path)
    for journal in ('torn\n{"type": "row"', '{"ty', ""):
        (tmp_path / "results.jsonl").write_text(journal, encoding="utf-8")
        make(tmp_path)


@pytest.mark.parametrize("name", ["results.json", "results.jsonl", "results.previous.json"])
def test_links_in_the_place_of_a_report_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text('{"schema_version"', encoding="utf-8")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / name).symlink_to(tmp_path / "precious")

    with pytest.raises(BadInput, match=f"holds '{name}'"):
        make(tmp_path / "report")


def test_a_report_may_go_through_a_link_to_a_folder_and_not_through_one_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")

    make(tmp_path / "link")
    Log(tmp_path / "link", "master", run="first", resume=False).append({"type": "row"})
    assert (tmp_path / "there" / "results.jsonl").exists()
    make(tmp_path / "link")
    with pytest.raises(OSError, match="dangling"):
        make(tmp_path / "dangling")


def test_others_outputs_beside_an_earlier_run_are_no_obstacle(tmp_path: Path) -> None:
    for name, content in {"results.json": '{"schema_version":"1.1"', "junit.xml": "<a/>"}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    make(tmp_path)
    set_aside(tmp_path)

    make(tmp_path)
    assert (tmp_path / "junit.xml").exists()


def test_the_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    make(tmp_path / "a" / "b")

    assert list((tmp_path / "a" / "b").iterdir()) == []
    make(tmp_path / "a" / "b")


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(OSError, match="file"):
        make(tmp_path / "file" / "report")
