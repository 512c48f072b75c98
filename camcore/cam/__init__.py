"""Saliency methods: functions `Recording -> map`, signed, in cells of the layer or in pixels, registered by name.

Every module of this package is imported here, so that a new method is one function in one file.
"""

import pkgutil
from importlib import import_module

from camcore.cam.registry import (
    METHODS,
    PARTIAL,
    RECORDED,
    CamMethod,
    find_cam,
    register,
    register_asking,
    register_partial,
)

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

globals().update(METHODS)  # cam.gradcam(recording)

__all__ = [
    "METHODS",
    "PARTIAL",
    "RECORDED",
    "CamMethod",
    "find_cam",
    "register",
    "register_asking",
    "register_partial",
    *sorted(METHODS),
]
