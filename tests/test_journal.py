import json
import sys
from errno import ENOSPC
from math import inf, isnan, nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audits.journal import Journal, Log, Unwritable, finished_claims, read_lines


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


def test_rows_share_the_names_of_their_columns(tmp_path: Path) -> None:
    columns = [f"deletion:{step}" for step in range(300)]
    made = log(tmp_path)
    for index in range(100):
        Journal(made, "key")[f"{index}.png"] = {"".join(column): index / 7 for column in columns}

    kept = Journal(made, "key")
    assert dict(kept["99.png"]) == dict.fromkeys(columns, 99 / 7)
    names = {id(name) for row in kept.values() for name in row}
    assert len(names) == len(columns)
    assert all(sys.getsizeof(row._values) < 12 * len(columns) for row in made.rows["key"].values())


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


def test_a_full_disk_is_said_in_one_line_that_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = log(tmp_path)
    made.append({"type": "row", "key": "key", "id": "a", "row": {"value": 1.0}})

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(Unwritable, match=r"No space left on device.*--audit-resume") as raised:
            made.append({"type": "row", "key": "key", "id": "b", "row": {"value": 1.0}})

    assert "\n" not in str(raised.value)
    assert dict(Journal(log(tmp_path, resume=True), "key")) == {"a": {"value": 1.0}}


def rows(count: int) -> dict[str, dict[str, float]]:
    return {f"image {index}.png": {"value": index / 7, "other": -1.5 * index} for index in range(count)}


def written(folder: Path) -> bytes:
    """The journal of two workers' worth of rows and a claim."""
    made = log(folder)
    for image_id, row in rows(12).items():
        Journal(made, "key")[image_id] = row
    made.claim("claim's key", {"id": "wall/leakage", "verdict": "PASS"})
    return (folder / "results.jsonl").read_bytes()


DAMAGE = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
    st.tuples(st.just("zero"), st.floats(0, 1), st.integers(1, 300)),
    st.tuples(st.just("lose"), st.floats(0, 1), st.integers(1, 300)),
    st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 300)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.integers(0, 255)),
)


def damaged(content: bytes, kind: str, where: float, what: int) -> bytes:
    at = int(where * len(content))
    match kind:
        case "cut":
            return content[:at]
        case "flip":
            return content[:at] + bytes(byte ^ what for byte in content[at : at + 1]) + content[at + 1 :]
        case "zero":
            return content[:at] + b"\0" * len(content[at : at + what]) + content[at + what :]
        case "lose":
            return content[:at] + content[at + what :]
        case "repeat":
            return content[: at + what] + content[at:]
        case _:
            return content[:at] + bytes([what]) * 3 + content[at:]


@pytest.mark.slow
@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(DAMAGE, min_size=1, max_size=4))
def test_whatever_a_disk_did_to_it_what_is_read_is_what_was_measured(damage: list[tuple[str, float, int]]) -> None:
    with TemporaryDirectory() as made:
        folder = Path(made)
        content = written(folder)
        for one in damage:
            content = damaged(content, *one)
        (folder / "results.jsonl").write_bytes(content)

        resumed = log(folder, run="second", resume=True)
        kept = dict(Journal(resumed, "key"))
        assert kept.items() <= rows(12).items()
        assert set(resumed.rows) <= {"key"}
        assert all(claim == {"id": "wall/leakage", "verdict": "PASS"} for claim in resumed.claims.values())

        for image_id, row in rows(12).items():  # measured again where it is missing
            if image_id not in kept:
                Journal(resumed, "key")[image_id] = row
        assert dict(Journal(log(folder, resume=True), "key")) == rows(12)


def test_one_changed_byte_costs_its_own_line_only(tmp_path: Path) -> None:
    lines = written(tmp_path).splitlines(keepends=True)
    for index in range(12):
        changed = lines[index].replace(b'"value": ', b'"value": 9', 1)
        (tmp_path / "results.jsonl").write_bytes(b"".join([*lines[:index], changed, *lines[index + 1 :]]))

        assert len(Journal(log(tmp_path, resume=True), "key")) == 11


def test_a_journal_without_checksums_is_measured_again(tmp_path: Path) -> None:
    line = {"type": "row", "key": "key", "id": "a", "row": {"value": 1.0}}
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")

    assert log(tmp_path, resume=True).rows == {}
