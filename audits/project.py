"""What the user's own pyproject.toml says of audits: its table `[audit]`, of options and of the policy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audits.options import OPTIONS, Option, Project
from audits.policy import PolicyFile, read_toml
from camcore.errors import BadInput, shown
from fixtures.subjects.registry import nearest

KEYS = {option.name: option for option in OPTIONS}


def find_project(folder: Path) -> Project | None:
    """The nearest pyproject.toml that has an `[audit]`, in this folder or above it.

    `[tool.camcore.audit]` is the same, for projects whose other tools allow no tables but their own.

    Raises:
        BadInput: A file on the way cannot be read or has both tables, a key is unknown, or an option's value is of the
            wrong type. What the policy's keys may be is for `load_policy` to say.
    """
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        table = _table(path) if path.is_file() else None
        if table is not None:
            return _project(table, path, here=place == folder)
    return None


def _table(path: Path) -> dict[str, Any] | None:
    content = read_toml(path, f"{str(path)!r}, which may say how to audit,")
    tool = content.get("tool", {})
    camcore = tool.get("camcore", {}) if isinstance(tool, dict) else {}
    found = [table["audit"] for table in (content, camcore) if isinstance(table, dict) and "audit" in table]
    if len(found) > 1:
        raise BadInput(f"{str(path)!r} has both [audit] and [tool.camcore.audit]; keep one of them")
    if found and not isinstance(found[0], dict):
        raise BadInput(f"{str(path)!r}: audit must be a table, got {shown(found[0])}")
    return found[0] if found else None


def _project(table: Mapping[str, Any], path: Path, *, here: bool) -> Project:
    where = f"{path} [audit]"
    known = [*KEYS, *PolicyFile.model_fields]
    for key in table:
        if key not in known:
            raise BadInput(f"{where}: unknown key {key!r}; {nearest(key, known)}")
    options = {key: _checked(KEYS[key], value, where) for key, value in table.items() if key in KEYS}
    if not here:
        options = {key: _placed(KEYS[key], value, path.parent) for key, value in options.items()}
    return Project(where=where, options=options, policy={key: table[key] for key in table if key not in KEYS})


def _checked(option: Option, value: Any, where: str) -> Any:
    """The value of an option, as the command line would have given it."""
    if option.many and isinstance(value, str):
        value = [value]
    right = (
        isinstance(value, list) and all(isinstance(one, str) for one in value)
        if option.many
        else type(value) is (bool if option.is_flag else option.convert)
    )
    if not right:
        kind = "a list of strings" if option.many else "true or false" if option.is_flag else option.convert.__name__
        raise BadInput(f"{where}: {option.name} must be {kind}, got {shown(value)}")
    return value


def _placed(option: Option, value: Any, folder: Path) -> Any:
    """A path that is meant from the file's folder, from a folder below it; a spec only where there is such a file."""
    if isinstance(value, list):
        return [_placed(option, one, folder) for one in value]
    if option.metavar in ("FILE", "DIR", "FOLDER"):
        return str(folder / Path(value).expanduser())
    is_spec = option.flag in ("--data", "--weights")
    return str(folder / value) if is_spec and (folder / value).exists() else value
