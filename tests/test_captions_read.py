"""Captions that a model reads the beginning of alone: told by name, and counted as the worst case."""

from pathlib import Path

import pytest

from camcore.testing import audit_model
from fixtures.vision_language.tiny_clip import save_tiny_clip
from reports.schema import Results
from tests import captions_folders as folders

LONG = "a mug " * 70  # more than the 64 tokens that the model reads
COUNT = 24


def audited(tmp_path: Path, long: set[int]) -> Results:
    """Pairs of two pictures and their two captions, the first of each pair with a long caption where `long` has it."""
    lines = ""
    for n in range(COUNT):
        for side, tail in (("left", LONG if n in long else ""), ("right", "")):
            folders.picture(tmp_path / f"{n}{side}.png", 10 * n + (side == "left"))
            lines += f"{n}{side}.png,a mug {side} of a plate {n} {tail},,{n},side\n"
    folders.table(tmp_path, "file,caption,foil,group,relation\n" + lines)
    model = f"hf:{save_tiny_clip(tmp_path / 'clip')}"
    return audit_model(model, data=str(tmp_path / "captions.csv"), audits=["captions", "binding"])


@pytest.mark.slow
def test_an_item_with_a_long_caption_counts_as_the_worst_case_and_the_others_are_judged(tmp_path: Path) -> None:
    found = {claim.id: claim for claim in audited(tmp_path, {3}).claims}

    for name, worst in (("captions/choice", -1), ("binding/interaction", 0), ("binding/group", 0)):
        claim = found[name]
        assert claim.verdict in ("FAIL", "INCONCLUSIVE"), claim.reason
        assert "1 of 24 images count as the worst case: 1 caption longer than the model reads" in claim.reason
        assert claim.values.count(None) == 1
        judged = [value for value in claim.values if value is not None]
        assert claim.estimate.point == pytest.approx((sum(judged) + worst) / COUNT)
        assert any(one.type == "table" for one in claim.evidence)
        assert not any(LONG[:40] in (one.caption or "") for one in claim.evidence if one.type == "overlay")


@pytest.mark.slow
def test_an_item_whose_foil_differs_in_case_alone_is_wrong_and_the_others_are_judged(tmp_path: Path) -> None:
    lines = "file,caption,foil,group,relation\n"
    for n in range(COUNT):
        folders.picture(tmp_path / f"{n}a.png", 10 * n)
        folders.picture(tmp_path / f"{n}b.png", 10 * n + 1)
        other = f"A MUG {n}  left" if n == 3 else f"a mug right {n}"
        lines += f"{n}a.png,a mug {n} left,,{n},side\n{n}b.png,{other},,{n},side\n"
    folders.table(tmp_path, lines)
    model = f"hf:{save_tiny_clip(tmp_path / 'clip')}"
    found = audit_model(model, data=str(tmp_path / "captions.csv"), audits=["captions", "binding"])

    judged = {claim.id: claim for claim in found.claims if claim.verdict != "NOT_APPLICABLE"}
    assert set(judged) == {"captions/choice", "captions/needs_picture", "binding/interaction", "binding/group"}
    for name, value in (("captions/choice", -1), ("binding/interaction", 0), ("binding/group", 0)):
        claim = judged[name]
        assert claim.verdict in ("FAIL", "INCONCLUSIVE"), claim.reason
        assert [worth for unit, worth in zip(claim.units, claim.values, strict=True) if unit.endswith("-3")] == [value]
        assert None not in claim.values


@pytest.mark.slow
def test_too_many_long_captions_are_an_error_that_says_so(tmp_path: Path) -> None:
    for long, how_many in (({3, 7}, 2), (set(range(COUNT)), COUNT)):
        found = {claim.id: claim for claim in audited(tmp_path / str(how_many), long).claims}
        for name in ("captions/choice", "captions/needs_picture", "binding/interaction", "binding/group"):
            assert found[name].verdict == "ERROR"
            assert f"{how_many} caption longer than the model reads" in found[name].reason


@pytest.mark.slow
def test_a_run_says_what_became_of_the_sides_of_the_pictures(tmp_path: Path) -> None:
    (subject,) = audited(tmp_path, set()).subjects

    assert "its processor would cut the picture to the middle" in subject.preprocess
