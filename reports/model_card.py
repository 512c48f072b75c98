"""What a run measured, as the metadata of a model card: `model-index`, as the Hugging Face hub reads it.

The hub's cards begin with YAML. JSON is YAML, and leaves no string to chance.
"""

import json
from typing import Any

from reports.schema import Claim, Estimate, Results, Subject

TASKS = {"classes": "image-classification", "captions": "zero-shot-image-classification", "boxes": "object-detection"}


def model_index(results: Results) -> str:
    """One entry per model: a metric for every claim with an estimate, with its interval, margin and verdict beside."""
    entries = [_entry(subject, results) for subject in results.subjects]
    return json.dumps({"model-index": entries}, indent=2, ensure_ascii=True) + "\n"


def _entry(subject: Subject, results: Results) -> dict[str, Any]:
    shown = [data for data in results.data if data.sha256 in subject.data] or list(results.data)
    made_for = (subject.abilities or ("classes",))[0]
    return {
        "name": subject.id,
        "results": [
            {
                "task": {"type": TASKS[made_for], "name": "model audit"},
                "dataset": {
                    "type": "audit-images",
                    "name": ", ".join(data.spec for data in shown) or "none",
                    "args": {"sha256": [data.sha256 for data in shown]},
                },
                "metrics": [
                    _metric(claim, claim.estimate)
                    for claim in results.claims
                    if claim.subject == subject.id and claim.estimate is not None
                ],
                "source": {"name": f"camcore {results.run.versions.get('camcore', '')}".strip()},
            }
        ],
    }


def _metric(claim: Claim, estimate: Estimate) -> dict[str, Any]:
    return {
        "type": claim.id,
        "name": claim.sentence,
        "value": estimate.point,
        "args": {
            "low": estimate.low,
            "high": estimate.high,
            "level": estimate.level,
            "n": estimate.n,
            "unit": claim.measure.unit,
            "margin": claim.margin,
            "verdict": claim.verdict,
            "severity": claim.severity,
            "waived": claim.waived,
            "audit_version": claim.audit_version,
        },
    }
