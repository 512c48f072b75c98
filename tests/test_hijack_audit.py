"""What the audit of hijacking measures, what it costs, and that batches do not matter."""

from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

from audits import test_hijack as audit
from audits.hijack_blind import COLOURS, LENGTHS, NOISES
from audits.hijack_signatures import TRIED
from audits.policy import load_policy
from camcore.cost import metered
from camcore.errors import Undefined
from camcore.images import Batch
from tests.hijacked import FOUND, LEAST, SIGNATURES, batch, subject
from tests.tiny import numbered_dataset


def part(whole: Batch, index: int) -> Batch:
    one = slice(index, index + 1)
    return Batch(images=whole.images[one], labels=whole.labels[one], ids=whole.ids[one], seed=whole.seed, chunk=7)


def test_the_judged_columns_are_one_number_per_image_within_their_bounds() -> None:
    asked = subject()
    columns = audit.hijack(asked, batch(asked), effort=LEAST, found=FOUND)

    for question in audit.QUESTIONS:
        values = columns[question.name.partition("/")[2]]
        assert values.shape == (4,)
        assert ((values >= question.bounds[0]) & (values <= question.bounds[1])).all()
    hit = columns["resists"] == 1
    assert 0 < int(hit.sum()) < 4
    for name, most in (("largest", audit.JUDGED + 1e-3), ("changed", LEAST.area + 0.01), ("ssim", 1.0)):
        assert columns[name][~hit].isnan().all()
        assert columns[name][hit].max() <= most
    assert (columns["ssim"][hit] > 0.9).all()


def test_more_may_be_changed_everywhere_than_in_a_part() -> None:
    asked = subject()
    columns = audit.hijack(asked, batch(asked, 12), effort=LEAST, found=FOUND)

    assert columns["all:4"].mean() >= columns["top:4"].mean()
    assert (columns["loss"] > 0)[columns["top:4"] == 1].any()
    assert columns["loss"].isfinite().all()


def test_what_is_measured_of_an_image_does_not_depend_on_its_batch() -> None:
    asked = subject()
    whole = batch(asked, 3)
    together = audit.hijack(asked, whole, effort=LEAST, found=FOUND)
    for index in range(3):
        alone = audit.hijack(asked, part(whole, index), effort=LEAST, found=FOUND)
        for name, column in together.items():
            torch.testing.assert_close(alone[name][0], column[index], rtol=1e-4, atol=1e-4, equal_nan=True, msg=name)


def test_the_cost_is_at_most_that_of_the_attacks_it_names() -> None:
    asked = subject()
    whole = batch(asked)
    with metered() as cost:
        audit.hijack(asked, whole, effort=LEAST, found=FOUND)

    attacks = 2 * len(LEAST.sizes) + 4
    blind = NOISES + len(LENGTHS) * len(COLOURS) + LEAST.queries
    of_attacks = attacks * LEAST.restarts * (LEAST.steps + 1)
    assert cost.backwards <= 4 * (of_attacks + 1)
    assert cost.forwards <= 4 * (of_attacks + 2 + 2 * (TRIED + 1) + blind)


def test_what_no_claim_is_about_is_tried_on_the_chosen_images_alone() -> None:
    asked = subject()
    whole = batch(asked)
    everywhere = audit.hijack(asked, whole, effort=LEAST, found=FOUND)
    with metered() as cost:
        columns = audit.hijack(asked, whole, effort=LEAST, found=replace(FOUND, beside=frozenset(whole.ids[1:2])))

    for name, values in everywhere.items():
        alone = (
            name.partition(":")[0] in ("anti", "all", "l2", "squares", "target", "signature", "ssim") and ":" in name
        )
        expected = values.masked_fill(torch.arange(4) != 1, torch.nan) if alone else values
        torch.testing.assert_close(columns[name], expected, equal_nan=True, msg=name)
    with metered() as least:
        none = audit.hijack(asked, whole, effort=LEAST, found=replace(FOUND, beside=frozenset()))
    # everywhere, where it looks least, l2, a drawn class: of one image
    assert 0 < cost.backwards - least.backwards <= 4 * LEAST.restarts * (LEAST.steps + 1)
    assert all(none[name].isnan().all() for name in ("anti:4", "all:4", "l2:4", "target:4", "signature:64"))


