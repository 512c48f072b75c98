"""Which device a worker gets, and what the others are given when one dies."""

import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from audits.journal import Log
from audits.scheduling import OneWorkerPerMeasurement
from audits.workers import Workers, free_place, pinned, refuse_modes, unlike, visible_devices
from camcore.errors import BadInput
from tests.running import ROOT, finished
from tests.test_gate import plan


@pytest.mark.parametrize(
    ("variable", "available", "devices"),
    [
        (None, 4, ["0", "1", "2", "3"]),
        (None, 0, []),
        ("2,3", 2, ["2", "3"]),  # 0 and 1 are somebody else's
        ("3, 1", 2, ["3", "1"]),
        ("1,-1,2", 1, ["1"]),  # CUDA reads no further
        ("", 0, []),
        ("GPU-8f1c,MIG-77aa", 2, ["GPU-8f1c", "MIG-77aa"]),
        ("5,6", 1, ["5"]),  # one of them is not there
    ],
)
def test_workers_are_given_what_the_caller_may_use(variable: str | None, available: int, devices: list[str]) -> None:
    assert visible_devices(variable, available) == devices


def test_no_worker_gets_a_device_that_the_caller_excluded() -> None:
    devices = visible_devices("4,6,7", 3)

    assert [pinned(place, devices) for place in range(5)] == ["4", "6", "7", "4", "6"]


@pytest.mark.parametrize("devices", [[], ["3"]])
def test_where_there_is_nothing_to_choose_from_nothing_is_changed(devices: list[str]) -> None:
    assert pinned(1, devices) is None


def test_whoever_replaces_a_worker_gets_its_place() -> None:
    taken = {"gw0": 0, "gw1": 1, "gw2": 2}
    del taken["gw1"]

    assert free_place(taken.values()) == 1
    assert free_place([]) == 0


def test_a_model_that_comes_out_another_one_in_a_worker_is_named(tmp_path: Path) -> None:
    here = plan(tmp_path, "a", "b")

    assert unlike({"models": here.models}, here) == {}
    found = unlike({"models": {**here.models, "b": "f" * 64}}, here)

    assert list(found) == ["b"]
    assert "the model 'b' came out with other weights or settings in a worker of -n (000000000000)" in found["b"]
    assert "than in the main process (ffffffffffff), which the report names" in found["b"]


@pytest.mark.parametrize("dist", ["each", "loadscope", "loadfile", "loadgroup", "worksteal"])
def test_another_mode_of_xdist_is_refused_in_one_line(dist: str) -> None:
    with pytest.raises(BadInput, match=f"^--dist {dist} cannot be used with audits: .*; leave --dist out$"):
        refuse_modes(dist)


@pytest.mark.parametrize("dist", ["no", "load"])
def test_xdists_own_default_is_not_refused(dist: str) -> None:
    refuse_modes(dist)


class Node:
    """A worker that takes what it is sent."""

    shutting_down = False

    def __init__(self) -> None:
        self.sent: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


@pytest.fixture
def scheduler(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = OneWorkerPerMeasurement.__new__(OneWorkerPerMeasurement)
    made.assigned_work, made.workqueue, made.registered_collections = OrderedDict(), OrderedDict(), {}
    made.log = lambda *_words: None  # type: ignore[assignment]
    return made


def test_the_test_that_a_worker_died_of_is_not_given_to_another(scheduler: Any) -> None:
    dead, alive = Node(), Node()
    tests = ["a.py::x[m-model]", "a.py::y[m-model]", "a.py::z[m-model]"]
    scheduler.registered_collections[alive] = tests
    scheduler.assigned_work[alive] = OrderedDict()
    scheduler.assigned_work[dead] = OrderedDict({"a.py[m]": OrderedDict(zip(tests, [True, False, False], strict=True))})

    assert scheduler.remove_node(dead) == "a.py::y[m-model]"
    assert alive.sent == [2]


DYING = """
import os
import pytest

@pytest.mark.parametrize("case", ["m-a", "m-b", "m-c"])
def test_it(case):
    if __name__.endswith("{place}") and case == "m-{case}":
        os._exit(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_goes_on_after_a_worker_has_died(processes: str, tmp_path: Path) -> None:
    """xdist 3.8 by itself waits for ever: whoever takes the place is handed what is finished, and finishes nothing."""
    scheduler = "from audits.scheduling import OneWorkerPerMeasurement as Ours\n\n\n"
    hook = "def pytest_xdist_make_scheduler(config, log):\n    return Ours(config, log)\n"
    (tmp_path / "conftest.py").write_text(scheduler + hook, encoding="utf-8")
    for place in range(6):
        text = DYING.format(place=4, case="b") if place == 4 else DYING.format(place="nowhere", case="")
        (tmp_path / f"test_{place}.py").write_text(text, encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "-q", "-n", processes, "-p", "no:cacheprovider", str(tmp_path)]
    done = finished(words, cwd=tmp_path, extra={"PYTHONPATH": str(ROOT)}, timeout=120)

    assert "1 failed, 17 passed" in done.stdout, done.stdout


def test_a_worker_that_has_done_its_work_died_of_nothing(scheduler: Any) -> None:
    done = Node()
    scheduler.assigned_work[done] = OrderedDict({"a.py[m]": OrderedDict({"a.py::x[m-model]": True})})

    assert scheduler.remove_node(done) is None


@pytest.mark.parametrize(("gates", "outcome"), [(True, "failed"), (False, "xfailed")])
def test_a_claim_that_a_worker_died_of_fails_the_run_only_if_it_gates(
    tmp_path: Path, pytestconfig: pytest.Config, gates: bool, outcome: str
) -> None:
    log = Log(tmp_path, "master", run="this", resume=False)
    log.begin("key", {"id": "wall/input[gradcam]", "node_id": "a.py::y[m-gradcam]", "gates": gates})
    plan: Any = SimpleNamespace(settings=SimpleNamespace(report=tmp_path), device="cpu")
    report = pytest.TestReport("a.py::y[m-gradcam]", ("a.py", None, "a.py"), {}, "failed", "gw0 crashed", "???")  # type: ignore[arg-type]

    Workers(pytestconfig, plan, log).pytest_handlecrashitem("a.py::y[m-gradcam]", report)

    assert ("audit_claim", "wall/input[gradcam]") in report.user_properties
    assert ("audit_verdict", "ERROR") in report.user_properties
    assert report.failed == gates
    if not gates:
        assert "ERROR wall/input[gradcam]: gw0 crashed" in report.wasxfail  # type: ignore[attr-defined]
        status = pytestconfig.hook.pytest_report_teststatus(report=report, config=pytestconfig)
        assert status[0] == outcome


def test_a_worker_that_died_before_it_asked_anything_fails_the_run(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    log = Log(tmp_path, "master", run="this", resume=False)
    plan: Any = SimpleNamespace(settings=SimpleNamespace(report=tmp_path), device="cpu")
    report = pytest.TestReport("a.py::y", ("a.py", None, "a.py"), {}, "failed", "gw0 crashed", "???")  # type: ignore[arg-type]

    Workers(pytestconfig, plan, log).pytest_handlecrashitem("a.py::y", report)

    assert report.failed
    assert not hasattr(report, "wasxfail")
