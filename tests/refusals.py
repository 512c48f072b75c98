"""How bad input is refused: in one short line, without a traceback."""

from collections.abc import Callable
from typing import Any

import pytest

from camcore.errors import BadInput

LONGEST = 600  # characters: paths and specs are quoted whole


def refusal(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The message of the BadInput that a call raises, once shown to be one short line."""
    with pytest.raises(BadInput) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < LONGEST
    return message
