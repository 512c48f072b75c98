import socket

import pytest
from hypothesis import settings

# The same examples on every machine and in every run: a red test here is red everywhere.
settings.register_profile("camcore", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("camcore")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run the real command come first: they are the longest, and a process that takes one last is alone.

    xdist, left to itself, begins with the files of the most tests (hence its option in tox.ini).
    """
    items.sort(key=lambda item: not item.path.name.startswith("test_run_"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is found: what a machine without a network says."""

    def refuse(*_args: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
