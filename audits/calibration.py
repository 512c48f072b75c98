"""How often each audit itself was wrong: what it said of the controls, whose truth is known, over seeds.

`benchmarks/calibration.py` measures it and writes calibration.json; every run hands it on to its report.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from audits.question import audit_of
from camcore.statistics import clopper_pearson

FOUND = Path(__file__).with_name("calibration.json")
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one claim said of one control over the seeds."""

    control: str
    claim: str
    version: str  # of the audit
    verdicts: dict[str, int] = field(default_factory=dict)
    images: int = 0  # in all
    seeds: tuple[int, ...] = ()

    def also(self, seed: int, verdict: str, images: int) -> "Row":
        """The row with one more seed; a seed that it has is refused, for it would count as another trial."""
        if seed in self.seeds:
            raise ValueError(f"expected a seed that {self.control} on {self.claim} was not asked under, got {seed}")
        verdicts = {**self.verdicts, verdict: self.verdicts.get(verdict, 0) + 1}
        seeds = tuple(sorted((*self.seeds, seed)))
        return replace(self, verdicts=dict(sorted(verdicts.items())), images=self.images + images, seeds=seeds)


def read(path: Path) -> list[Row]:
    """The rows of a file, none if there is no file."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [Row(**{**row, "seeds": tuple(row["seeds"])}) for row in rows]


@cache
def _found() -> list[Row]:
    return read(FOUND)


def of_audit(name: str, version: str) -> list[dict[str, Any]]:
    """The `calibration` of an audit in results.json.

    Rows of another version of the audit say nothing of this one and are left out, and so are rows of controls whose
    defect decides a claim neither way.
    """
    from fixtures.controls import CONTROLS

    rows = []
    for row in _found():
        control = CONTROLS.get(row.control)
        must = control.wanted(row.claim) if control else None
        if audit_of(row.claim) != name or row.version != version or control is None or must is None or not row.seeds:
            continue
        share = clopper_pearson(row.verdicts.get(must, 0), len(row.seeds), level=LEVEL)
        rows.append(
            {
                "control": row.control,
                "defect": control.defect,
                "claim": row.claim,
                "must": must,
                "verdicts": row.verdicts,
                "share": {"point": share.point, "low": share.low, "high": share.high, "level": share.level}
                | {"n": len(row.seeds), "interval": share.method},
            }
        )
    return rows
