"""How the suite asks an implementation for a map, and how an implementation is found by name."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

# (method, module in eval mode, name of the layer, network input (b, 3, h, w), class of each (b,)) -> map (b, i, j)
Explain = Callable[[str, nn.Module, str, Tensor, Tensor], Tensor]

METHODS = (
    "cam",
    "gradcam",
    "gradcam_plus_plus",
    "xgradcam",
    "hirescam",
    "layercam",
    "eigencam",
    "eigengradcam",
    "scorecam",
    "ablationcam",
)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One implementation: what it offers, in what state its maps come, and where it says that it differs."""

    name: str
    explain: Explain
    methods: tuple[str, ...]  # those of METHODS that it offers, under the suite's names
    # signed: the paper's sum as it is. rectified: negative saliency is 0. unit_range: rectified, then each map
    # stretched from 0 to 1. The suite does the same to what it expects, and asks nothing that such a map cannot answer.
    gives: Literal["signed", "rectified", "unit_range"] = "signed"
    # "property" or "property/method" -> why it does not hold here. A declaration that is not needed is a failure.
    exceptions: Mapping[str, str] = field(default_factory=dict)
    requires: str = ""  # the package that must be installed

    def missing(self) -> str:
        """Why it cannot be asked on this machine; empty if it can."""
        return f"{self.requires} is not installed" if self.requires and find_spec(self.requires) is None else ""


def find_adapter(spec: str) -> Adapter:
    """The adapter that `spec` names: one of tests/conformance/adapters, "module:name" or "path.py:name".

    Raises:
        ValueError: There is none.
    """
    where, _, name = spec.rpartition(":")
    if not where:
        where, name = f"tests.conformance.adapters.{spec}", "ADAPTER"
    try:
        found = getattr(_load(where), name)
    except (ImportError, AttributeError, FileNotFoundError) as problem:
        known = sorted(path.stem for path in (Path(__file__).parent / "adapters").glob("[a-z]*.py"))
        raise ValueError(
            f"no adapter {spec!r} ({problem}); expected one of {', '.join(known)}, module:name or path.py:name"
        ) from None
    if not isinstance(found, Adapter):
        raise ValueError(f"{spec!r} is {type(found).__name__}, expected a tests.conformance.adapter.Adapter")
    if unknown := set(found.methods) - set(METHODS):
        raise ValueError(f"{spec!r} offers {', '.join(sorted(unknown))}, which the suite does not know: {METHODS}")
    return found


def _load(where: str) -> Any:
    if not where.endswith(".py"):
        return importlib.import_module(where)
    path = Path(where)
    if not path.is_file():
        raise FileNotFoundError(f"no file {where}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
