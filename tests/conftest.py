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