def test_pixels_that_are_marked_least_count_on_the_images_that_they_are_tried_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = subject()
    whole = batch(asked)
    one, every = torch.zeros(4, 16, 16), torch.ones(4, 16, 16)
    one[:, 15, 15] = 1
    where = {"top": one, "random": one, "anti": every, "all": every}
    monkeypatch.setattr(audit, "masks", lambda *_, **__: where)
    columns = audit.hijack(asked, whole, effort=LEAST, found=FOUND)

    assert int(columns["anti:4"].sum()) > 0
    assert torch.equal(columns["resists"], columns["anti:4"])
    none = audit.hijack(asked, whole, effort=LEAST, found=replace(FOUND, beside=frozenset()))
    assert not none["resists"].any()  # nor does the whole picture count


def test_the_steps_are_known_where_the_attack_has_succeeded() -> None:
    asked = subject()
    columns = audit.hijack(asked, batch(asked), effort=LEAST, found=FOUND)
    for name in ("top", "random"):
        hit = columns[f"{name}:4"] == 1
        assert 0 < int(hit.sum()) < 4
        assert torch.equal(columns[f"steps:{name}"].isnan(), ~hit)
        assert ((columns[f"steps:{name}"][hit] >= 1) & (columns[f"steps:{name}"][hit] <= LEAST.steps)).all()


def test_the_release_profile_has_a_hundred_steps_and_five_restarts() -> None:
    most = load_policy(None, profile="release").attacks

    assert (most.steps, most.restarts) >= (100, 5)
    assert most.sizes == [1, 2, 4, 8]


def test_what_is_right_among_other_images_is_a_measurement_of_its_own() -> None:
    """A resumed run may have more images: others are the first then, and are attacked in more ways."""
    told = []
    for budget in (100, 384):
        ask = MagicMock()
        ask.terms.budget = budget
        audit.ask_about(ask, audit.RESISTS, "resists")
        told.append(ask.call_args.kwargs["apart"])

    assert told[0] != told[1]


def test_nothing_guides_where_nothing_is_hijacked() -> None:
    data = numbered_dataset(4)
    none = replace(FOUND, right=data.ids[:2], by_gradient=0)

    assert audit.to_attack(data, {"found": none}, guided=False).ids == data.ids[:2]
    with pytest.raises(Undefined, match="of 2 pictures none was hijacked with 8/255 everywhere"):
        audit.to_attack(data, {"found": none}, guided=True)
    assert audit.to_attack(data, {"found": replace(none, by_gradient=1)}, guided=True).ids == data.ids[:2]


def test_an_image_without_another_class_at_hand_is_left_alone_and_not_counted() -> None:
    asked = subject()
    whole = batch(asked, 4)
    alone = replace(FOUND, signatures={int(whole.labels[0]): SIGNATURES[0]})
    columns = audit.hijack(asked, whole, effort=LEAST, found=alone)

    own = whole.labels == whole.labels[0]
    for name in ("target:4", "signature:4", "signature:64"):
        assert torch.equal(columns[name].isnan(), own)


def test_pictures_are_compared_by_lpips_too_where_its_weights_are_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject()

    def told(one: Tensor, other: Tensor, *, net: str) -> Tensor:
        assert net == "alex"
        return (one - other).abs().mean((1, 2, 3))

    monkeypatch.setattr(audit, "lpips", told)
    columns = audit.hijack(asked, batch(asked), effort=LEAST, found=replace(FOUND, lpips="alex"))

    hit = columns["resists"] == 1
    assert torch.equal(columns["lpips"].isnan(), ~hit)
    assert (columns["lpips"][hit] > 0).all()
    # a piece may change a value by sixteen times as much
    assert (columns["lpips:signature:64"] > columns["lpips:signature:4"]).any()
    assert not any(name.startswith("lpips") for name in audit.hijack(asked, batch(asked), effort=LEAST, found=FOUND))
