"""Photographs with a relation each, written as a folder that `--data` takes.

    python -m benchmarks.binding_photographs DIR OUT
    pytest audits -k "test_binding or test_captions or test_grounding" --data OUT --model SPEC

DIR holds a labels.csv with file, object, relation and reference; OUT gets the photographs and a captions.csv. Caption
and foil say the relation and its opposite; two photographs of the same things in opposite relations are a group. Of
photographs in `binding_boxes` the caption's two things are to be found, too: OUT gets a phrases.csv, where photographs
of one series, the same things in one room, are a group.
"""

import argparse
import csv
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.binding_boxes import BOXES
from camcore.errors import BadInput
from fixtures.datasets.boxes import EDGES
from fixtures.datasets.table import read_table

SAID = {
    "left_of": "to the left of",
    "right_of": "to the right of",
    "on": "on",
    "under": "under",
    "above": "above",
    "below": "below",
    "in_front_of": "in front of",
    "behind": "behind",
    "behind_left_of": "behind and to the left of",
    "in_front_right_of": "in front and to the right of",
}
OPPOSITE = dict(
    zip(SAID, ("right_of", "left_of", "under", "on", "below", "above", "behind", "in_front_of"), strict=False)
)
OPPOSITE |= {"behind_left_of": "in_front_right_of", "in_front_right_of": "behind_left_of"}
COLUMNS = ("file", "caption", "foil", "group", "relation")
SOUGHT = ("file", "caption", "phrase", *EDGES, "group", "foil", "relation")
Row = Mapping[str, str]


def caption(row: Row, relation: str) -> str:
    """What is said of a photograph's things."""
    return f"{_a(row['object'])} {SAID[relation]} {_a(row['reference'])}"


def captions(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The lines of captions.csv: the twin of a photograph is of the same series, things and opposite relation.

    Raises:
        BadInput: A relation that is not known.
    """
    found = []
    for row in rows:
        relation = row["relation"]
        if relation not in SAID:
            raise BadInput(f"{row['file']!r} has the relation {relation!r}; known: {', '.join(SAID)}")
        twins = [other for other in rows if _series(other) == _series(row) and other["relation"] == OPPOSITE[relation]]
        both = "-".join(sorted((relation, OPPOSITE[relation])))
        found.append(
            {
                "file": row["file"],
                "caption": caption(row, relation),
                "foil": caption(row, OPPOSITE[relation]),
                "group": "-".join((*_series(row), both)) if len(twins) == 1 else "",
                "relation": both,
            }
        )
    return found


def phrases(rows: Sequence[Row]) -> list[dict[str, object]]:
    """The lines of phrases.csv: of every photograph with boxes both things, in the caption that is true of it.

    Raises:
        BadInput: A relation that is not known.
    """
    found: list[dict[str, object]] = []
    for row, said in zip(rows, captions(rows), strict=True):
        series = _series(row)
        alone = sum(_series(other) == series for other in rows) == 1
        shared = {**said, "group": "" if alone else "-".join(series)}
        for thing, box in zip(("object", "reference"), BOXES.get(row["file"], ()), strict=False):
            found.append({**shared, "phrase": _a(row[thing]), **dict(zip(EDGES, box, strict=True))})
    return found


def write(source: Path, out: Path) -> Path:
    """Copy the photographs (links out of a folder are not followed) and write their captions, and phrases if any.

    Raises:
        BadInput: No labels.csv as described, or a folder that cannot be written.
    """
    needs = ("file", "object", "relation", "reference")
    if not (source / "labels.csv").is_file():
        raise BadInput(f"{str(source)!r} has no labels.csv; expected one with {', '.join(needs)}")
    rows = read_table(source / "labels.csv", needs=needs, header=", ".join(needs))
    tables = {"captions.csv": (COLUMNS, captions(rows)), "phrases.csv": (SOUGHT, phrases(rows))}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for row in rows:
            (out / row["file"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / row["file"], out / row["file"])
        for name, (columns, lines) in tables.items():
            if lines:
                with (out / name).open("w", newline="", encoding="utf-8") as opened:
                    table = csv.DictWriter(opened, columns)
                    table.writeheader()
                    table.writerows(lines)
    except OSError as problem:
        raise BadInput(f"cannot copy {str(source)!r} to {str(out)!r} ({problem})") from None
    return out


def _series(row: Row) -> tuple[str, str, str]:
    """Photographs of one series have names that are alike up to the relation."""
    return row["file"].partition(row["object"])[0].rstrip("_"), row["object"], row["reference"]


def _a(thing: str) -> str:
    words = thing.replace("_", " ")
    return words if words.endswith("s") else f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="DIR")
    parser.add_argument("out", type=Path, metavar="OUT")
    options = parser.parse_args()
    try:
        print(write(options.source, options.out) / "captions.csv")
    except BadInput as problem:
        print(f"binding_photographs: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
