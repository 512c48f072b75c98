"""The line of progress: what it says, that it leaves the terminal as it found it, and where there is none."""

import io
import os
import pty
import re
from types import SimpleNamespace
from typing import Any

import pytest

from audits.live import Live, duration, tending, terminal_of
from camcore.verdict import Outcome
from tests.test_pytest_outcome import verdict


class Screen(io.StringIO):
    """As much of a terminal as the line needs: rows, a cursor, and the sequences that are written."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.lines, self.row, self.column, self.kept = [""] * rows, 0, 0, (0, 0)

    def write(self, text: str) -> int:
        for token in re.findall(r"\x1b\[[A-Z]|\x1b.|.|\n", text):
            if token == "\x1b7":
                self.kept = self.row, self.column
            elif token == "\x1b8":
                self.row, self.column = self.kept
            elif token == "\x1b[A":
                self.row = max(0, self.row - 1)
            elif token == "\x1b[B":
                self.row = min(len(self.lines) - 1, self.row + 1)
            elif token == "\x1b[K":
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif token in ("\x1bD", "\n"):
                self._down()
                self.column *= token != "\n"
            elif token == "\r":
                self.column = 0
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + token + line[self.column + 1 :]
                self.column += 1
        return len(text)

    def _down(self) -> None:
        if self.row == len(self.lines) - 1:
            self.lines = [*self.lines[1:], ""]
        else:
            self.row += 1


@pytest.mark.parametrize("rows", [2, 3, 10])  # at the bottom of the screen as well
def test_what_pytest_writes_is_as_if_there_were_no_line(rows: int) -> None:
    screen = Screen(rows)
    live = Live(screen, several=False)
    for letter in "..F.\n.x":
        live.show("claim 1 of 7")
        live.show("claim 1 of 7, about 3 s left")
        assert "claim 1 of 7, about 3 s left" in screen.lines
        live.clear()
        screen.write(letter)
    live.show("claim 7 of 7")
    live.clear()

    assert [line.rstrip() for line in screen.lines if line.strip()] == ["..F.", ".x"][1 - rows :]
    assert (screen.column, screen.lines[screen.row]) == (2, ".x")


def test_a_claim_is_told_with_its_images_interval_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    told: list[str] = []
    live = Live(Screen(3), several=False, clock=lambda: now)
    monkeypatch.setattr(live, "show", told.append)
    live.total = 12

    live.search("resnet50", 8, 32)
    live.watch("resnet50", 16, 96, verdict(Outcome.INCONCLUSIVE, bare=True))
    now = 10.0
    live.watch("resnet50", 36, 96, verdict(Outcome.INCONCLUSIVE))
    live.finished, now = 2, 40.0
    live.watch("alexnet", 96, 96, verdict(Outcome.PASS))

    assert told == [
        "claim 1/12 of resnet50: 8 of 32 images searched",
        "claim 1/12 wall/leakage[gradcam] of resnet50: 16 of up to 96 images",
        "claim 1/12 wall/leakage[gradcam] of resnet50: 36 of up to 96 images | "
        "0.300 [0.250, 0.410] > 0.1: tends to PASS | at most 30 s",
        "claim 3/12 wall/leakage[gradcam] of alexnet: 96 of up to 96 images | "
        "0.300 [0.250, 0.410] > 0.1: tends to PASS | the run about 3 min",
    ]


def test_where_workers_measure_the_line_says_how_many_claims_are_done() -> None:
    screen = Screen(3)
    live = Live(screen, several=True)
    live.pytest_xdist_node_collection_finished(["a", "b", "c"])
    for when in ("setup", "call", "teardown"):
        around = live.pytest_runtest_logreport(SimpleNamespace(when=when))  # type: ignore[arg-type]
        next(around)
        assert not any("claim" in line for line in screen.lines)  # while pytest writes
        with pytest.raises(StopIteration):
            around.send(None)

    assert [line[:9] for line in screen.lines if line.strip()] == ["claim 2/3"]
    live.pytest_sessionfinish()
    assert not any(line.strip() for line in screen.lines)


@pytest.mark.parametrize(
    ("outcome", "direction", "words"),
    [
        (Outcome.INCONCLUSIVE, "above", "> 0.1: tends to PASS"),
        (Outcome.INCONCLUSIVE, "within", "< 0.1: tends to FAIL"),
        (Outcome.ERROR, "above", "> 0.1: tends to ERROR"),
    ],
)
def test_the_interval_so_far_says_where_it_tends(outcome: Outcome, direction: str, words: str) -> None:
    assert tending(verdict(outcome, direction=direction)) == f"0.300 [0.250, 0.410] {words}"  # type: ignore[arg-type]


def test_before_the_first_look_there_is_no_tendency() -> None:
    assert tending(verdict(Outcome.INCONCLUSIVE, bare=True)) == ""


@pytest.mark.parametrize(("seconds", "words"), [(4.4, "4 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_time_is_told_as_one_would(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_name_cannot_move_the_cursor() -> None:
    screen = Screen(3)
    Live(screen, several=False).show("red\x1b[31m\nbell\a")

    assert [line.rstrip() for line in screen.lines] == ["", "red [31m bell", ""]


@pytest.mark.parametrize(
    ("environment", "verbose", "watched"),
    [
        ({}, 0, True),
        ({"TERM": "xterm"}, 1, True),
        ({"CI": "true"}, 0, False),
        ({"TERM": "dumb"}, 0, False),
        ({}, -1, False),
    ],
)
def test_there_is_a_line_where_somebody_watches(
    environment: dict[str, str], verbose: int, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: Any = SimpleNamespace(option=SimpleNamespace(verbose=verbose))
    main, terminal = pty.openpty()
    monkeypatch.setattr(os, "dup", lambda _stdout: terminal)

    found = terminal_of(config, environment)

    assert (found is not None) == watched
    (os.close if found is None else lambda _: found.close())(terminal)
    os.close(main)


def test_a_pipe_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    config: Any = SimpleNamespace(option=SimpleNamespace(verbose=0))
    reading, writing = os.pipe()
    monkeypatch.setattr(os, "dup", lambda _stdout: writing)

    assert terminal_of(config, {}) is None
    os.close(reading)
