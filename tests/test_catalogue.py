"""Which questions a policy asks, and that none of its margins answers one by itself."""

from pathlib import Path

import pytest

from audits.catalogue import check_margins, questions
from audits.policy import load_policy
from camcore.errors import BadInput
from tests.running import overlay

WAIVED = """
[[waivers]]
claim = "wall/leakage[gradcam]"
bound = {bound}
reason = "maps are shown to nobody"
owner = "A. Name"
expires = 2999-12-31
"""
SHIPPED = load_policy(None, profile="pr")


@pytest.mark.parametrize("name", SHIPPED.claims)
def test_no_margin_lets_every_model_pass(name: str, tmp_path: Path) -> None:
    question = questions(SHIPPED)[name]
    low, high = question.bounds
    easiest = low if question.direction == "above" else max(-low, high)
    beyond = easiest - 1 if question.direction == "above" else easiest
    policy = load_policy(overlay(tmp_path, f'[claims."{name}"]\nmargin = {beyond}\n'), profile="pr")

    check_margins(SHIPPED)
    with pytest.raises(
        BadInput, match=f"the margin {beyond:g} of '{name}' decides nothing, for its values lie between"
    ):
        check_margins(policy)


def test_no_waiver_lets_every_model_pass(tmp_path: Path) -> None:
    check_margins(load_policy(overlay(tmp_path, WAIVED.format(bound=0.9)), profile="pr"))
    with pytest.raises(BadInput, match="the waiver's bound 2 of 'wall/leakage' decides nothing"):
        check_margins(load_policy(overlay(tmp_path, WAIVED.format(bound=2.0)), profile="pr"))
