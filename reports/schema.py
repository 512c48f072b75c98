"""results.json: the records that it holds, reading and writing them, and their JSON Schema."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reports.records import (
    UNSHOWN,
    Answer,
    Audit,
    Calibration,
    Claim,
    Curve,
    Estimate,
    Overlay,
    Results,
    Subject,
    Table,
)

__all__ = [
    "UNSHOWN",
    "Answer",
    "Audit",
    "BadResults",
    "Calibration",
    "Claim",
    "Curve",
    "Estimate",
    "Overlay",
    "Results",
    "Subject",
    "Table",
    "dump",
    "json_schema",
    "json_schema_text",
    "load",
    "write_atomically",
]


class BadResults(ValueError):
    """The file is not a results.json that this version reads. One line."""


def load(path: Path | str) -> Results:
    """Read a results.json.

    Raises:
        BadResults: The file cannot be read, is no JSON, or breaks the schema; the message is one line.
    """
    try:
        return Results.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise BadResults(f"expected a results.json, cannot read {str(path)!r}: {error.strerror or error}") from None
    except ValidationError as error:
        raise BadResults(f"expected a results.json (schema 1.0 to 1.2), got {str(path)!r}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    """The first complaint in one line: where, what, and the start of what was there."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    given = repr(first["input"])
    given = given if len(given) <= 60 else f"{given[:57]}..."
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return " ".join(f"{place}: {first['msg']}, got {given}{more}".split())


def dump(results: Results, path: Path | str) -> None:
    """Write results.json whole or not at all: a reader never sees half a file.

    Raises:
        OSError: The folder does not exist or cannot be written; nothing is left behind.
    """
    write_atomically(results.model_dump_json() + "\n", Path(path))


def write_atomically(text: str, path: Path) -> None:
    """Write next to the target, then rename over it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def json_schema() -> dict[str, Any]:
    """The JSON Schema of results.json, as published in docs/results.schema.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Results.model_json_schema()}


def json_schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
