"""What a run measured, as the metadata of a model card: `model-index`, as the Hugging Face hub reads it.

The hub's cards begin with YAML. JSON is YAML, and leaves no string to chance, but for characters beyond the first
plane: JSON may escape them in pairs, and YAML reads no pairs. The hub takes no source without an address, so there is
none.
"""

import json
from typing import Any

from reports.schema import Claim, Estimate, Results, Subject

TASKS = {
    "classes": "image-classification",
    "captions": "zero-shot-image-classification",
    "boxes": "zero-shot-object-detection",
}


def model_index(results: Results) -> str:
    """One entry per model: a metric for every claim with an estimate, with its interval, margin and verdict beside."""
    entries = [_entry(subject, results) for subject in results.subjects]
    text = json.dumps({"model-index": entries}, indent=2, ensure_ascii=False)
    return "".join(map(_letter, text)) + "\n"


def _letter(letter: str) -> str:
    """As JSON and YAML both read it; of what is no plain letter nothing is left to an editor's or a browser's care."""
    return letter if "\n" <= letter <= "~" or letter > "\uffff" else f"\\u{ord(letter):04x}"


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
                    "args": {"sha256": [data.sha256 for data in shown], "profile": results.run.profile},
                },
                "metrics": [
                    _metric(claim, claim.estimate, results.run.versions.get("camcore", "unknown"))
                    for claim in results.claims
                    if claim.subject == subject.id and claim.estimate is not None
                ],
            }
        ],
    }


def _metric(claim: Claim, estimate: Estimate, version: str) -> dict[str, Any]:
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
            "camcore": version,
        },
    }
