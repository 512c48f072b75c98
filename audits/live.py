"""Live progress on a terminal: one line below what pytest writes, rewritten in place; none in CI or in a pipe."""

import os
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, TextIO

import pytest

from audits.pytest_outcome import interval, needs
from camcore.verdict import Claim, Outcome, Verdict

DOWN = "\x1bD\x1b[A"  # index and back up: there is a line below, also at the bottom of the screen
BELOW = "\x1b7\x1b[B\r"  # the cursor's place is kept
BACK = "\x1b[K\x1b8"


def terminal_of(config: pytest.Config, environment: Mapping[str, str]) -> TextIO | None:
    """The terminal that pytest writes to, out of reach of the capturing; None where nobody watches one."""
    if environment.get("CI") or environment.get("TERM") == "dumb" or getattr(config.option, "verbose", 0) < 0:
        return None
    try:
        # captured output goes elsewhere from here on: a copy of stdout that was made in time does not
        terminal = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    except OSError:
        return None
    if terminal.isatty():
        return terminal
    terminal.close()
    return None


class Live:
    """A plugin that shows how far the run is, between what pytest writes."""

    def __init__(self, terminal: TextIO, *, several: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.terminal, self.clock = terminal, clock
        self.several = several  # whether workers measure: then there is no more to tell than what they have finished
        self.total = self.finished = 0
        self.started = clock()
        self._asked: tuple[str, float, int] | None = None  # the claim that is measured, since when, from which image
        self._shown = False

    def watch(self, subject: str, done: int, planned: int, verdict: Verdict) -> None:
        """Called by the engine after every batch."""
        now, name = self.clock(), f"{verdict.claim.id} of {subject}"
        if self._asked is None or self._asked[0] != name:
            self._asked = name, now, done  # these came from the journal or with the first batch: no pace to tell yet
        _, since, first = self._asked
        parts = [f"{self.done()} {name}: {done} of up to {planned} images", tending(verdict)]
        left = [f"at most {duration((now - since) / (done - first) * (planned - done))}"] if done > first else []
        self.show(" | ".join(filter(None, [*parts, ", ".join(left + self.left())])))

    def search(self, subject: str, done: int, planned: int) -> None:
        """Called where something is searched for on some images before it is measured on others."""
        self.show(" | ".join([f"{self.done()} of {subject}: {done} of {planned} images searched", *self.left()]))

    def done(self) -> str:
        """How far the whole run is."""
        return f"claim {min(self.finished + 1, self.total)}/{self.total}"

    def left(self) -> list[str]:
        """How long the whole run will take, once there is a claim to tell it by."""
        if not self.finished:
            return []
        pace = (self.clock() - self.started) / self.finished
        return [f"the run about {duration(pace * (self.total - self.finished))}"]

    def show(self, text: str) -> None:
        """Put a text on the line below."""
        width = os.get_terminal_size(self.terminal.fileno()).columns if self.terminal.isatty() else 0
        printable = "".join(letter if letter.isprintable() else " " for letter in text)
        self._write(f"{DOWN}{BELOW}{printable[: (width or 80) - 1]}{BACK}")
        self._shown = True

    def clear(self) -> None:
        """Leave the terminal as pytest believes it to be."""
        if self._shown:
            self._write(f"{BELOW}{BACK}")
            self._shown = False

    def _write(self, text: str) -> None:
        try:
            self.terminal.write(text)
            self.terminal.flush()
        except OSError:  # the terminal is gone; the run is not about it
            self._shown = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.total = len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.total = len(ids)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logstart(self) -> Generator[None, Any, Any]:
        return (yield from self._around())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, Any, Any]:
        self.finished += report.when == "teardown"
        self._asked = None
        return (yield from self._around())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logfinish(self) -> Generator[None, Any, Any]:
        return (yield from self._around())

    def _around(self) -> Generator[None, Any, Any]:
        self.clear()
        result: Any = yield
        if self.several and self.finished < self.total:
            self.show(" | ".join([self.done(), *self.left()]))
        return result

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_testnodedown(self) -> None:
        self.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.clear()


def tending(verdict: Verdict) -> str:
    """The interval so far, what it needs, and on which side its middle lies; nothing before the first look."""
    if verdict.estimate is None:
        return ""
    outcome = verdict.outcome
    if outcome is Outcome.INCONCLUSIVE:
        outcome = Outcome.PASS if _supports(verdict.estimate.point, verdict.claim) else Outcome.FAIL
    return f"{interval(verdict)} {needs(verdict.claim)}: tends to {outcome.value}"


def _supports(point: float, claim: Claim) -> bool:
    return abs(point) < claim.margin if claim.direction == "within" else point > claim.margin


def duration(seconds: float) -> str:
    """In the unit that a person who waits would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
