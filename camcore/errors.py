"""What is raised when the user, not the code, has to do something."""


class BadInput(ValueError):
    """What the user gave cannot be used: one line: what was expected, what came, what to do. Exit code 4."""
