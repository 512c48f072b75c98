"""Columns for pytest-html: verdict, estimate and margin of an audit. pytest-html inserts them raw: all is escaped."""

from collections.abc import Mapping
from html import escape

COLUMNS = ("verdict", "estimate", "margin")


def header_cells() -> list[str]:
    """The column heads, sortable."""
    return [f'<th class="sortable" data-column-type="{name}">{name.capitalize()}</th>' for name in COLUMNS]


def row_cells(properties: Mapping[str, str]) -> list[str]:
    """The cells of one test; empty ones for a test that is no audit.

    Args:
        properties: The test's user_properties; audit_verdict, audit_beside, audit_estimate, audit_margin, audit_claim
            and audit_reason are read.
    """
    verdict = ", ".join(filter(None, (properties.get(f"audit_{key}", "") for key in ("verdict", "beside"))))
    properties = {**properties, "audit_verdict": verdict}
    hint = ": ".join(filter(None, (_one_line(properties.get(f"audit_{key}", "")) for key in ("claim", "reason"))))
    hints = {"verdict": f' title="{hint}"' if hint else ""}
    return [
        f'<td class="col-{name}"{hints.get(name, "")}>{_one_line(properties.get(f"audit_{name}", ""))}</td>'
        for name in COLUMNS
    ]


def _one_line(text: str) -> str:
    """Escaped, quotes too; pytest-html reads a cell only if it has no line break."""
    return escape(" ".join(str(text).split()))
