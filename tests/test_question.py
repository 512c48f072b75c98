import pytest

from audits.policy import ClaimPolicy
from audits.question import SECTIONS, Question, claim_id, documentation

DOCSTRING = """Does it hold?

## What it measures

One
thing.

## Why it matters

Because.

## Known limits

Many.

## Caught by

a_control, another

## References

Somebody 2020.
"""
QUESTION = Question(
    name="wall/leakage",
    sentence="{cam} marks nothing",
    kind="INV",
    measure="share",
    unit="of the norm",
    bounds=(0.0, 1.0),
    direction="within",
)


def test_a_docstring_is_read_section_by_section() -> None:
    assert documentation(DOCSTRING) == {
        "title": "Does it hold?",
        "measures": "One thing.",
        "why": "Because.",
        "limits": "Many.",
        "caught_by": "a_control, another",
        "references": "Somebody 2020.",
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_a_missing_section_is_refused(section: str) -> None:
    with pytest.raises(ValueError, match="an audit's docstring needs the sections"):
        documentation(DOCSTRING.replace(f"## {section}\n", ""))


def test_a_section_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="Anecdotes"):
        documentation(f"{DOCSTRING}\n## Anecdotes\n\nOnce.\n")


def test_no_docstring_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the sections"):
        documentation("")


def test_a_claim_is_a_question_with_its_margin() -> None:
    claim = QUESTION.claim("gradcam", ClaimPolicy(severity="warn", margin=0.3, source="measured", why="so"))

    assert claim.id == claim_id("wall/leakage", "gradcam") == "wall/leakage[gradcam]"
    assert claim.sentence == "gradcam marks nothing"
    assert (claim.margin, claim.margin_source, claim.severity, claim.gates) == (0.3, "measured", "warn", False)
    assert (claim.kind, claim.bounds, claim.direction) == ("INV", (0.0, 1.0), "within")


def test_a_question_belongs_to_the_audit_in_its_name() -> None:
    assert QUESTION.audit == "wall"
