"""`CONFORMANCE=path.py:ADAPTER pytest tests/conformance` puts every property to yours; unset, to camcore."""

import os
import warnings

import pytest

from tests.conformance import formulas, manners, symmetries  # noqa: F401  (they register the properties)
from tests.conformance.adapter import find_adapter
from tests.conformance.suite import PROPERTIES, ask

ADAPTER = find_adapter(os.environ.get("CONFORMANCE", "camcore"))
ASKED = [(name, method) for name, one in PROPERTIES.items() for method in one.methods if method in ADAPTER.methods]


@pytest.mark.parametrize(("name", "method"), ASKED)
def test_property(name: str, method: str) -> None:
    if reason := ADAPTER.missing():
        pytest.skip(reason)
    with warnings.catch_warnings():
        if ADAPTER.name != "camcore":
            warnings.simplefilter("default")  # what others warn about is theirs
        outcome = ask(ADAPTER, name, method)
    if outcome.kind == "not asked":
        pytest.skip(outcome.detail)
    if outcome.kind == "exception":
        pytest.xfail(outcome.detail)
    assert outcome.kind == "ok", f"{PROPERTIES[name].sentence} {outcome.detail}"
