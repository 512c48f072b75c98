import json

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from reports.model_card import model_index
from tests.test_reports_example import claim, example, results


def test_every_claim_with_an_estimate_is_a_metric_with_its_interval_and_verdict():
    made = results([claim(0), claim(1), claim(3)], verdict="FAIL", exit_code=1)
    (entry,) = json.loads(model_index(made))["model-index"]
    (result,) = entry["results"]

    assert entry["name"] == "resnet50"
    assert result["task"]["type"] == "image-classification"
    assert [metric["type"] for metric in result["metrics"]] == [made.claims[0].id, made.claims[1].id]
    first, estimate = result["metrics"][0], made.claims[0].estimate
    assert first["value"] == estimate.point
    assert (first["args"]["low"], first["args"]["high"]) == (estimate.low, estimate.high)
    assert first["args"]["verdict"] == "PASS"


def test_each_model_has_the_data_that_it_was_asked_about():
    old = example()
    sets = [old["data"][0] | {"spec": name, "sha256": name * 64} for name in ("a", "b")]
    models = [old["subjects"][0] | {"id": name, "data": [name * 64]} for name in ("a", "b")]
    made = results([claim(0, subject="a"), claim(0, subject="b")], subjects=models, data=sets)

    found = json.loads(model_index(made))["model-index"]

    assert [entry["results"][0]["dataset"]["name"] for entry in found] == ["a", "b"]
    assert [len(entry["results"][0]["metrics"]) for entry in found] == [1, 1]


def test_the_hub_reads_it_as_it_was_meant():
    made = results([claim(0), claim(1)], verdict="FAIL", exit_code=1)
    text = model_index(made)
    card = ModelCard(f"---\n{text}---\nA model.\n")

    name, found = model_index_to_eval_results(json.loads(text)["model-index"])

    assert name == "resnet50"
    assert [one.metric_value for one in found] == [one.estimate.point for one in made.claims]
    assert [one.metric_type for one in card.data.eval_results] == [one.id for one in made.claims]
    assert card.data.eval_results[0].metric_args["low"] == made.claims[0].estimate.low


@pytest.mark.parametrize(
    "name", ["\N{DOG} \x7f \x85 \ufeff \u2028", "\N{RIGHT-TO-LEFT OVERRIDE}\x1b[31m: - {x}", "a\n---\nb: c"]
)
def test_json_and_yaml_read_the_same_whatever_the_names_are(name):
    text = model_index(results([claim(0, sentence=name)]))
    (entry,) = json.loads(text)["model-index"]

    assert entry["results"][0]["metrics"][0]["name"] == name
    assert yaml.safe_load(text) == json.loads(text)
    assert all(letter.isascii() or letter == "\N{DOG}" for letter in text)
    assert all(line.isprintable() for line in text.splitlines())
