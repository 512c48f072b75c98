"""Policies and results that are damaged, foreign or made up: one line, or a run that is judged as any other."""

import json
from collections.abc import Iterator
from copy import deepcopy
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audits import test_wall as wall
from audits.baseline import compared, find_baseline
from audits.judge_again import judge_again
from audits.options import OPTIONS, Settings, read_settings
from audits.policy import SHIPPED, Policy, load_policy
from audits.project import find_project
from camcore.errors import BadInput
from reports import schema
from tests.test_judge_again import measured

FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TODAY = date(2030, 1, 1)
SHIPPED_TEXT = SHIPPED.read_text(encoding="utf-8")

KEYS = st.sampled_from(
    [
        "level",
        "min_images",
        "worse",
        "required",
        "profiles",
        "claims",
        "waivers",
        "version",
        "x",
        "\x1b[2J",
        "\u202e",
        "",
    ]
)
SCALARS = st.one_of(
    st.text(max_size=20).map(json.dumps),
    st.floats().map(lambda value: f"{value!r}"),
    st.integers().map(str),
    st.sampled_from(["true", "nan", "-inf", "2027-01-31", "2027-01-31T00:00:00Z", "9" * 5000, "'''\n'''", "[]", "{}"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda found: f"[{', '.join(found)}]"),
        st.dictionaries(KEYS, inner, max_size=3).map(
            lambda found: "{" + ", ".join(f"{json.dumps(key)} = {value}" for key, value in found.items()) + "}"
        ),
    ),
    max_leaves=6,
)
LINES = st.one_of(
    st.tuples(KEYS, VALUES).map(lambda pair: f"{json.dumps(pair[0])} = {pair[1]}"),
    st.tuples(KEYS, KEYS).map(lambda pair: f"[{json.dumps(pair[0])}.{json.dumps(pair[1])}]"),
    st.sampled_from(
        ["[[waivers]]", "[profiles.pr]", '[claims."wall/leakage"]', 'claim = "wall/leakage[*]"', "bound = 1"]
    ),
    st.text(max_size=30),
)


def judged(content: bytes) -> Policy | str:
    """The policy, or what is said of a file with that content."""
    with TemporaryDirectory() as made:
        file = Path(made) / "policy.toml"
        file.write_bytes(content)
        try:
            return load_policy(file, profile="pr")
        except BadInput as problem:
            return one_line(str(problem).replace(made, ""))


def one_line(message: str) -> str:
    assert message.isprintable()
    assert 0 < len(message) < 1000
    return message


@pytest.mark.slow
@FUZZ
@given(st.lists(LINES, max_size=6))
def test_any_toml_is_a_policy_or_one_line(lines: list[str]) -> None:
    found = judged("\n".join(lines).encode("utf-8", "surrogatepass"))

    assert isinstance(found, str) or 0.5 < found.level < 1


@pytest.mark.slow
@FUZZ
@given(st.integers(0, len(SHIPPED_TEXT)), st.integers(0, 40), st.binary(max_size=6))
def test_the_shipped_policy_with_a_piece_exchanged_is_a_policy_or_one_line(at: int, less: int, more: bytes) -> None:
    content = SHIPPED_TEXT.encode()
    found = judged(content[:at] + more + content[at + less :])

    assert isinstance(found, str) or found.claims.keys() == load_policy(None, profile="pr").claims.keys()


def asked(content: bytes) -> Settings | str:
    """What a pyproject.toml with that content comes to, with the policy that it lays over ours; or what is said."""
    with TemporaryDirectory() as made:
        Path(made, "pyproject.toml").write_bytes(content)
        try:
            settings = read_settings({}, {}, project=find_project(Path(made)))
            load_policy(None, profile=settings.profile, under=settings.laid_under)
        except BadInput as problem:
            return one_line(str(problem).replace(made, ""))
        return settings


OWN = st.tuples(st.sampled_from([option.name for option in OPTIONS]), VALUES).map(" = ".join)


