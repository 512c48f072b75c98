import pytest

from camcore.cost import count, metered


def test_what_is_asked_inside_the_block_is_counted_and_nothing_outside() -> None:
    count(forwards=5)
    with metered() as cost:
        count(forwards=2)
        count(backwards=3)
    count(forwards=7)

    assert (cost.forwards, cost.backwards) == (2, 3)


def test_blocks_nest_and_each_counts_all_that_is_inside_it() -> None:
    with metered() as outer:
        count(forwards=1)
        with metered() as inner:
            count(forwards=10)

    assert (outer.forwards, inner.forwards) == (11, 10)


def test_a_block_that_raises_stops_counting() -> None:
    with pytest.raises(RuntimeError, match="broke"), metered() as cost:
        raise RuntimeError("broke")
    count(forwards=4)

    assert cost.forwards == 0
