"""The user's errors, and any error on one line."""

from collections.abc import Sequence

LONGEST = 300  # characters of a message that anybody reads
QUOTED = 100  # of a value


class BadInput(ValueError):
    """What the user gave cannot be used. One line: what was expected, what came, what to do. Exit code 4."""


class Undefined(ValueError):
    """The method is not defined for this model. One line: what it needs, what the model has, what to use instead."""


class Unreliable(ValueError):
    """What would be measured says nothing about this model. One line: what was checked, and how it came out."""


class TooLong(ValueError):
    """The model would read a caption's beginning alone. One line: the caption, its tokens, how many are read."""


def printable(text: str) -> str:
    """On one line, without control characters, marks that turn the reading direction, and halves of characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def one_line(error: BaseException) -> str:
    """The type and the message of an error, cut to fit on one line, without control characters."""
    message = " ".join(printable(str(error)).split())
    if len(message) > LONGEST:
        message = message[:LONGEST].rstrip() + "…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def shown(value: object) -> str:
    """A value of the user's as a message quotes it."""
    try:
        return f"{value!r:.{QUOTED}}"
    except ValueError:  # Python writes no number of thousands of digits
        return "a number beyond all bounds"


def some(values: Sequence[object]) -> str:
    """The first three of the user's values as a message quotes them, and whether there are more."""
    return ", ".join(map(shown, values[:3])) + (", …" if len(values) > 3 else "")