@pytest.mark.slow
@FUZZ
@given(st.lists(st.one_of(OWN, LINES), max_size=6), st.sampled_from(["[audit]", "[tool.camcore.audit]", "[audit", ""]))
def test_any_pyproject_is_settings_or_one_line(lines: list[str], table: str) -> None:
    found = asked("\n".join([table, *lines]).encode("utf-8", "surrogatepass"))

    assert isinstance(found, str) or abs(found.seed) <= 2**63


@pytest.mark.slow
@FUZZ
@given(
    st.sampled_from([option.name for option in OPTIONS]), st.integers(1, 6000), st.sampled_from(["0x", "", "-", "1e"])
)
def test_a_number_of_any_length_is_settings_or_one_line(key: str, digits: int, before: str) -> None:
    found = asked(f"[audit]\n{key} = {before}{'9' * digits}".encode())

    assert isinstance(found, str) or digits < 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured(tmp_path_factory.mktemp("finished"), margin_of=load_policy(None, profile="pr"))


ODD: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        2**70,
        1e308,
        -0.5,
        "",
        "wall/none[x]",
        "wall",
        "a" * 10_000,
        "\x1b[2J<b>\n",
        "\u202e",
        [],
        {},
    ),
    *(["a"], [1.0], [0.5, 0.5], "PASS", "FAIL", "boxes", "release", [7e300] * 64, [None] * 64, ["same"] * 64),
]
# by number: a failing case is printed, and some of the values are long
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, len(ODD) - 1)), min_size=1, max_size=2)


def paths(inside: Any, *before: str | int) -> Iterator[tuple[str | int, ...]]:
    """The place of every value in a document, of long lists the first two."""
    for key in inside if isinstance(inside, dict) else range(min(2, len(inside))):
        yield (*before, key)
        if isinstance(inside[key], dict | list):
            yield from paths(inside[key], *before, key)


def changed(results: dict[str, Any], changes: list[tuple[int, int]]) -> dict[str, Any]:
    """A copy with some values exchanged for odd ones."""
    copy: dict[str, Any] = deepcopy(results)
    for place, odd in changes:
        every = list(paths(copy))
        *above, last = every[place % len(every)]
        inside: Any = copy
        for key in above:
            inside = inside[key]
        inside[last] = deepcopy(ODD[odd])  # the next change may be made within it
    return copy


def loaded(content: dict[str, Any]) -> schema.Results | None:
    """As a run reads it; None where it is refused in one line."""
    with TemporaryDirectory() as made:
        file = Path(made) / "results.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        try:
            return schema.load(file)
        except schema.BadResults as problem:
            one_line(str(problem).replace(made, ""))
            return None


@pytest.mark.slow
@FUZZ
@given(CHANGES)
def test_any_results_are_judged_again_or_refused_in_one_line(
    finished: dict[str, Any], changes: list[tuple[int, int]]
) -> None:
    results = loaded(changed(finished, changes))
    if results is None:
        return
    try:
        policy = load_policy(None, profile=results.run.profile)
        again = judge_again(results.model_dump(), policy, command="again", today=TODAY)
    except BadInput as problem:
        said = one_line(str(problem))
    else:
        said = schema.Results.model_validate(again).verdict
    assert said


@pytest.mark.slow
@FUZZ
@given(CHANGES)
def test_any_results_are_a_baseline_or_refused_in_one_line(
    finished: dict[str, Any], changes: list[tuple[int, int]]
) -> None:
    old = next(one for one in finished["claims"] if one["values"])
    claim = wall.LEAKAGE.claim("hirescam", load_policy(None, profile="pr").claims["wall/leakage"])
    values = dict(zip(old["units"], old["values"], strict=True))
    data = finished["subjects"][0]["data"]
    results = loaded(changed(finished, changes))
    if results is None:
        return
    try:
        asked_now = {"seed": 0, "profile": "pr", "per_image": load_policy(None, profile="pr").per_image, "data": data}
        found = find_baseline(results.model_dump(), "a", only=True, **asked_now)
    except BadInput as problem:
        said = one_line(str(problem))
    else:
        said = compared(claim, values, wall.VERSION, found, worse=0.05, level=0.99, least=16).outcome.value
    assert said
