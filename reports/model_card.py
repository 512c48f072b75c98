"""What a run came to, as the metadata of a model card: `model-index`, as the Hugging Face hub reads it.

The hub's cards begin with YAML. JSON is YAML, and leaves no string to chance, but for characters beyond the first
plane: JSON may escape them in pairs, and YAML reads no pairs. The hub takes no source without an address, so there is
none.
"""

import json
from typing import Any

from reports import wording
from reports.schema import Claim, Results, Subject

TASKS = {
    "classes": "image-classification",
    "captions": "zero-shot-image-classification",
    "boxes": "zero-shot-object-detection",
}
WHOLE_RUN = "audit-verdict"  # without the slash that every claim's id has


def model_index(results: Results) -> str:
    """One entry per model: a metric for the whole run, and one for every claim that applies.

    A claim's value is its estimate, with interval, margin and verdict beside, or its verdict where it has none.
    """
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
                    _of_the_run(results),
                    *(
                        _metric(claim, results.run.versions.get("camcore", "unknown"))
                        for claim in results.claims
                        if claim.subject == subject.id and claim.counts != "NOT_APPLICABLE"
                    ),
                ],
            }
        ],
    }


def _of_the_run(results: Results) -> dict[str, Any]:
    """Of all models together, as the exit code is; without it, what was not tested would look like what holds."""
    return {
        "type": WHOLE_RUN,
        "name": wording.verdict_sentence(results),
        "value": results.verdict,
        "args": {
            "exit_code": results.exit_code,
            "interrupted": results.run.interrupted,
            "run": results.run.id,
            "policy_sha256": results.run.policy_sha256,
            "not_tested": list(results.not_tested),
        },
    }


def _metric(claim: Claim, version: str) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if claim.estimate is not None:
        args = claim.estimate.model_dump(include={"low", "high", "level", "n"})
    args |= {"unit": claim.measure.unit, "margin": claim.margin, "verdict": claim.counts}
    if claim.counts != claim.verdict:
        args["measured_verdict"] = claim.verdict
    if claim.baseline is not None:
        args["beside_baseline"] = wording.beside(claim)
    args |= {
        "severity": claim.severity,
        "waived": claim.waived,
        "audit_version": claim.audit_version,
        "camcore": version,
    }
    return {
        "type": claim.id,
        "name": claim.sentence,
        "value": claim.shown if claim.estimate is None else claim.estimate.point,
        "args": args,
    }
