"""Which worker runs which test: one audit of one model stays on one worker, so that it is measured once."""

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController


class OneWorkerPerMeasurement(LoadScopeScheduling):
    """xdist's own groups (--dist loadgroup) would need a mark, which xdist 3.8 loses under pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        """The file and the model: `<file>::<test>[<model>-<method or "model">]` without test and method."""
        file, _, test = nodeid.partition("::")
        return f"{file}[{test.partition('[')[2].rpartition('-')[0]}]"

    def remove_node(self, node: WorkerController) -> str | None:
        """Give what is left of a worker's work to the others, less the test that it died of.

        xdist 3.8 hands them that one too: a model that kills its process would kill one worker after the other.
        """
        left = (
            (unit, test)
            for unit in self.assigned_work[node].values()
            for test, finished in unit.items()
            if not finished
        )
        unit, fatal = next(left, (None, None))
        if unit is not None:
            unit[fatal] = True
        # and puts units back of which nothing is left: whoever were handed one would finish nothing, and get no more
        work = self.assigned_work[node]
        for scope in [scope for scope, tests in work.items() if all(tests.values())]:
            del work[scope]
        super().remove_node(node)
        return fatal

    def _reschedule(self, node: WorkerController) -> None:
        """A worker does not start its last test until it is given another, or told that there is none.

        xdist 3.8 gives one unit at a time, which may be one test, to the worker that takes a dead one's place.
        """
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            if self.workqueue:
                self._assign_work_unit(node)
            else:
                node.shutdown()
