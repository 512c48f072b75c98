"""Saliency that is right, and the measures and statistics to audit a vision model with. Torch in, torch out.

    from camcore import cam, record

    recording = record(subject, images)
    saliency = cam.gradcam(recording)

No files are written, nothing is plotted, nothing is fetched (`camcore.explain`, imported by itself, draws).

What there is is named in `__init__.pyi`, and imported when it is first asked for: `camcore --help` and the reports of
finished runs do not wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
