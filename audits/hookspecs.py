"""What a plugin of pytest can add to a run of the audits, and what it is told. See docs/plugins.md.

A plugin marks its functions with `@pytest.hookimpl(optionalhook=True)`: it may be loaded where no audits are run.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # whoever only lists tests loads no models
    from audits.extensions import Extension


@pytest.hookspec
def pytest_audit_register() -> "Extension":
    """What this plugin adds (audits, controls, kinds of models): asked once, before anything is loaded."""


@pytest.hookspec
def pytest_audit_claim(claim: Mapping[str, Any]) -> None:
    """A claim is concluded and journalled.

    Called in the process that asked it. The mapping is the claim's entry of results.json, less what only the whole run
    knows (`p_holm`, `controls`); it is for reading.
    """
