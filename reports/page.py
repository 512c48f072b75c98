"""The pages beside the report: one HTML file each, in the report's own style."""

from typing import Any

from markupsafe import Markup

from reports import html, wording


def page(template: str, **values: Any) -> str:
    """Fill a template of this folder; what it is given is escaped."""
    sheets = [(html.TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "compare.css")]
    return html.environment().get_template(template).render(style=Markup("\n".join(sheets)), words=wording, **values)
