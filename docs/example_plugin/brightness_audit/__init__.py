"""A plugin of pytest that adds an audit, two controls and a kind of models: `pytest audits -p brightness_audit`."""

from pathlib import Path

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_audit_register():
    """What this plugin adds."""
    # imported here: a plugin is loaded in every session that it is installed for, also where nothing is audited
    from audits.extensions import Extension
    from brightness_audit import controls, models, test_brightness

    return Extension(
        name="brightness_audit",
        version="1.0",
        audits=(test_brightness,),
        policy=Path(__file__).with_name("policy.toml"),
        controls=(controls.DIMMER_STEPS, controls.DIMMER_IGNORED),
        families={"gap": models.load},
    )
