"""Where the suite lies: the questions, what they are asked of, and the reports, which are not top-level packages here.

In a checkout they lie beside `camcore`; the wheel carries them in `camcore/_suite`, as their names (`audits`,
`fixtures`, `reports`) are too general to occupy in somebody's site-packages. They become importable where `enter` is
called, and only there.
"""

import sys
from pathlib import Path
from types import ModuleType

from camcore.errors import BadInput

PACKAGES = ("audits", "fixtures", "reports")
PARTS = (*(f"{name}/__init__.py" for name in PACKAGES), "conftest.py")


def suite() -> Path:
    """The folder that holds `audits`, `fixtures`, `reports` and `conftest.py`.

    Raises:
        BadInput: Neither the wheel nor a checkout is around this file.
    """
    here = Path(__file__).resolve().parent
    for folder in (here.parent, here / "_suite"):
        if all((folder / part).is_file() for part in PARTS):
            return folder
    raise BadInput(
        f"the audits are neither beside {str(here)!r} nor in it; install camcore's wheel, or run from its checkout"
    )


def enter() -> Path:
    """Make the suite's packages importable in this process; returns its folder. A second call changes nothing.

    Raises:
        BadInput: There is no suite, or somebody else's package of one of these names is imported already.
    """
    folder = suite()
    for name in PACKAGES:
        module = sys.modules.get(name)
        if module is not None and folder / name not in _places(module):
            raise BadInput(
                f"a package {name!r} that is not camcore's is imported already, from {_whence(module)!r}; "
                f"run the audits in a process that does not import it"
            )
    sys.path[:] = [str(folder), *(path for path in sys.path if path != str(folder))]
    return folder


def _places(module: ModuleType) -> list[Path]:
    """The folders of a package; none of a plain module."""
    return [Path(path).resolve() for path in getattr(module, "__path__", ())]


def _whence(module: ModuleType) -> str:
    return str(next(iter(_places(module)), getattr(module, "__file__", None) or "nowhere"))
