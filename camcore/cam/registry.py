"""The names under which methods are asked for."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from camcore.errors import BadInput
from camcore.recording import Recording

CamMethod = Callable[[Recording], Float[Tensor, "b i j"]]
_Method = TypeVar("_Method", bound=CamMethod)  # a method may have options of its own, and keeps its signature

METHODS: dict[str, CamMethod] = {}  # every method
RECORDED: dict[str, CamMethod] = {}  # those that need nothing but the recording, and so cost nearly nothing
PARTIAL: dict[str, CamMethod] = {}  # those that some models have no such map of: they raise Undefined


def register(method: _Method) -> _Method:
    """Make a method that reads the recording alone selectable by its function name."""
    RECORDED[method.__name__] = method
    return register_asking(method)


def register_asking(method: _Method) -> _Method:
    """Make a method that asks the model again, many times per image, selectable by its function name."""
    METHODS[method.__name__] = method
    return method


def register_partial(method: _Method) -> _Method:
    """Make a method selectable that asks little, but of some models only: of the others it raises `Undefined`."""
    PARTIAL[method.__name__] = method
    return register_asking(method)


def find_cam(name: str) -> CamMethod:
    """The method of that name.

    Raises:
        BadInput: No such method; the message suggests the nearest.
    """
    if name in METHODS:
        return METHODS[name]
    near = get_close_matches(name.lower().replace("-", "").replace("_", ""), METHODS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise BadInput(f"no CAM method named {name!r}; {hint}known: {', '.join(sorted(METHODS))}, or all")
