"""Whatever a results.json holds, `reports` answers with a page or with one line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reports import markdown, model_card, sarif, schema
from reports.command import main
from tests.test_reports_example import claim, curve
from tests.test_reports_example import example as made_by_hand

SMALL = json.dumps(made_by_hand([claim(0, evidence=[curve()]), claim(2)]))
STRANGE: tuple[Any, ...] = (
    None,
    True,
    "",
    "\0\x1b[31m\u202e</script>",
    "x" * 2000,
    -1,
    0,
    10**30,
    1e308,
    -1e308,
    5e-324,
    math.nan,
    math.inf,
    [],
    {},
    [[]],
    {"": {}},
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything in a tree, itself excepted."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree[:3]) if isinstance(tree, list) else ()
    return [place for key, value in inner for place in ((*at, key), *places(value, (*at, key)))]


WHERE = places(json.loads(SMALL))


def planted(where: tuple[Any, ...], what: Any) -> bytes:
    """The example with one thing put in place of another."""
    tree = json.loads(SMALL)
    inner = tree
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = what
    return json.dumps(tree).encode("utf-8", errors="surrogatepass")


def answers(folder: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """All commands on one file: 0 and a page, 1 for a diff, or 2 and one line."""
    for name in ("old", "new"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "old" / "results.json").write_text(SMALL, encoding="utf-8")
    file = folder / "new" / "results.json"
    file.write_bytes(content)
    outside = folder / "out.html"
    commands = [
        ["render", str(file)],
        ["diff", str(folder / "old" / "results.json"), str(file)],
        ["diff", str(file), str(folder / "old" / "results.json")],
        ["trend", str(folder / "new")],
    ]
    for words in commands:
        outside.unlink(missing_ok=True)
        code = main([*words, "-o", str(outside)])
        told = capsys.readouterr()
        assert code in ((0, 1, 2) if words[0] == "diff" else (0, 2)), words
        assert outside.exists() == (code != 2)
        assert told.err.count("\n") == (code == 2)
        assert all(line.isprintable() for line in (told.out + told.err).splitlines())


def exported(content: bytes, file: Path) -> None:
    """What a run writes beside its report, if the file is a results.json."""
    file.write_bytes(content)
    try:
        results = schema.load(file)
    except schema.BadResults:
        return
    assert json.loads(sarif.sarif(results))
    assert json.loads(model_card.model_index(results))
    assert markdown.summary(results)


fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=25)


@given(content=st.binary(max_size=60) | ANY_JSON.map(lambda tree: json.dumps(tree).encode("utf-8", "surrogatepass")))
@example(content=b"")
@example(content=b"\xff\xfe{")
@example(content=b'{"schema_version": "1.1\x00"}')
@example(content=b"[" * 100_000)
@example(content=b'{"run":' * 100_000)
@example(content=b'{"exit_code": 1' + b"0" * 5000 + b"}")
@example(content=b'"\\ud800"')
@fuzzed
def test_a_file_that_is_no_results_json_is_one_line(content, tmp_path, capsys):
    answers(tmp_path, content, capsys)


@given(share=st.floats(0, 0.999), junk=st.binary(max_size=4))
@fuzzed
def test_half_a_file_is_one_line(share, junk, tmp_path, capsys):
    answers(tmp_path, SMALL.encode()[: int(share * len(SMALL))] + junk, capsys)


@pytest.mark.slow
@given(where=st.sampled_from(WHERE), what=st.sampled_from(STRANGE))
@settings(fuzzed, max_examples=60)
def test_one_strange_thing_anywhere_is_a_page_or_one_line(where, what, tmp_path, capsys):
    content = planted(where, what)

    answers(tmp_path, content, capsys)
    exported(content, tmp_path / "results.json")


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e308, -1e308, 5e-324, 1e-300, 1e17])
def test_numbers_at_the_ends_of_what_a_float_holds_are_drawn_or_told(size, tmp_path, capsys):
    extreme = {
        "values": [size, -size, 0.0],
        "units": ["a", "b", "c"],
        "bounds": [-abs(size), abs(size)],
        "margin": size,
        "estimate": {"point": size, "low": -abs(size), "high": abs(size), "level": 0.9, "n": 3, "interval": "betting"},
        "evidence": [curve() | {"x": [-size, 0.0, size], "series": {"a": [size, None, -size]}}],
        "verdict": "FAIL",
    }
    content = json.dumps(made_by_hand([claim(0, **extreme), claim(1, **extreme, severity="warn")])).encode()

    answers(tmp_path, content, capsys)
    exported(content, tmp_path / "results.json")
