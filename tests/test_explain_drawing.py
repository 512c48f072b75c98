import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camcore.explain.overlay import ANCHORS, OPACITY, blend, enlarged, fitted, share_of
from camcore.explain.sheet import ACROSS, MARGIN, Tile, draw_sheet
from camcore.explain.text import cut, drawable, width_of, wrap

TEXTS = st.text(max_size=120)


def colourful(height=4, width=6):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_place_that_is_not_marked_stays_the_photograph():
    picture, share = colourful(), np.zeros((4, 6))
    share[1, 2] = 0.5

    painted = blend(picture, share)

    changed = (painted != picture).any(2)
    assert changed[1, 2]
    assert changed.sum() == 1


def test_the_largest_value_has_the_last_colour_over_the_photographs_grey():
    grey = np.full((1, 1, 3), 100, dtype=np.uint8)

    painted = blend(grey, np.ones((1, 1)))[0, 0]

    assert painted == pytest.approx(OPACITY * ANCHORS[-1] + (1 - OPACITY) * 100, abs=1)


def test_under_a_mark_the_photograph_loses_its_hue():
    red, cyan = np.zeros((1, 1, 3), dtype=np.uint8), np.zeros((1, 1, 3), dtype=np.uint8)
    red[..., 0] = 200  # luma 59.8
    cyan[..., 1:] = (200 * 0.299 / 0.701,) * 2  # luma 59.5

    assert np.abs(blend(red, np.full((1, 1), 0.5)).astype(int) - blend(cyan, np.full((1, 1), 0.5))).max() <= 2


def test_shares_are_of_the_largest_value_with_nothing_subtracted_and_negatives_cut_off():
    assert share_of(np.array([[-4.0, 0.0, 2.0, 4.0]]), 4.0).tolist() == [[0, 0, 0.5, 1]]


@pytest.mark.parametrize(
    ("size", "becomes"),
    [((32, 32), (224, 224)), ((96, 96), (288, 288)), ((96, 200), (288, 600)), ((224, 224), (224, 224))],
)
def test_a_small_picture_is_enlarged_by_a_whole_factor_without_new_colours(size, becomes):
    picture = colourful(*size)

    large = np.asarray(enlarged(picture))

    assert large.shape == (*becomes, 3)
    factor = becomes[0] // size[0]
    assert (large == picture.repeat(factor, 0).repeat(factor, 1)).all()


def test_a_large_picture_is_shrunk_on_a_sheet_in_proportion():
    assert fitted(Image.new("RGB", (800, 600))).size == (384, 288)
    assert fitted(Image.new("RGB", (224, 224))).size == (224, 224)


@given(text=TEXTS, width=st.integers(20, 400), middle=st.booleans())
def test_a_cut_text_fits_its_place(text, width, middle):
    assert width_of(cut(text, 14, width, middle=middle), 14) <= width


@given(text=TEXTS, width=st.integers(20, 400), most=st.integers(1, 4))
def test_wrapped_lines_fit_their_place_and_their_number(text, width, most):
    lines = wrap(text, 14, width, most=most)

    assert len(lines) <= most
    assert all(width_of(line, 14) <= width for line in lines)


def test_a_wrapped_text_that_fits_loses_no_word():
    text = "the quick brown fox jumps over the lazy dog"

    assert " ".join(wrap(text, 14, 100, most=9)) == text


def test_a_file_name_is_cut_in_the_middle_and_a_sentence_at_its_end():
    long = "IMG_" + "0" * 60 + "_left.jpeg"

    assert cut(long, 14, 200, middle=True).endswith("_left.jpeg")
    assert cut(long, 14, 200, middle=True).startswith("IMG_")
    assert cut(long, 14, 200).endswith("…")


@given(text=TEXTS)
def test_only_letters_that_the_font_has_are_drawn(text):
    assert all(" " <= letter <= "~" or letter in "…·" for letter in drawable(text))


def test_accents_are_dropped_and_other_scripts_become_question_marks():
    assert drawable("Käse éclair 犬") == "Kase eclair ?"


def tile(*lines, name=""):
    return Tile(picture=Image.new("RGB", (224, 224), "black"), lines=lines, name=name)


def test_no_text_runs_over_the_margin_or_into_the_next_column():
    long = "American Staffordshire Terrier " * 20
    row = {"photo" * 40: tile(long, "W" * 90, name="x" * 300), "cam": tile("max 1, min 0")}

    page = np.asarray(draw_sheet([row], title=long, note=long))

    assert (page[:, -MARGIN:] == 255).all()
    assert (page[:, : MARGIN - 2] == 255).all()  # a W begins a hair before its place
    from_heads_to_captions = slice(MARGIN + 2 * 28, MARGIN + 2 * 28 + 34 + 224 + 6 + 4 * 19)
    beside = page[from_heads_to_captions, MARGIN + 224 : MARGIN + 224 + 16]
    assert (beside == 255).all()
    assert (page[from_heads_to_captions, MARGIN + 200 : MARGIN + 224][-60:] < 200).any()  # text that could have run on


def test_a_tile_that_a_row_lacks_leaves_an_empty_frame_in_its_column():
    full = {"photo": tile("a"), "cam": tile("b")}

    page = np.asarray(draw_sheet([full, {"photo": tile("a")}], title="t"))

    first, second = (page[top + 20 : top + 200, MARGIN + 260 : MARGIN + 440] for top in (82, 82 + 224 + 43))
    assert (first == 0).all()
    assert (second == 255).all()


def test_every_row_adds_to_the_height_and_every_method_to_the_width():
    row = {"photo": tile("a"), "b": tile("b"), "c": tile("c")}
    one, two = draw_sheet([row], title="t"), draw_sheet([row, row], title="t")
    wide = draw_sheet([row | {"d": tile("d")}], title="t")

    assert two.height - one.height >= 224
    assert wide.width - one.width == 224 + 16


def test_many_methods_go_on_below_beside_the_same_photograph():
    few = {"photo": tile("a")} | {f"cam {number}": tile("b") for number in range(ACROSS)}
    many = few | {"one more": tile("c")}
    page = draw_sheet([many, many], title="t")

    assert page.width == draw_sheet([few, few], title="t").width
    assert page.height - draw_sheet([few, few], title="t").height >= 2 * 224
    black = (np.asarray(page) == 0).all(2).sum()
    assert black >= 2 * (len(many) + 1) * 224 * 224  # every picture, and the photograph once more in each row
