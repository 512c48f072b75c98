import json
from errno import ENOSPC
from math import inf, isnan, nan
from pathlib import Path

import pytest

from audits.journal import Journal, Log, finished_claims, forget, make, read_lines


def log(folder: Path, *, worker: str = "master", run: str = "first", resume: bool = False) -> Log:
    return Log(folder, worker, run=run, resume=resume)


def test_a_row_is_on_disk_as_soon_as_it_is_set(tmp_path: Path) -> None:
    Journal(log(tmp_path), "key")["a"] = {"value": 0.1 + 0.2}

    assert list(read_lines(tmp_path)) == [{"type": "row", "key": "key", "id": "a", "row": {"value": 0.1 + 0.2}}]


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_what_json_cannot_hold_comes_back_as_nan(value: float, tmp_path: Path) -> None:
    Journal(log(tmp_path), "key")["a"] = {"value": value, "other": 1e-300}

    assert "NaN" not in (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    found = Journal(log(tmp_path, resume=True), "key")["a"]
    assert isnan(found["value"])
    assert found["other"] == 1e-300


def test_a_resumed_log_knows_the_rows_of_all_workers(tmp_path: Path) -> None:
    Journal(log(tmp_path), "key")["a"] = {"value": 1.0}
    Journal(log(tmp_path, worker="gw1"), "key")["b"] = {"value": 2.0}
    Journal(log(tmp_path, worker="gw1"), "other key")["c"] = {"value": 3.0}

    resumed = Journal(log(tmp_path, worker="gw0", run="second", resume=True), "key")

    assert dict(resumed) == {"a": {"value": 1.0}, "b": {"value": 2.0}}
    assert len(resumed) == 2
    assert Journal(log(tmp_path), "key") == {}


@pytest.mark.parametrize("rest", [b'{"type": "row", "key": "k', b"\0\0\0", b'{"type": "row", "id": "\xc3'])
def test_a_line_that_a_kill_cut_short_costs_itself_only(rest: bytes, tmp_path: Path) -> None:
    Journal(log(tmp_path), "key")["a"] = {"value": 1.0}
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(rest)

    resumed = Journal(log(tmp_path, resume=True), "key")
    resumed["b"] = {"value": 2.0}

    assert dict(Journal(log(tmp_path, resume=True), "key")) == {"a": {"value": 1.0}, "b": {"value": 2.0}}


def test_a_line_that_a_full_disk_cut_short_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(line: object, **_options: object) -> str:
        with (tmp_path / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(repr(line)[:20])
        raise OSError(ENOSPC, "No space left on device")

    journal = Journal(log(tmp_path), "key")
    journal["a"] = {"value": 1.0}
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", full)
        with pytest.raises(OSError, match="No space"):
            journal["b"] = {"value": 2.0}
    journal["c"] = {"value": 3.0}

    assert set(Journal(log(tmp_path, resume=True), "key")) == {"a", "c"}


def test_a_journal_only_grows(tmp_path: Path) -> None:
    journal = Journal(log(tmp_path), "key")
    journal["a"] = {"value": 1.0}

    with pytest.raises(TypeError, match="only grows"):
        del journal["a"]


def test_an_id_with_quotes_and_line_breaks_stays_on_one_line(tmp_path: Path) -> None:
    name = "a\"b'c\nd\u2028e\x1b[31m.png"
    Journal(log(tmp_path), "key")[name] = {"value": 1.0}

    assert (tmp_path / "results.jsonl").read_bytes().count(b"\n") == 1
    assert list(Journal(log(tmp_path, resume=True), "key")) == [name]


def test_only_claims_that_this_run_concluded_count(tmp_path: Path) -> None:
    log(tmp_path, run="first").claim("key", {"id": "old"})
    second = log(tmp_path, run="second", resume=True)
    second.claim("other", {"id": "new"})
    log(tmp_path, worker="gw0", run="second").claim("third", {"id": "a worker's"})

    assert second.claims == {"key": {"id": "old"}, "other": {"id": "new"}}
    assert [claim["id"] for claim in finished_claims(tmp_path, run="second")] == ["a worker's", "new"]


def test_forgetting_leaves_the_users_own_files(tmp_path: Path) -> None:
    ours = ("results.json", "results.jsonl", "results.gw0.jsonl", "report.html")
    theirs = ("results_of_mine.json", "results.csv", "notes.html", "results.backup.jsonl")
    for name in (*ours, *theirs):
        (tmp_path / name).write_text(json.dumps(name), encoding="utf-8")

    forget(tmp_path)

    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(theirs)


def test_the_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    make(tmp_path / "a" / "b")

    assert list((tmp_path / "a" / "b").iterdir()) == []
    make(tmp_path / "a" / "b")


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(OSError, match="file"):
        make(tmp_path / "file" / "report")
