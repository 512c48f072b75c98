"""The conformance suite can fail: each property catches a wrong implementation, and the papers' own equations pass it.

That camcore passes is asked by tests/conformance itself, which a run of this folder collects too.
"""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance import compare, mechanisms, test_properties
from tests.conformance.adapter import METHODS, Adapter, find_adapter
from tests.conformance.equations import PAPERS, explain
from tests.conformance.planted import (
    PLANTED,
    accepts_any_class,
    draws_the_map_a_column_aside,
    explains_the_first_class_for_all,
    retold,
    scales_across_the_batch,
    turns_the_map_over,
)
from tests.conformance.suite import PROPERTIES, ask

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")


@pytest.mark.slow  # where channels are ablated one by one, by the slow equations
@pytest.mark.parametrize(("name", "method", "wrong"), PLANTED, ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_implementation_is_caught_and_the_equation_is_not(name, method, wrong):
    caught = ask(Adapter(name="wrong", explain=wrong, methods=(method,)), name, method)
    assert caught.kind == "FAILS"
    assert ask(PAPERS, name, method).kind == "ok"


def test_every_property_has_a_wrong_implementation_that_it_catches():
    assert {name for name, _, _ in PLANTED} == set(PROPERTIES)


@pytest.mark.parametrize(
    "mechanism", mechanisms.MECHANISMS, ids=lambda one: f"{one.peer}-{one.method}-{one.case.factor}"
)
def test_a_mechanism_explains_itself_and_not_the_equation(mechanism):
    telling = 0
    for seed in range(6):
        left = mechanisms.left_unexplained(replace(PAPERS, explain=retold(mechanism.retold)), mechanism, seed)
        if left is not None:
            assert left < compare.EQUATION < mechanisms.left_unexplained(PAPERS, mechanism, seed)
            telling += 1
    assert telling


@pytest.mark.parametrize(
    "wrong", [scales_across_the_batch, explains_the_first_class_for_all, draws_the_map_a_column_aside]
)
def test_a_failure_says_what_was_expected_what_came_and_how_far_apart_they_are(wrong):
    name = next(name for name, _, planted in PLANTED if planted is wrong)
    message = ask(Adapter(name="wrong", explain=wrong, methods=("gradcam",)), name, "gradcam").detail
    assert re.match(r"expected \S+, observed \S+ \(image \d, row \d+, column \d+\); max abs difference \S+ of", message)


@pytest.mark.parametrize("gives", ["rectified", "unit_range"])
@pytest.mark.parametrize("method", ["cam", "gradcam", "gradcam_plus_plus", "xgradcam", "hirescam", "layercam"])
def test_maps_rectified_or_stretched_as_declared_pass_too(gives, method):
    def finishes(*asked):
        return compare.finished(explain(*asked), gives)

    adapter = Adapter(name="finished", explain=finishes, methods=(method,), gives=gives)
    assert ask(adapter, "equals_the_papers_equation", method).kind == "ok"


def test_maps_in_another_state_than_declared_are_caught():
    def stretches(*asked):
        return compare.finished(explain(*asked), "unit_range")

    wrong = Adapter(name="wrong", explain=stretches, methods=METHODS)
    assert ask(wrong, "equals_the_papers_equation", "eigengradcam").kind == "FAILS"
    assert ask(wrong, "the_map_adds_up_to_the_score_less_bias", "hirescam").kind == "FAILS"


def test_a_stretched_map_is_not_asked_for_its_sum():
    adapter = replace(PAPERS, gives="unit_range")
    assert ask(adapter, "the_map_adds_up_to_the_score_less_bias", "hirescam").kind == "not asked"
    assert ask(PAPERS, "the_map_adds_up_to_the_score_less_bias", "hirescam").kind == "ok"


def test_a_declared_exception_is_one_only_while_it_is_needed():
    name = "a_class_out_of_range_is_refused"
    declared = Adapter(
        name="declared", explain=accepts_any_class, methods=("gradcam",), exceptions={name: "clamps, by intention"}
    )
    assert ask(declared, name, "gradcam").kind == "exception"
    needless = ask(replace(declared, explain=explain), name, "gradcam")
    assert needless.kind == "FAILS"
    assert "drop the declaration" in needless.detail


def test_grad_cam_plus_plus_that_does_not_depend_on_the_scale_is_not_the_papers():
    name = "the_scale_of_the_scores_does_not_matter"
    wrong = Adapter(name="wrong", explain=retold(mechanisms.cubed_gradients), methods=("gradcam_plus_plus",))
    assert "observed that it holds" in ask(wrong, name, "gradcam_plus_plus").detail
    assert ask(PAPERS, name, "gradcam_plus_plus").kind == "exception"


@pytest.mark.parametrize(
    "given",
    [
        lambda *asked: None,
        lambda *asked: explain(*asked)[0],
        lambda *asked: explain(*asked) * float("nan"),
    ],
    ids=["nothing", "one image", "NaN"],
)
def test_what_is_no_batch_of_finite_maps_is_caught(given):
    outcome = ask(Adapter(name="wrong", explain=given, methods=("gradcam",)), "equals_the_papers_equation", "gradcam")
    assert outcome.kind == "FAILS"
    assert outcome.detail.startswith("expected ")


def test_adapters_of_libraries_that_are_not_installed_are_found_and_say_so():
    for spec in ("camcore", "pytorch_grad_cam", "torchcam", "captum"):
        assert set(find_adapter(spec).methods) <= set(METHODS)
    assert find_adapter("camcore").missing() == ""
    assert replace(PAPERS, requires="no_such_library").missing() == "no_such_library is not installed"


@pytest.mark.parametrize("spec", ["grad_cam", "tests.conformance.equations:NONE", "none.py:ADAPTER", "tests.tiny:SIZE"])
def test_an_adapter_that_is_none_is_refused(spec):
    with pytest.raises(ValueError, match=re.escape(repr(spec))):
        find_adapter(spec)


def test_the_page_shows_every_property_and_its_example_is_an_adapter(tmp_path):
    assert [name for name in PROPERTIES if f"`{name}`" not in PAGE] == []
    (tmp_path / "mine.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], encoding="utf-8")
    mine = find_adapter(f"{tmp_path / 'mine.py'}:ADAPTER")
    assert ask(mine, "equals_the_papers_equation", "gradcam").kind == "ok"
    assert ask(mine, "nothing_is_left_behind", "gradcam").kind == "ok"


def test_a_failure_fails_and_a_library_that_is_not_installed_is_skipped_with_the_reason(monkeypatch):
    asked = ("equals_the_papers_equation", "gradcam")
    monkeypatch.setattr(test_properties, "ADAPTER", replace(PAPERS, explain=turns_the_map_over))
    with pytest.raises(AssertionError, match="max abs difference"):
        test_properties.test_property(*asked)
    monkeypatch.setattr(test_properties, "ADAPTER", replace(PAPERS, requires="no_such_library"))
    with pytest.raises(pytest.skip.Exception, match="no_such_library is not installed"):
        test_properties.test_property(*asked)


@pytest.mark.slow
def test_pytest_puts_the_suite_to_the_adapter_that_the_environment_names(tmp_path):
    (tmp_path / "theirs.py").write_text(
        "from dataclasses import replace\n"
        "from tests.conformance.equations import PAPERS\n"
        "THEIRS = replace(PAPERS, explain=lambda *asked: -PAPERS.explain(*asked), methods=('hirescam',))\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/conformance", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "CONFORMANCE": f"{tmp_path / 'theirs.py'}:THEIRS"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "test_property[equals_the_papers_equation-hirescam]" in done.stdout
    assert "FAILED tests/conformance/test_properties.py::test_property[the_map_flips" not in done.stdout
