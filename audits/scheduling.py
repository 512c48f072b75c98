"""Which worker runs which test: one audit of one model stays on one worker, so that it is measured once."""

from xdist.scheduler import LoadScopeScheduling


class OneWorkerPerMeasurement(LoadScopeScheduling):
    """xdist's own groups (--dist loadgroup) would need a mark, which xdist 3.8 loses under pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        """The file and the model: `<file>::<test>[<model>-<method or "model">]` without test and method."""
        file, _, test = nodeid.partition("::")
        return f"{file}[{test.partition('[')[2].rpartition('-')[0]}]"
