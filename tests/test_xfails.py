"""The list of what is known to fail: read, matched, told."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from audits.pytest_outcome import expect
from audits.xfails import Expected, read_xfails, told
from camcore.errors import BadInput
from camcore.verdict import Outcome
from tests.test_pytest_outcome import verdict


def read(folder: Path, text: str) -> list[tuple[str, str]]:
    file = folder / "xfails.txt"
    file.write_text(text, encoding="utf-8")
    return [(one.name, one.reason) for one in read_xfails(file)]


def test_a_reason_stands_behind_the_id_or_above_it(tmp_path: Path) -> None:
    assert read(
        tmp_path,
        "wall/leakage[gradcam]   # by construction\n"
        "\n"
        "# until the retrained head is in, issue 12\n"
        "audits/test_deletion.py::test_beats_random[resnet50-*]\n"
        "deletion/beats_edges[*]  # its own # reason\n"
        "bias/pull\n",
    ) == [
        ("wall/leakage[gradcam]", "by construction"),
        ("audits/test_deletion.py::test_beats_random[resnet50-*]", "until the retrained head is in, issue 12"),
        ("deletion/beats_edges[*]", "its own # reason"),
        ("bias/pull", "until the retrained head is in, issue 12"),
    ]


@pytest.mark.parametrize(
    "text", ["wall/leakage\n", "wall/leakage #\n", "# a reason\n\nwall/leakage\n", "x # y\nwall/leakage"]
)
def test_an_id_without_a_reason_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"xfails.txt:\d: 'wall/leakage' has no reason") as raised:
        read(tmp_path, text)

    assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_is_not_there_or_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, words in (("none.txt", "No such file"), ("binary", "no UTF-8")):
        with pytest.raises(BadInput, match=f"^--audit-xfails-file .*{name}' cannot be read .*{words}"):
            read_xfails(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        ("wall/leakage[gradcam]", {"wall/leakage[gradcam]"}),
        ("wall/leakage[*]", {"wall/leakage[gradcam]", "wall/leakage[hirescam]"}),
        ("wall/*", {"wall/leakage[gradcam]", "wall/leakage[hirescam]", "wall/input[gradcam]"}),
        ("wall/leakage", set()),
        ("wall/leakage[g]", set()),  # brackets are letters, not a set of them
        ("wall.leakage[gradcam]", set()),
    ],
)
def test_a_star_stands_for_anything_and_everything_else_for_itself(name: str, covered: set[str]) -> None:
    ids = ("wall/leakage[gradcam]", "wall/leakage[hirescam]", "wall/input[gradcam]")

    assert {one for one in ids if Expected(name=name, reason="known").covers(one)} == covered


@pytest.mark.parametrize("name", ["wall/leakage[gradcam]", "audits/test_wall.py::test_x[*]"])
def test_a_listed_test_is_marked_whether_by_its_claim_or_by_its_own_id(name: str) -> None:
    marks: list[Any] = []
    test = SimpleNamespace(nodeid="audits/test_wall.py::test_x[m-gradcam]", add_marker=marks.append)
    given = verdict(Outcome.FAIL)
    listed = Expected(name=name, reason="known")

    expect(test, given, [replace(listed, name="bias/pull"), listed])  # type: ignore[arg-type]
    expect(test, given, [replace(listed, name="bias/pull")])  # type: ignore[arg-type]

    (mark,) = marks
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "known", "strict": False})


def test_what_matches_nothing_and_what_passes_is_told_by_name() -> None:
    lines = told(Path("xfails.txt"), ["wal/leakage"], ["test_x[m]"])

    assert lines == [
        "warning: xfails.txt: 'wal/leakage' matches no claim and no test of this run",
        "warning: xfails.txt: test_x[m] passes, though it is expected to fail; take it off the list",
    ]
