"""Square, the attack that needs no gradient: what it may change, what it costs, and that batches do not matter."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camcore.adversary import margin
from camcore.cost import metered
from camcore.square_attack import _window, square
from tests.climbed import EPSILON, Rounded, asked, draws
from tests.tiny import some_images, tiny_subject


@given(epsilon=st.floats(0, 64), queries=st.integers(1, 12), share=st.floats(0, 1), masked=st.booleans())
def test_square_stays_within_the_budget_and_the_mask(epsilon: float, queries: int, share: float, masked: bool) -> None:
    one, images, label = asked(2)
    mask = (torch.rand(2, 16, 16, generator=draws(1)[0]) < share).float() if masked else torch.ones(2, 16, 16)
    given = {"mask": mask} if masked else {}
    found = square(one, images, label, epsilon=epsilon / 255, queries=queries, generators=draws(2), **given).images

    start = (images * 255).round() / 255
    torch.testing.assert_close((found * 255).round() / 255, found, atol=1e-6, rtol=0)
    assert 0 <= found.min() <= found.max() <= 1
    assert (found - start).abs().max() <= (epsilon + 1e-3) / 255
    assert ((found - start) * (1 - mask[:, None])).abs().max() <= 1e-6


def test_square_needs_no_gradient_and_gets_better_with_queries() -> None:
    one, images = tiny_subject(Rounded(), "inner.inner.relu"), some_images(12)
    with torch.no_grad():
        label = one.logits((images * 255).round() / 255).argmax(1)
    margins = []
    for queries in (1, 10, 200):
        with metered() as cost:
            found = square(one, images, label, epsilon=32 / 255, queries=queries, generators=draws(12))
        assert cost.backwards == 0
        assert cost.forwards <= 12 * queries
        with torch.no_grad():
            torch.testing.assert_close(margin(one.logits(found.images), label), found.loss)
        margins.append(found.loss.clamp(max=0))

    assert (margins[1] >= margins[0]).all()
    assert int((margins[2] == 0).sum()) > 0


@pytest.mark.parametrize("masked", [False, True])
def test_square_does_not_depend_on_the_batch(masked: bool) -> None:
    one, images, label = asked()
    mask = (torch.rand(6, 16, 16, generator=draws(1)[0]) < 0.2).float() if masked else None
    together = square(one, images, label, epsilon=EPSILON, queries=20, mask=mask, generators=draws(6))
    for index in range(6):
        part = slice(index, index + 1)
        own = None if mask is None else mask[part]
        alone = square(
            one, images[part], label[part], epsilon=EPSILON, queries=20, mask=own, generators=draws(1, index)
        )
        torch.testing.assert_close(alone.images, together.images[part])


def test_squares_of_a_mask_hold_a_pixel_of_it() -> None:
    """So that no query is spent where nothing may be changed."""
    inside = torch.tensor([[0, 15], [9, 3]])
    for side in (1, 4, 16, 40):
        seen = [_window(inside, (16, 16), side, torch.Generator().manual_seed(seed)) for seed in range(30)]
        for _, down, across in seen:
            assert down.stop - down.start == across.stop - across.start == min(side, 16)
            assert 0 <= down.start <= down.stop <= 16
            held = [(row in range(16)[down]) and (column in range(16)[across]) for row, column in inside.tolist()]
            assert any(held)
