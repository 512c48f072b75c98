import json

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


def test_it_is_json_of_plain_letters_whatever_the_names_are():
    text = model_index(results([claim(0, sentence="\N{RIGHT-TO-LEFT OVERRIDE}\x1b[31m: - {x}")]))

    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)
