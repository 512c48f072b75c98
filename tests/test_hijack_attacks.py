"""How the audit of hijacking attacks: where, how far, with which sizes in turn, and with pieces of other classes."""

import pytest
import torch

from audits.hijack_attacks import length, masks, swept
from audits.hijack_signatures import TRIED, _laid, _windows, blended, cut_signatures, drawn_classes
from audits.policy import load_policy
from camcore.adversary import Climbed
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.images import load
from camcore.maps import upsample
from camcore.recording import record
from tests.hijacked import SIGNATURES, batch, dataset, subject
from tests.tiny import some_images


def test_every_size_is_tried_on_all_that_has_withstood_and_what_fell_stays_fallen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An attack that is good at small changes alone: what it finds counts for the larger ones, and they are tried."""
    from audits import hijack_attacks

    asked = subject()
    whole = batch(asked, 12)
    tried: dict[int, int] = {}

    def only_small(_, images, label, *, budget, **__):
        radius = round(budget.epsilon * 255)
        tried[radius] = len(images)
        success = (torch.arange(len(images)) < 3) if radius < 4 else torch.zeros(len(images), dtype=torch.bool)
        steps = torch.full((len(images),), radius)
        return Climbed(
            images=images, loss=success.float(), success=success, no_slope=~success, stuck=~success, steps=steps
        )

    monkeypatch.setattr(hijack_attacks, "apgd", only_small)
    effort = load_policy(None, profile="pr").attacks
    found = swept(asked, whole, torch.ones(12, 16, 16), effort, torch.arange(12))

    assert tried == {1: 12, 2: 9, 4: 6, 8: 6}
    assert {radius: int(one.success.sum()) for radius, one in found.items()} == {1: 3, 2: 6, 4: 6, 8: 6}
    assert torch.equal(found[8].loss, found[8].success.float())
    assert found[8].steps.tolist() == [1] * 3 + [2] * 3 + [8] * 6  # of the attack that succeeded, or of the last
    assert found[4].steps.tolist() == [1] * 3 + [2] * 3 + [4] * 6


def test_some_images_are_swept_as_they_are_among_all() -> None:
    asked = subject()
    whole = batch(asked, 3)
    mask = (torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    effort = load_policy(None, profile="smoke").attacks
    rows = torch.tensor([2, 0])
    every, some = (swept(asked, whole, mask, effort, chosen) for chosen in (torch.arange(3), rows))

    for radius in effort.sizes:
        torch.testing.assert_close(some[radius].images, every[radius].images[rows], atol=1e-6, rtol=0)
        assert torch.equal(some[radius].success, every[radius].success[rows])


def test_the_length_is_that_of_a_change_of_every_value_in_the_mask() -> None:
    mask = torch.zeros(2, 16, 16)
    mask[:, :4, :5] = 1
    change = 4 / 255 * mask[0].expand(3, 16, 16)

    assert length(mask, 4) == pytest.approx(float(change.norm()))


@pytest.mark.parametrize(("area", "pixels"), [(0.01, 3), (0.2, 51), (0.5, 128)])
def test_the_masks_have_the_size_that_the_policy_says_and_lie_where_they_are_said_to(area: float, pixels: int) -> None:
    asked = subject()
    whole = batch(asked)
    rec = record(asked, whole.images)
    where = masks(rec, whole, area=area)

    assert {name: mask.sum((1, 2)).unique().tolist() for name, mask in where.items()} == {
        "top": [pixels],
        "random": [pixels],
        "anti": [pixels],
        "all": [256],
    }
    assert (where["top"] * where["anti"]).sum() == 0
    saliency = upsample(METHODS["gradcam"](rec), (16, 16), rec.placement)
    for row, marked in zip(saliency, where["top"].bool(), strict=True):
        assert row[marked].min() >= row[~marked].max()


def test_a_drawn_class_is_another_one() -> None:
    asked = subject()
    whole = batch(asked, 20)

    drawn = drawn_classes(whole, SIGNATURES)

    assert (drawn != whole.labels).all()
    assert set(drawn.tolist()) == set(SIGNATURES)
    only_own = {int(whole.labels[0]): SIGNATURES[0]}
    assert (drawn_classes(whole, only_own)[whole.labels == whole.labels[0]] == -1).all()


def test_a_signature_is_the_square_that_the_map_marks_most_of_the_first_picture_of_its_class() -> None:
    asked = subject()
    data = dataset(asked)
    found = cut_signatures(asked, data, data.ids, seed=0, chunk=5)
    one_by_one = cut_signatures(asked, data, data.ids, seed=0, chunk=1)

    assert set(found) == set(data.labels)
    for label, piece in found.items():
        first = data.ids[data.labels.index(label)]
        batch_ = load(data, [first], asked.geometry, seed=0, device=asked.device)
        rec = record(asked, batch_.images, batch_.labels, chunk=1)
        saliency = upsample(METHODS["gradcam"](rec), (16, 16), rec.placement)[0]
        sums = {(i, j): float(saliency[i : i + 4, j : j + 4].sum()) for i in range(13) for j in range(13)}
        top, left = max(sums, key=sums.__getitem__)
        torch.testing.assert_close(piece, batch_.images[0, :, top : top + 4, left : left + 4], atol=1e-6, rtol=0)
        torch.testing.assert_close(one_by_one[label], piece)


def test_what_is_blended_in_stays_within_the_mask_and_the_radius_and_moves_towards_the_piece() -> None:
    asked = subject()
    whole = batch(asked, 8)
    mask = (torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    target = drawn_classes(whole, SIGNATURES)
    start = (whole.images * 255).round() / 255
    for radius in (0, 4, 255):
        with metered() as cost:
            found = blended(asked, whole, mask, target, SIGNATURES, radius=radius)
        change = found.images - start
        assert cost.forwards == 8 * (TRIED + 1)
        assert change.abs().max() <= radius / 255 + 1e-6
        assert (change * (1 - mask[:, None])).abs().max() == 0
        with torch.no_grad():
            assert torch.equal(found.success, asked.logits(found.images).argmax(1) == target)
        for index, label in enumerate(target.tolist()):
            values = SIGNATURES[label]
            low, high = values.amin((1, 2))[:, None, None], values.amax((1, 2))[:, None, None]
            moved = change[index].abs() > 0.6 / 255
            towards = torch.where(change[index] > 0, start[index] < high, start[index] > low)
            assert towards[moved].all()
    assert (found.images != start).any()


def test_a_piece_lies_where_it_is_put_and_its_tiles_everywhere() -> None:
    base = some_images(2)
    pieces = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    laid, covered = _laid(pieces, base, torch.tensor([[0, 12], [5, 3]]))

    assert covered.sum((1, 2)).tolist() == [16, 16]
    torch.testing.assert_close(laid[0, :, 0:4, 12:16], pieces[0])
    torch.testing.assert_close(laid[1, :, 5:9, 3:7], pieces[1])
    assert covered[1, 5:9, 3:7].all()
    tiles, everywhere = _laid(pieces, base, None)
    assert everywhere.all()
    torch.testing.assert_close(tiles, pieces.repeat(1, 1, 4, 4))


def test_the_places_that_are_tried_hold_most_of_the_mask() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[0, 8:12, 2:6] = 1
    mask[0, 0:2, 14:16] = 1
    corners = [tuple(one[0].tolist()) for one in _windows(mask, 4)]

    assert corners[0] == (8, 2)
    assert len(corners) == TRIED == len(set(corners))
    assert (0, 12) in corners
