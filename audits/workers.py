"""Workers of pytest-xdist: what each is given, where it runs its model, and what becomes of one that dies."""

import os
from collections.abc import Collection, Generator, Sequence
from itertools import count
from typing import Any

import pytest

from audits.journal import VANISHED, Log, finished_claims
from audits.plan import Plan
from camcore.errors import BadInput


def refuse_modes(dist: str) -> None:
    """Only xdist's own default leaves it to the audits which worker measures what.

    Raises:
        BadInput: Another mode.
    """
    if dist not in ("no", "load"):
        raise BadInput(
            f"--dist {dist} cannot be used with audits: each audit of a model stays on one worker, so that it is "
            "measured once; leave --dist out"
        )


def visible_devices(variable: str | None, available: int) -> list[str]:
    """What a process may use, as CUDA counts: the caller's list up to the first entry that is no device.

    Args:
        variable: The caller's CUDA_VISIBLE_DEVICES (numbers, or UUIDs of GPUs or MIG slices); None: not set.
        available: How many devices CUDA finds.
    """
    if variable is None:
        return [str(index) for index in range(available)]
    listed: list[str] = []
    for entry in (part.strip() for part in variable.split(",")):
        if not entry or entry.startswith("-") or entry in listed:
            break
        listed.append(entry)
    return listed[:available]


def pinned(place: int, devices: Sequence[str]) -> str | None:
    """CUDA_VISIBLE_DEVICES of the worker in this place; None where there is nothing to choose from."""
    return devices[place % len(devices)] if len(devices) > 1 else None


def free_place(taken: Collection[int]) -> int:
    """The first place that no worker holds: one that replaces a dead worker gets its device."""
    return next(place for place in count() if place not in taken)


class Workers:
    """The main process's side: a plugin that is registered where audits are spread over workers."""

    def __init__(self, config: pytest.Config, plan: Plan, log: Log) -> None:
        self.config, self.plan, self.log = config, plan, log
        self.places: dict[str, int] = {}  # of live workers, by their id
        self.unmatched: list[str] = []  # what a worker found of the xfails file
        self.devices: list[str] = []
        if plan.device == "cuda":  # of a device with a number the caller has chosen already
            import torch

            self.devices = visible_devices(os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count())

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Workers belong to the main process's run, and take the batch sizes that it measured."""
        place = self.places[node.gateway.id] = free_place(self.places.values())
        node.workerinput["run"] = self.log.run
        node.workerinput["batch_sizes"] = self.plan.batch_sizes
        node.workerinput["models"] = self.plan.models
        node.workerinput["visible"] = pinned(place, self.devices)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        from audits.scheduling import OneWorkerPerMeasurement

        return OneWorkerPerMeasurement(config, log)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.places.pop(node.gateway.id, None)
        self.unmatched = getattr(node, "workeroutput", {}).get("unmatched", self.unmatched)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """An error to every reporter: xdist's own phase, "???", is a failure to some and nothing to others.

        Of a claim that does not gate it is what any other ERROR of it is: expected to fail, and no exit code.
        """
        begun = self._begun(crashitem)
        report.when = "setup"
        if begun and not begun["gates"]:
            report.outcome = "skipped"
            report.wasxfail = f"ERROR {begun['id']}: {report.longrepr}"  # type: ignore[attr-defined]
        report.user_properties = [
            ("audit_claim", begun.get("id", "")),
            ("audit_verdict", "ERROR"),
            ("audit_estimate", ""),
            ("audit_margin", ""),
            ("audit_reason", VANISHED),
        ]

    def _begun(self, node_id: str) -> dict[str, Any]:
        """The claim that a test was asking about when its worker died; empty if it had not come to that."""
        claims = finished_claims(self.plan.settings.report, run=self.log.run)
        return next((claim for claim in claims if claim["node_id"] == node_id), {})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, Any, Any]:
        """pytest-html shows a test, and JUnit its properties, once it is torn down: a dead worker's never is."""
        result = yield
        if report.when == "setup" and ("audit_reason", VANISHED) in report.user_properties:
            down = pytest.TestReport(
                report.nodeid,
                report.location,
                {},
                "passed",
                None,
                "teardown",
                user_properties=report.user_properties,
            )
            down.node = report.node  # type: ignore[attr-defined]
            self.config.hook.pytest_runtest_logreport(report=down)
        return result


def unlike(worker: dict[str, Any], plan: Plan) -> dict[str, str]:
    """Models that came out other ones here than in the main process, whose weights the report names; and a reason.

    Each process builds them anew.
    """
    return {
        name: f"the model {name!r} came out with other weights or settings in a worker of -n "
        f"({plan.models[name][:12]}) than in the main process ({known[:12]}), which the report names; let its factory "
        "load saved weights or set a seed, or leave -n out"
        for name, known in worker["models"].items()
        if plan.models[name] != known
    }


def settle(worker: dict[str, Any]) -> None:
    """Take the device that the main process chose, before CUDA is looked at; share the processor with the others."""
    import torch

    if worker["visible"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = worker["visible"]
    torch.set_num_threads(max(1, torch.get_num_threads() // worker["workercount"]))
