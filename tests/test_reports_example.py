"""A run made by hand, with every verdict and every kind of evidence; the other tests of reports/ start from it."""

import base64
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from reports.schema import Results

SHA = "9c1f" * 16
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE", "NOT_APPLICABLE", "ERROR")
SEVERITIES = ("gate", "warn", "info")


def encoded(pixels: np.ndarray, kind: str) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def overlay(*, role: str = "worst", size: tuple[int, int] = (48, 64), dead_from_row: int | None = 24) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {
        "type": "overlay",
        "unit": "n01/shark.jpg",
        "role": role,
        "value": 0.021,
        "caption": "great white shark, p = 0.91",
        "image": encoded(rng.integers(0, 256, (*size, 3), dtype=np.uint8), "JPEG"),
        "saliency": encoded(rng.integers(0, 256, size, dtype=np.uint8), "PNG"),
        "dead_from_row": dead_from_row,
        "outline": None,
    }


def curve() -> dict[str, Any]:
    return {
        "type": "curve",
        "title": "Class probability while pixels are removed",
        "x_label": "share removed",
        "y_label": "class probability",
        "x": [0.0, 0.5, 1.0],
        "series": {"most salient first": [0.9, 0.3, 0.0], "random": [0.9, None, 0.1]},
    }


def table() -> dict[str, Any]:
    return {
        "type": "table",
        "title": "Leakage",
        "columns": ["method", "median"],
        "rows": [["gradcam", 0.2], ["hirescam", None], ["count", 3]],
    }


def calibrated(name: str, *, clean: bool = False) -> dict[str, Any]:
    must, other = ("PASS", "FAIL") if clean else ("FAIL", "PASS")
    return {
        "control": "clean" if clean else "label_blind",
        "defect": None if clean else "the label is never looked at",
        "claim": name,
        "must": must,
        "verdicts": {must: 20} if clean else {must: 18, other: 2},
        "share": {
            "point": 1.0 if clean else 0.9,
            "low": 0.83 if clean else 0.68,
            "high": 1.0 if clean else 0.99,
            "level": 0.95,
            "n": 20,
            "interval": "Clopper-Pearson",
        },
    }


def claim(index: int = 0, **changes: Any) -> dict[str, Any]:
    verdict = VERDICTS[index % 5]
    severity = SEVERITIES[index % 3]
    answered = verdict in ("PASS", "FAIL", "INCONCLUSIVE")
    point = {"PASS": 0.31, "FAIL": -0.02, "INCONCLUSIVE": 0.06}.get(verdict, 0.0)
    n = 12 + 40 * index
    made = {
        "id": f"deletion/beats_random[cam{index}]",
        "node_id": f"audits/test_deletion.py::test_beats_random[cam{index}]",
        "subject": "resnet50",
        "audit": ("deletion", "wall", "binding")[index % 3],
        "audit_version": "1",
        "kind": ("MFT", "INV", "DIR")[index % 3],
        "sentence": f"Deleting what cam{index} marks hurts more than deleting at random",
        "severity": severity,
        "gates": severity == "gate",
        "verdict": verdict,
        "reason": "See the worst images.",
        "measure": {
            "name": "class probability lost",
            "unit": "probability",
            "direction": "within" if index % 7 == 6 else "above",
        },
        "estimate": {
            "point": point,
            "low": point - 0.04,
            "high": point + 0.04,
            "level": 0.9917,
            "n": n,
            "interval": "betting",
        }
        if answered
        else None,
        "bounds": [-1.0, 1.0],
        "margin": 0.05,
        "margin_source": "policy.toml, twice the spread on `control:clean`",
        "p": 0.0004 if answered else None,
        "p_holm": 0.012 if answered else None,
        "n_needed": 340 if verdict == "INCONCLUSIVE" else None,
        "cost": {"seconds": 12.3, "forwards": 1536, "backwards": 48},
        "values": np.random.default_rng(index).normal(point, 0.1, n).tolist() if answered else [],
        "units": [f"n01/{i}.jpg" for i in range(n)] if answered else [],
        "evidence": [overlay(), overlay(role="typical", dead_from_row=None), curve(), curve(), table()]
        if index in (0, 1)
        else [],
        "controls": ["control:label_blind"],
        "rerun": f'pytest "audits/test_deletion.py::test_beats_random[cam{index}]" --model resnet50 --audit-seed 7',
        "waiver": None,
        "baseline": None,
    }
    return made | changes


def beside(verdict: str = "FAIL", **changes: Any) -> dict[str, Any]:
    """What a claim comes to beside a baseline."""
    said = {"PASS": "no worse", "FAIL": "worse", "INCONCLUSIVE": "not shown to be no worse"}[verdict]
    made = {"run": "then", "subject": "resnet50", "verdict": verdict, "said": f"{said} than the baseline then"}
    return made | {"worse": 0.02, "estimate": None, "mcnemar": None} | changes


def example(claims: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    made = {
        "schema_version": "1.1",
        "run": {
            "id": "20260102-a1b2",
            "utc": "2026-01-02T03:04:05Z",
            "command": "pytest audits --model resnet50",
            "git": "4f2a91c",
            "seed": 7,
            "profile": "pr",
            "policy_sha256": SHA,
            "policy_path": "audits/policy.toml",
            "per_image": None,
            "device": "cpu",
            "versions": {"torch": "2.4"},
            "family": {"level": 0.95, "per_claim_level": 0.9929, "claims": 7},
            "seconds": 412.3,
            "interrupted": False,
        },
        "subjects": [
            {
                "spec": "resnet50",
                "id": "resnet50",
                "sha256": SHA,
                "weights": "IMAGENET1K_V2",
                "arch": "resnet50",
                "n_params": 25557032,
                "kind": "Classifier",
                "target_layer": "layer4.2",
                "preprocess": "resize 232, crop 224",
                "unsafe": ["a pickle was loaded"],
                "abilities": ["classes"],
                "cams": [],
                "data": [],
            }
        ],
        "data": [
            {
                "spec": "imagenette",
                "sha256": SHA,
                "n": 3925,
                "classes": ["tench", "church"],
                "skipped": [{"file": "n01/broken.jpg", "reason": "truncated"}],
            }
        ],
        "audits": [
            {
                "name": name,
                "version": "1",
                "title": f"What does {name} say?",
                "measures": "Class probability lost.",
                "why": "A map must explain something.",
                "limits": "See `baseline=blur`.",
                "caught_by": ["label_blind"],
                "references": "Petsiuk et al. 2018, arXiv:1806.07421",
                "calibration": [calibrated(f"{name}/beats_random"), calibrated(f"{name}/beats_random", clean=True)],
            }
            for name in ("deletion", "wall")
        ],
        "claims": [claim(index) for index in range(20)] if claims is None else claims,
        "not_tested": ["hijack: not selected"],
        "verdict": "FAIL",
        "exit_code": 1,
    }
    return made | changes


def results(claims: list[dict[str, Any]] | None = None, **changes: Any) -> Results:
    return Results.model_validate(example(claims, **changes))


def test_the_example_shows_every_verdict_and_every_kind_of_evidence():
    made = results()

    assert len(made.claims) == 20
    assert {c.verdict for c in made.claims} == set(VERDICTS)
    assert {item.type for c in made.claims for item in c.evidence} == {"overlay", "curve", "table"}
    assert {c.measure.direction for c in made.claims} == {"above", "within"}
