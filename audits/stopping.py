"""Ctrl-C and SIGTERM: the run ends with what it has. A second signal does not cost the report; a third does."""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # of whoever sits there, and of whatever runs the job


class Stopping:
    """The signals that came; handles them until `restore`. A pytest that is run in a thread keeps its own handlers."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for one in SIGNALS:
                # what is ignored on purpose (by nohup, or a shell that runs jobs in the background) stays ignored
                if signal.getsignal(one) is not signal.SIG_IGN:
                    self._before[one] = signal.signal(one, self._came)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 2:
            return
        raise KeyboardInterrupt(signal.Signals(number).name)

    def restore(self) -> None:
        """Put back the handlers of before."""
        for one, handler in self._before.items():
            signal.signal(one, handler)
