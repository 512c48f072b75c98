"""The two ways a run can be refused: the input was bad, or an image gave nothing to judge."""


class BadInput(ValueError):
    """What the user gave cannot be used. One line: what was expected, what came (quoted), what to do. Ends in exit code 4."""
