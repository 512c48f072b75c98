"""Who watches the process that runs a model: no exit code of a model's own making reaches the gate.

A model, or a library under it, may end the process it runs in (`os._exit(0)`, `exit(0)` in C, a crash). Nothing inside
that process can say so, and 0 would be taken for a green run. So the process that was started only waits, and a fork
of it does the work: an end that pytest does not tell of is not shown (6). On Linux; elsewhere a run with `-n` is safe:
a worker that vanishes is an ERROR.
"""

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Callable

NOT_SHOWN = 6
NOT_BEGUN = b"-"
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def split() -> Callable[[int | None], None]:
    """Go on in a process of its own, and leave this one to wait for it. It never returns where it waits.

    Returns:
        What must be told the exit code, once the run has come to its end in the ordinary way; or None, where it never
        began: then whatever ends the process, 0 is not what it ends in.
    """
    if not sys.platform.startswith("linux"):
        return lambda code: None
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
    with warnings.catch_warnings():
        # Python 3.12 warns of threads: those of BLAS, which knows forks, and nobody computes before this one
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        os.close(writing)
        _wait(child, reading)
    os.close(reading)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever kills the one that waits means this one
    signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def tell(code: int | None) -> None:
        os.write(writing, NOT_BEGUN if code is None else b"%d" % code)
        os.close(writing)

    return tell


def _wait(child: int, told: int) -> None:
    """Hand signals on until the child has ended, and end as it did."""
    while True:
        came = signal.sigwaitinfo({*PASSED_ON, signal.SIGCHLD})
        if came.si_signo != signal.SIGCHLD and came.si_code <= 0:  # sent by a process; a terminal sends it to both
            os.kill(child, came.si_signo)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read()
    os._exit(_judged(os.waitstatus_to_exitcode(status), said))


def _judged(code: int, said: bytes) -> int:
    """The exit code of a process that ended with this one, and told that one; says so where it told none."""
    if said == NOT_BEGUN:
        return code % 256 or NOT_SHOWN
    if said:
        return int(said) or code % 256
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    message = (
        f"\nERROR: the process that runs the model {how} in the middle of the run: nothing is shown. What was "
        "measured is kept (--audit-resume); with -n 1 the claim that it died of is an ERROR, and the rest goes on\n"
    )
    os.write(2, message.encode())
    return NOT_SHOWN
