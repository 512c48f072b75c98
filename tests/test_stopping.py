"""The first signal stops the run, the second does not cost the report, the third leaves; old handlers return."""

import os
import signal
from collections.abc import Iterator

import pytest

from audits.stopping import SIGNALS, Stopping


@pytest.fixture
def stopping() -> Iterator[Stopping]:
    before = {one: signal.signal(one, signal.default_int_handler) for one in SIGNALS}
    made = Stopping()
    yield made
    made.restore()
    assert {signal.getsignal(one) for one in SIGNALS} == {signal.default_int_handler}
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("later", SIGNALS)
def test_only_the_second_signal_is_let_pass(first: signal.Signals, later: signal.Signals, stopping: Stopping) -> None:
    with pytest.raises(KeyboardInterrupt, match=first.name):
        os.kill(os.getpid(), first)
    os.kill(os.getpid(), later)
    assert stopping.count == 2
    with pytest.raises(KeyboardInterrupt, match=later.name):
        os.kill(os.getpid(), later)


def test_what_was_ignored_on_purpose_stays_ignored() -> None:
    before = {one: signal.signal(one, signal.SIG_IGN) for one in SIGNALS}
    made = Stopping()
    os.kill(os.getpid(), signal.SIGTERM)
    made.restore()

    assert made.count == 0
    assert {signal.signal(one, handler) for one, handler in before.items()} == {signal.SIG_IGN}
