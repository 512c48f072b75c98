"""What does not pass, as SARIF 2.1.0: the format in which code hosts take findings.

One rule for each audit, one result for each claim that does not count as passed. A claim that could not be decided or
measured is a result of kind "fail" like any other: SARIF's "open" may have no level, and what was not shown does not
pass. Claims that hold, or do not apply, are left out, as hosts list every result as a problem.

What was not tested is a result too, under a rule of its own, and among the notifications of the invocation: a host
closes the findings that a run does not repeat, and a run that asked less has mended nothing.

A finding needs a file. That is the audit that asked: it is what the rerun line names, and it can be opened; line 1
stands for the whole of it. The model itself is a logical location.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from reports import wording
from reports.schema import Audit, Claim, Results
from reports.terminal import printable

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
GATES = "error"
LEVELS = {"warn": "warning", "info": "note"}
NO_FILE = "audits"  # of what was not tested, or of a claim whose test cannot be named by a path inside the checkout
NOT_TESTED: dict[str, Any] = {
    "id": "not-tested",
    "name": "NotTested",
    "shortDescription": {"text": "Was everything tested that the policy lists?"},
    "fullDescription": {"text": "The policy asks for a verdict that this run does not have."},
    "help": {"text": "What was not tested does not pass. Run all audits, or see why these claims are missing."},
}


def sarif(results: Results) -> str:
    """One run of SARIF, as JSON."""
    named = list(dict.fromkeys([audit.name for audit in results.audits] + [claim.audit for claim in results.claims]))
    rules = {name: place for place, name in enumerate(named)}
    documented = {audit.name: audit for audit in results.audits}
    version = results.run.versions.get("camcore")
    driver: dict[str, Any] = {"name": "camcore"}
    if version:
        driver["version"] = printable(version)
    driver["rules"] = [_rule(name, documented.get(name)) for name in named]
    missing = list(dict.fromkeys(results.not_tested))
    driver["rules"] += [NOT_TESTED] * bool(missing)
    # of a run that passes, nothing that is missing gates
    level = LEVELS["warn"] if results.verdict == "PASS" else GATES
    run = {
        "tool": {"driver": driver},
        # code hosts replace what they had of a category, which is all before the last slash, by the newest
        "automationDetails": {"id": f"camcore/{'+'.join(_flat(one.id) for one in results.subjects)}/{results.run.id}"},
        "invocations": [_invocation(results)],
        "results": [
            *(_result(claim, rules[claim.audit]) for claim in results.claims if _told(claim)),
            *(_untested(line, level, len(named)) for line in missing),
        ],
        "columnKind": "unicodeCodePoints",
        "properties": {
            "verdict": results.verdict,
            "exitCode": results.exit_code,
            "policySha256": results.run.policy_sha256,
            "weightsSha256": {subject.id: subject.sha256 for subject in results.subjects},
        },
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=True) + "\n"


def _told(claim: Claim) -> bool:
    return claim.counts != "NOT_APPLICABLE" and not (claim.verdict == claim.counts == "PASS")


def _rule(name: str, audit: Audit | None) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": name, "name": _flat(name), "shortDescription": {"text": message(name)}}
    if audit is None:
        return rule
    about = [f"What it measures: {audit.measures}", f"Why it matters: {audit.why}", f"Known limits: {audit.limits}"]
    if audit.references:
        about.append(f"References: {audit.references}")
    return rule | {
        "shortDescription": {"text": message(audit.title)},
        "fullDescription": {"text": message(audit.measures)},
        "help": {"text": "\n\n".join(message(part) for part in about)},
        "properties": {"version": audit.version, "caughtBy": list(audit.caught_by)},
    }


def _result(claim: Claim, rule: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": claim.audit,
        "ruleIndex": rule,
        "kind": "fail",
        "level": GATES if claim.gates else LEVELS.get(claim.severity, GATES),
        "message": {"text": message(_sentence(claim))},
        "locations": [
            {
                "physicalLocation": _place(_file(claim.node_id)),
                "logicalLocations": [
                    {"name": claim.id, "fullyQualifiedName": f"{claim.subject}::{claim.id}", "kind": "claim"}
                ],
            }
        ],
        "partialFingerprints": _prints("camcoreClaim/v1", f"{claim.subject}\0{claim.id}"),
        "properties": {
            "model": claim.subject,
            "verdict": claim.verdict,
            "counts": claim.counts,
            "severity": claim.severity,
            "gates": claim.gates,
            "margin": claim.margin,
            "estimate": None if claim.estimate is None else claim.estimate.model_dump(),
            "rerun": claim.rerun,
        },
    }
    if claim.waiver is not None:
        result["suppressions"] = [
            {
                "kind": "external",
                # one that does not hold, or that hides a claim which is worse than its baseline, suppresses nothing
                "status": "accepted" if claim.waived and claim.counts == "PASS" else "rejected",
                "justification": printable(f"{claim.waiver.said}: {claim.waiver.reason} ({claim.waiver.owner})"),
            }
        ]
    return result


def _sentence(claim: Claim) -> str:
    parts = [
        f"{wording.answer(claim)} of {claim.subject}: {claim.sentence}.",
        f"{wording.numbers(claim)}.",
        claim.reason,
    ]
    parts += [f"Beside the baseline: {wording.beside(claim)}."] * (claim.counts != "PASS" and bool(claim.baseline))
    return " ".join(part for part in parts if part)


def message(text: str) -> str:
    """Plain text as SARIF reads it: braces are doubled, and nothing of others becomes a link."""
    plain = printable(text).replace("](", "] (").replace("{", "{{").replace("}", "}}")
    return " ".join(plain.split()) or "-"


def _untested(line: str, level: str, rule: int) -> dict[str, Any]:
    return {
        "ruleId": NOT_TESTED["id"],
        "ruleIndex": rule,
        "kind": "fail",
        "level": level,
        "message": {"text": message(f"Not tested: {line}")},
        "locations": [{"physicalLocation": _place(NO_FILE)}],
        "partialFingerprints": _prints("camcoreNotTested/v1", f"not tested\0{line}"),
    }


def _place(uri: str) -> dict[str, Any]:
    return {"artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"}, "region": {"startLine": 1}}


def _prints(name: str, what: str) -> dict[str, str]:
    """The same in every run, whatever it measured.

    Without one of its own, a host takes the line of the file: all claims of an audit would be one finding.
    """
    found = sha256(what.encode()).hexdigest()
    return {name: found, "primaryLocationLineHash": f"{found[:16]}:1"}


def _flat(name: str) -> str:
    return printable(name).replace("/", "-") or "-"


def _file(node_id: str) -> str:
    path = node_id.partition("::")[0].replace("\\", "/")
    parts: Sequence[str] = path.split("/")
    inside = path and not path.startswith("/") and ".." not in parts and ":" not in parts[0]
    return quote(path if inside else NO_FILE)


def _invocation(results: Results) -> dict[str, Any]:
    invocation: dict[str, Any] = {
        "executionSuccessful": not results.run.interrupted and results.exit_code in (0, 1, 6),
        "exitCode": results.exit_code,
        "commandLine": results.run.command,
        "toolExecutionNotifications": [
            {"level": "warning", "message": {"text": message(f"Not tested: {line}")}} for line in results.not_tested
        ],
    }
    try:
        ended = datetime.fromisoformat(results.run.utc)
        invocation["endTimeUtc"] = f"{ended.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"
    except (ValueError, OverflowError):
        pass  # a time that is none is left out
    return invocation
