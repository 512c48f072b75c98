import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from camcore.metrics.binding import decided_alone, interaction, priors, right

SCORES = arrays("float64", (5, 2, 2), elements=st.floats(-9, 9))


def one(s00: float, s01: float, s10: float, s11: float) -> torch.Tensor:
    return torch.tensor([[[s00, s01], [s10, s11]]])


@given(
    scores=SCORES,
    captions=arrays("float64", (5, 1, 2), elements=st.floats(-9, 9)),
    pictures=arrays("float64", (5, 2, 1), elements=st.floats(-9, 9)),
)
def test_preferences_for_captions_and_for_pictures_cancel(scores, captions, pictures) -> None:
    plain = interaction(torch.from_numpy(scores))

    torch.testing.assert_close(interaction(torch.from_numpy(scores + captions + pictures)), plain, atol=1e-9, rtol=0)
    swapped = torch.from_numpy(scores)
    torch.testing.assert_close(interaction(swapped.flip(1)), -plain)
    torch.testing.assert_close(interaction(swapped.flip(2)), -plain)


@given(scores=SCORES)
def test_a_group_that_is_right_has_an_interaction_above_zero_and_not_the_other_way_round(scores) -> None:
    given_ = torch.from_numpy(scores)
    found = right(given_)

    assert (interaction(given_)[found.text | found.image] > 0).all()
    assert torch.equal(found.group, found.text & found.image)
    assert torch.equal(found.one == 1, found.text)
    both_prior = one(9.0, 9.5, 0.0, 1.0)  # it binds, and prefers the second caption by more
    assert interaction(both_prior) > 0
    assert not right(both_prior).text


def test_a_scorer_that_says_always_the_same_is_never_right() -> None:
    level = torch.zeros(3, 2, 2)

    assert not torch.cat([each.bool() for each in right(level)]).any()
    assert not (interaction(level) > 0).any()


def test_chance_is_a_quarter_a_quarter_and_a_sixth() -> None:
    found = right(torch.rand(60_000, 2, 2, generator=torch.Generator().manual_seed(0)))

    for share, chance in ((found.text, 1 / 4), (found.image, 1 / 4), (found.group, 1 / 6), (found.one, 1 / 2)):
        assert share.double().mean().item() == pytest.approx(chance, abs=0.01)


def test_priors_are_what_is_preferred_whatever_the_other_is() -> None:
    caption, picture = priors(one(3.0, 1.0, 2.0, 0.0))

    assert (caption.item(), picture.item()) == (2.0, 1.0)
    assert interaction(one(3.0, 1.0, 2.0, 0.0)).item() == 0


def test_text_image_and_group_by_hand() -> None:
    cases = {  # scores -> text, image
        (2, 1, 1, 2): (True, True),
        (2, 1, 3, 4): (True, False),
        (2, 3, 1, 4): (False, True),
        (1, 2, 2, 1): (False, False),
        (2, 2, 1, 2): (False, False),  # level
    }
    for scores, (text, image) in cases.items():
        found = right(one(*map(float, scores)))
        assert (found.text.item(), found.image.item()) == (text, image), scores


@given(
    scores=arrays("float64", (5, 2, 2), elements=st.integers(-2, 2).map(float)),
    alone=arrays("float64", (5, 2), elements=st.integers(-2, 2).map(float)),
)
def test_what_captions_decide_alone_is_what_both_pictures_and_none_agree_on(scores, alone) -> None:
    found = decided_alone(torch.from_numpy(scores), torch.from_numpy(alone))

    for group in range(5):
        rows = [*scores[group], alone[group]]
        slow = all(row[0] > row[1] for row in rows) or all(row[0] < row[1] for row in rows)
        assert found[group].item() == slow
    # who binds strictly is not decided by anything else
    assert not (found & right(torch.from_numpy(scores)).text).any()


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (torch.zeros(2, 2, 3), r"shape \(groups, 2, 2\), got \(2, 2, 3\)"),
        (torch.zeros(3, 2, 2).half(), "single precision"),
    ],
)
def test_what_is_no_group_is_refused(scores: torch.Tensor, said: str) -> None:
    for measure in (interaction, priors, right, lambda of: decided_alone(of, of[:, 0])):
        with pytest.raises(ValueError, match=said):
            measure(scores)
