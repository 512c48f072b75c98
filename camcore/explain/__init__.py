"""The small front for people: explain some images and look at the result, from Python, a notebook or the command line.

    from camcore.explain import explain

    explain(subject, images, cams=("hirescam", "gradcam"))  # in a notebook: a sheet of overlays

The one part of camcore that draws, and reads and writes files; `import camcore` does not import it, nor Pillow.
"""

from camcore.explain.classes import find_class
from camcore.explain.explanation import Explanation, explain

__all__ = ["Explanation", "explain", "find_class"]
