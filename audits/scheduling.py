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
        super().remove_node(node)
        return fatal
