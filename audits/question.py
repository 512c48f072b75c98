"""What an audit claims, before the policy has said with which margin; and how an audit documents itself."""

import re
from dataclasses import dataclass
from typing import Literal

from audits.policy import ClaimPolicy
from camcore.subject import Ability
from camcore.verdict import Claim


@dataclass(frozen=True, kw_only=True)
class Question:
    """A claim without its thresholds."""

    name: str  # "<audit>/<claim>", a key of the policy
    sentence: str  # with {cam} where the method's name belongs; without, the claim is about the model itself
    kind: Literal["MFT", "INV", "DIR"]
    measure: str
    unit: str
    bounds: tuple[float, float]
    direction: Literal["above", "within"] = "above"
    needs: Ability = "classes"  # of the subject; one that lacks it is told that the claim does not apply

    @property
    def audit(self) -> str:
        """The audit it belongs to."""
        return audit_of(self.name)

    @property
    def of_map(self) -> bool:
        """Whether it is put to every chosen CAM method, and not once to the model."""
        return "{cam}" in self.sentence

    def allows(self, margin: float) -> bool:
        """Whether some values would keep to that margin and others not: with any other, the claim asks nothing."""
        low, high = self.bounds
        return low <= margin < high if self.direction == "above" else 0 <= margin < max(-low, high)

    def claim(self, cam: str, policy: ClaimPolicy) -> Claim:
        """The claim for one CAM method (empty: about the model), with the policy's margin and severity."""
        return Claim(
            id=claim_id(self.name, cam),
            sentence=self.sentence.format(cam=cam),
            kind=self.kind,
            measure=self.measure,
            unit=self.unit,
            margin=policy.margin,
            margin_source=policy.source,
            severity=policy.severity,
            bounds=self.bounds,
            direction=self.direction,
        )


def audit_of(name: str) -> str:
    """The audit that a claim "<audit>/<claim>" belongs to."""
    return name.partition("/")[0]


def claim_id(name: str, cam: str) -> str:
    """`<audit>/<claim>[<cam>]`, or `<audit>/<claim>` of a model: how results, journals and reruns name a claim."""
    return f"{name}[{cam}]" if cam else name


def taken_apart(claim: str) -> tuple[str, str]:
    """The name and the method that `claim_id` put together; the method is empty where there is none."""
    name, _, method = claim.partition("[")
    return name, method.removesuffix("]")


SECTIONS = {
    "What it measures": "measures",
    "Why it matters": "why",
    "Known limits": "limits",
    "Caught by": "caught_by",
    "References": "references",
}


def documentation(docstring: str) -> dict[str, str]:
    """Title and sections of an audit's module docstring.

    Raises:
        ValueError: A section of the house format is missing.
    """
    title, *parts = re.split(r"^## (.+)$", docstring.strip(), flags=re.MULTILINE)
    found = dict(zip(parts[::2], (" ".join(body.split()) for body in parts[1::2]), strict=True))
    if set(found) != set(SECTIONS):
        raise ValueError(f"an audit's docstring needs the sections {list(SECTIONS)}, got {list(found)}")
    return {"title": title.strip(), **{field: found[heading] for heading, field in SECTIONS.items()}}
