"""Where extensions meet pytest: which plugins add any, and how their audits are collected."""

from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import entry_points
from types import ModuleType

import pytest

from audits import catalogue
from audits.extensions import LOADED, Extension, loaded
from audits.options import quoted
from camcore.errors import BadInput, one_line

GROUP = "camcore_audits"  # entry points of installed plugins; others are named with -p


def load(config: pytest.Config) -> None:
    """Make what the plugins of this run add a part of the suite, to the end of the run.

    Raises:
        BadInput: See `found` and `audits.extensions.loaded`.
    """
    if not LOADED:
        stack = ExitStack()
        stack.enter_context(loaded(found(config)))
        config.add_cleanup(stack.close)


def found(config: pytest.Config) -> list[Extension]:
    """What the plugins of this run add; those that are installed under our entry point are loaded first.

    Raises:
        BadInput: A plugin cannot be loaded, or breaks when it is asked.
    """
    manager = config.pluginmanager
    for entry in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        if manager.is_blocked(entry.name):  # -p no:NAME
            continue
        try:
            plugin = entry.load()
        except Exception as problem:
            raise BadInput(
                f"the plugin {entry.name!r} cannot be loaded ({one_line(problem)}); mend it, or pass -p no:{entry.name}"
            ) from None
        if not manager.is_registered(plugin):
            manager.register(plugin, entry.name)
    try:
        given: list[Extension] = config.hook.pytest_audit_register()
    except Exception as problem:
        raise BadInput(f"a plugin's pytest_audit_register broke: {one_line(problem)}") from None
    return given[::-1]  # pluggy asks whoever came last first


def repeated(command: str, item: pytest.Item, config: pytest.Config) -> str:
    """The command line that repeats one test: with the same plugins, as the family counts their claims."""
    if LOADED:
        named = (name for name in config.option.plugins if not name.startswith("no:"))
        command = " ".join([command, *(f"-p {quoted(name)}" for name in named)])
    if isinstance(item.parent, AddedAudit):  # whose file lies elsewhere
        return f'{command} audits -k "{item.name}"'
    return f'{command} "{item.nodeid}"'


class AddedAudit(pytest.Module):
    """An audit of an extension, collected as if its file lay in audits/, where hooks and fixtures reach it."""

    added: ModuleType

    def _getobj(self) -> ModuleType:
        return self.added


class AuditsFolder(pytest.Package):
    """audits/, with the audits of extensions after those that lie there."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """As the folder's own."""
        yield from super().collect()
        for name, module in sorted(catalogue.ADDED.items()):
            file = f"test_{name}.py"
            # pytest finds the conftest.py of a file that exists
            node = AddedAudit.from_parent(
                self, path=self.path / "__init__.py", name=file, nodeid=f"{self.nodeid}/{file}"
            )
            node.added = module
            yield node
