"""`camcore audit --list`: what is asked, under the policy in force, for people on 80 columns or for machines."""

import json
import re
import textwrap
from types import ModuleType
from typing import Any

from audits.catalogue import audit_modules
from audits.policy import Policy
from audits.question import documentation
from camcore.errors import printable
from camcore.subject import Ability
from fixtures.controls import CONTROLS

COLUMNS = 80
CAM = "CAM"  # in a sentence about maps, where a run has the method's name
MODELS: dict[Ability, str] = {
    "classes": "models that score classes",
    "captions": "models that score pictures against captions",
    "boxes": "models that find what a phrase names",
}


def catalogue(policy: Policy) -> dict[str, Any]:
    """Everything that the list says, of builtin types."""
    return {
        "policy": {
            **policy.model_dump(include={"path", "sha256", "level", "min_images", "images", "seconds", "required"}),
            "waivers": policy.model_dump(mode="json")["waivers"],
        },
        "audits": [_audit(name, module, policy) for name, module in audit_modules(policy).items()],
    }


def _audit(name: str, module: ModuleType, policy: Policy) -> dict[str, Any]:
    documented = documentation(module.__doc__ or "")
    return {
        "name": name,
        "version": module.VERSION,
        "question": documented["title"],
        "measures": beginning(documented["measures"]),
        "applies_to": module.QUESTIONS[0].needs,  # all questions of an audit need the same
        "claims": [
            {
                "id": question.name,
                "sentence": question.sentence.format(cam=CAM),
                "of_map": question.of_map,
                "direction": question.direction,
                "unit": question.unit,
                **policy.claims[question.name].model_dump(),
            }
            for question in module.QUESTIONS
            if question.name in policy.claims
        ],
        "catches": [
            {"control": f"control:{control.name}", "defect": control.defect, "verdicts": caught}
            for control in CONTROLS.values()
            if (caught := {claim: v for claim, v in control.caught_by.items() if claim.startswith(f"{name}/")})
        ],
    }


def beginning(text: str, *, at_least: int = 70) -> str:
    """The first sentence of a text; a second one after a mere "The method, not the model"."""
    first, *rest = re.split(r"(?<=\.)\s+(?=[A-Z(])", text)
    return " ".join([first, *(rest[:1] if len(first) < at_least else [])])


def as_json(policy: Policy) -> str:
    """For machines."""
    return json.dumps(catalogue(policy), indent=2, ensure_ascii=False) + "\n"


def as_text(policy: Policy) -> str:
    """For people."""
    found = catalogue(policy)
    head = printable(
        f"{len(found['audits'])} audits under {policy.path} ({policy.sha256[:12]}): at most {policy.images} images and "
        f"{policy.seconds:g} seconds, intervals that hold together at {policy.level:.0%}. {CAM} stands for each method "
        f"chosen with --cam."
    )
    waived = [printable(f"waived until {one.expires}: {one.claim} ({one.reason})") for one in policy.waivers]
    return "\n\n".join(["\n".join(map(_wrapped, [head, *waived])), *map(_told, found["audits"])]) + "\n"


def _told(audit: dict[str, Any]) -> str:
    lines = [
        _wrapped(f"{audit['name']}: {audit['question']}"),
        _wrapped(audit["measures"], "  "),
        _wrapped(f"asked of {MODELS[audit['applies_to']]}; version {audit['version']}", "  "),
    ]
    for claim in audit["claims"]:
        name = claim["id"].partition("/")[2]
        margin = f"{'within ±' if claim['direction'] == 'within' else 'above '}{claim['margin']:g} {claim['unit']}"
        lines += [
            _wrapped(f"{claim['severity']:<5}{name}: {claim['sentence']}", "  ", "       "),
            _wrapped(margin, "       "),
        ]
    controls = ", ".join(one["control"] for one in audit["catches"])
    lines.append(_wrapped(f"catches {controls}", "  ", "    "))
    return "\n".join(lines)


def _wrapped(text: str, indent: str = "", after: str | None = None) -> str:
    return textwrap.fill(
        text,
        COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent if after is None else after,
        break_long_words=False,
        break_on_hyphens=False,
    )
