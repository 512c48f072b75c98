"""What JUnit's file says of the run as a whole: its verdict, and a failing case for what was not tested.

A service that reads the file, and not the exit code, would take a run in which half of the claims were left out for a
green one: only tests that ran stand in it.
"""

from collections.abc import Sequence
from typing import Any

import pytest

NOT_TESTED = "audits::not_tested"


def add(config: pytest.Config, *, verdict: str, exit_code: int, not_tested: Sequence[str]) -> None:
    """Add it to the file that `--junitxml` asks for, if any, before it is written."""
    others = [plugin for plugin in config.pluginmanager.get_plugins() if type(plugin).__name__ != "LogXML"]
    told = config.pluginmanager.subset_hook_caller("pytest_runtest_logreport", remove_plugins=others)
    for implementation in told.get_hookimpls():
        file: Any = implementation.plugin
        file.add_global_property("audit_verdict", verdict)
        file.add_global_property("audit_exit_code", str(exit_code))
    if not_tested and exit_code:
        told(report=_report("setup", "failed", "\n".join(not_tested)))
        told(report=_report("teardown", "passed", None))


def _report(when: Any, outcome: Any, text: str | None) -> pytest.TestReport:
    where = ("audits", None, "not_tested")
    return pytest.TestReport(NOT_TESTED, where, {}, outcome, text, when, user_properties=[("audit_verdict", "MISSING")])
