"""Verdicts as the plain dicts that results.json is made of: builtin types only, NaN as null, pictures as base64."""

import base64
import re
from collections.abc import Mapping
from io import BytesIO
from math import isfinite
from typing import Any

import torch
from PIL import Image as Pillow
from torch import Tensor

from camcore.statistics import Estimate
from camcore.verdict import Curve, Evidence, Overlay, Table, Verdict


def claim_record(verdict: Verdict, *, subject: str, node_id: str, version: str, rerun: str) -> dict[str, Any]:
    """One entry of results.json's `claims`, but for what only the whole run knows (`p_holm`, `controls`)."""
    claim = verdict.claim
    return {
        "id": claim.id,
        "node_id": node_id,
        "subject": subject,
        "audit": claim.id.partition("/")[0],
        "audit_version": version,
        "kind": claim.kind,
        "sentence": claim.sentence,
        "severity": claim.severity,
        "gates": claim.gates,
        "verdict": verdict.outcome.value,
        "reason": verdict.reason,
        "measure": {"name": claim.measure, "unit": claim.unit, "direction": claim.direction},
        "estimate": estimated(verdict.estimate),
        "bounds": [float(claim.bounds[0]), float(claim.bounds[1])],
        "margin": float(claim.margin),
        "margin_source": claim.margin_source,
        "p": finite(verdict.p),
        "p_holm": None,
        "n_needed": verdict.n_needed,
        "cost": {"seconds": verdict.seconds, "forwards": verdict.forwards, "backwards": verdict.backwards},
        "values": [finite(value) for value in verdict.values.values()],
        "units": list(verdict.values),
        "evidence": [evidence(piece) for piece in verdict.evidence],
        "controls": [],
        "rerun": rerun,
    }


def estimated(estimate: Estimate | None) -> dict[str, Any] | None:
    """A number with its interval."""
    if estimate is None:
        return None
    return {
        "point": float(estimate.point),
        "low": float(estimate.low),
        "high": float(estimate.high),
        "level": float(estimate.level),
        "n": int(estimate.n),
        "interval": estimate.method,
    }


def recorded_estimate(record: Mapping[str, Any]) -> Estimate:
    """The estimate that `estimated` made a record of."""
    found = dict(record)
    return Estimate(method=found.pop("interval"), **found)


def evidence(piece: Evidence) -> dict[str, Any]:
    """One piece of evidence."""
    match piece:
        case Overlay():
            return {
                "type": "overlay",
                "unit": piece.unit,
                "role": piece.role,
                "value": finite(piece.value),
                "caption": piece.caption,
                "image": jpeg(piece.image),
                "saliency": None if piece.saliency is None else grey_png(piece.saliency),
                "dead_from_row": piece.dead_from_row,
                "outline": None if piece.outline is None else grey_png(piece.outline),
            }
        case Curve():
            series = {name: [finite(y) for y in ys] for name, ys in piece.series.items()}
            labels = {"title": piece.title, "x_label": piece.x_label, "y_label": piece.y_label}
            return {"type": "curve", **labels, "x": [float(x) for x in piece.x], "series": series}
        case Table():
            rows = [[finite(cell) if isinstance(cell, float) else cell for cell in row] for row in piece.rows]
            return {"type": "table", "title": piece.title, "columns": list(piece.columns), "rows": rows}


def described(thing: object) -> str:
    """Its repr without the address in memory, which would differ from run to run."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(thing))


def utf8(content: Any) -> Any:
    """The same with halves of characters written out, which no file can hold: a class or a file may be called so."""
    match content:
        case str():
            return content if content.isascii() else content.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {utf8(key): utf8(value) for key, value in content.items()}
        case list() | tuple():
            return [utf8(value) for value in content]
        case _:
            return content


def finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return float(value) if value is not None and isfinite(value) else None


def jpeg(image: Tensor) -> str:
    """An image (3, h, w) in [0, 1], at its own size."""
    pixels = (image.detach().cpu().permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return _encoded(Pillow.fromarray(pixels), "JPEG", quality=85)


def grey_png(saliency: Tensor) -> str:
    """A map (h, w) in [0, 1]."""
    pixels = (saliency.detach().cpu().nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return _encoded(Pillow.fromarray(pixels), "PNG", optimize=True)


def _encoded(picture: Pillow.Image, kind: str, **options: Any) -> str:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
