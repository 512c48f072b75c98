"""Classes as people name them."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from camcore.errors import BadInput

MOST = 4  # suggestions in a message


def find_class(text: str, classes: Sequence[str]) -> int:
    """The index of a class given by index or by name; case, `_` and `-` do not matter in a name.

    A number is an index, also where a class is called by a number.

    Raises:
        BadInput: Out of range, unknown (the message names the nearest), or the name of several classes.
    """
    if re.fullmatch(r"\s*[+-]?[0-9]+\s*", text):
        index = int(text) if len(text) < 20 else -1
        if 0 <= index < len(classes):
            return index
        raise BadInput(f"class {text!r} is out of range; the model has classes 0 to {len(classes) - 1}")
    known = [_plain(name) for name in classes]
    wanted = _plain(text)
    found = [index for index, name in enumerate(known) if name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(f"{len(found)} classes are called {text!r}: give the index, {_or(map(str, found))}")
    within = [index for index, name in enumerate(known) if wanted and wanted in name]
    within.sort(key=lambda index: f" {wanted} " not in f" {known[index]} ")  # whole words first
    near = within[:MOST] or [known.index(name) for name in get_close_matches(wanted, known, n=MOST, cutoff=0.6)]
    if near:
        raise BadInput(f"no class is called {text!r}; did you mean {_or(f'{classes[i]!r} ({i})' for i in near)}?")
    some = ", ".join(repr(name) for name in classes[:MOST]) + (", …" if len(classes) > MOST else "")
    raise BadInput(f"no class is called {text!r}, and none looks like it; the model has {len(classes)}: {some}")


def class_label(index: int, classes: Sequence[str]) -> str:
    """A class's name, with its index where the name alone would not do."""
    if index >= len(classes):
        return f"class {index}"
    name = classes[index]
    return f"{name} ({index})" if not name.strip() or list(classes).count(name) > 1 else name


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _or(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
