"""CAM methods: functions `Recording -> map`, signed, at the layer's resolution, registered under their names.

Every module of this package is imported here, so that a new method is one function in one file.
"""

import pkgutil
from importlib import import_module

from camcore.cam.registry import METHODS, RECORDED, CamMethod, find_cam, register, register_asking

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

globals().update(METHODS)  # cam.gradcam(recording)

__all__ = ["METHODS", "RECORDED", "CamMethod", "find_cam", "register", "register_asking", *sorted(METHODS)]
