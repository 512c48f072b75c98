import json

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from reports.model_card import model_index
from tests.test_reports_example import SHA, beside, claim, example, results


def metrics(made):
    """Of the only model."""
    (entry,) = json.loads(model_index(made))["model-index"]
    return entry["results"][0]["metrics"]


def test_every_claim_with_an_estimate_is_a_metric_with_its_interval_and_verdict():
    made = results([claim(0), claim(1), claim(3)], verdict="FAIL", exit_code=1)
    (entry,) = json.loads(model_index(made))["model-index"]
    (result,) = entry["results"]

    assert entry["name"] == "resnet50"
    assert result["task"]["type"] == "image-classification"
    assert [metric["type"] for metric in result["metrics"][1:]] == [made.claims[0].id, made.claims[1].id]
    first, estimate = result["metrics"][1], made.claims[0].estimate
    assert first["value"] == estimate.point
    assert (first["args"]["low"], first["args"]["high"]) == (estimate.low, estimate.high)
    assert first["args"]["verdict"] == "PASS"
    assert "measured_verdict" not in first["args"]


def test_what_the_run_came_to_and_what_was_not_tested_stand_first():
    first = metrics(results([claim(0)], verdict="INCONCLUSIVE", exit_code=6, not_tested=["wall/leakage: no verdict"]))[
        0
    ]

    assert (first["type"], first["value"]) == ("audit-verdict", "INCONCLUSIVE")
    assert first["args"]["exit_code"] == 6
    assert first["args"]["policy_sha256"] == SHA
    assert first["args"]["not_tested"] == ["wall/leakage: no verdict"]
    assert first["name"].startswith("resnet50 is INCONCLUSIVE")


@pytest.mark.parametrize("verdict", ["ERROR", "INCONCLUSIVE"])
def test_a_claim_without_an_estimate_has_its_verdict_as_its_value(verdict):
    one = metrics(results([claim(0, verdict=verdict, estimate=None)], verdict="INCONCLUSIVE", exit_code=6))[1]

    assert one["value"] == one["args"]["verdict"] == verdict
    assert "low" not in one["args"]


def test_what_is_worse_than_its_baseline_is_no_pass_and_what_does_not_apply_is_left_out_unless_it_counts():
    waiver = {"holds": True, "said": "waived", "bound": 0.0, "reason": "so", "owner": "me", "expires": "2030-01-01"}
    found = metrics(
        results(
            [
                claim(0, baseline=beside("FAIL")),
                claim(3),
                claim(3, baseline=beside("INCONCLUSIVE")),
                claim(1, waiver=waiver),
            ]
        )
    )[1:]

    assert [(one["args"]["verdict"], one["args"].get("measured_verdict")) for one in found] == [
        ("FAIL", "PASS"),
        ("INCONCLUSIVE", "NOT_APPLICABLE"),
        ("PASS", "FAIL"),
    ]
    assert found[0]["args"]["beside_baseline"] == "worse than the baseline then"
    assert found[1]["value"] == "INCONCLUSIVE"
    assert found[2]["args"]["waived"]


def test_each_model_has_the_data_that_it_was_asked_about():
    old = example()
    sets = [old["data"][0] | {"spec": name, "sha256": name * 64} for name in ("a", "b")]
    models = [old["subjects"][0] | {"id": name, "data": [name * 64]} for name in ("a", "b")]
    made = results([claim(0, subject="a"), claim(0, subject="b")], subjects=models, data=sets)

    found = json.loads(model_index(made))["model-index"]

    assert [entry["results"][0]["dataset"]["name"] for entry in found] == ["a", "b"]
    assert [len(entry["results"][0]["metrics"]) for entry in found] == [2, 2]


def test_the_hub_reads_it_as_it_was_meant():
    made = results([claim(0), claim(1), claim(4)], verdict="FAIL", exit_code=1)
    text = model_index(made)
    card = ModelCard(f"---\n{text}---\nA model.\n")

    name, found = model_index_to_eval_results(json.loads(text)["model-index"])

    assert name == "resnet50"
    assert [one.metric_value for one in found] == [
        "FAIL",
        *(one.estimate.point for one in made.claims[:2]),
        "ERROR",
    ]
    assert [one.metric_type for one in card.data.eval_results] == ["audit-verdict", *(one.id for one in made.claims)]
    assert card.data.eval_results[0].metric_args["not_tested"] == list(made.not_tested)
    assert card.data.eval_results[1].metric_args["low"] == made.claims[0].estimate.low


@pytest.mark.parametrize(
    "name", ["\N{DOG} \x7f \x85 \ufeff \u2028", "\N{RIGHT-TO-LEFT OVERRIDE}\x1b[31m: - {x}", "a\n---\nb: c"]
)
def test_json_and_yaml_read_the_same_whatever_the_names_are(name):
    text = model_index(results([claim(0, sentence=name)]))
    (entry,) = json.loads(text)["model-index"]

    assert entry["results"][0]["metrics"][1]["name"] == name
    assert yaml.safe_load(text) == json.loads(text)
    assert all(letter.isascii() or letter == "\N{DOG}" for letter in text)
    assert all(line.isprintable() for line in text.splitlines())
