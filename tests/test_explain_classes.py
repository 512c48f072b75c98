import pytest

from camcore.errors import BadInput
from camcore.explain.classes import class_label, find_class

CLASSES = ("tench", "crane", "Golden_Retriever", "tiger cat", "oystercatcher", "crane", "Labrador retriever")


@pytest.mark.parametrize(
    ("text", "index"),
    [("tench", 0), ("TENCH", 0), ("golden retriever", 2), ("golden-retriever", 2), (" tiger  cat ", 3), ("5", 5)],
)
def test_a_class_is_found_by_its_index_or_by_its_name_however_it_is_spelt(text, index):
    assert find_class(text, CLASSES) == index


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("crane", "2 classes are called 'crane': give the index, 1 or 5"),
        ("retriever", "did you mean 'Golden_Retriever' (2) or 'Labrador retriever' (6)?"),
        ("cat", "did you mean 'tiger cat' (3) or 'oystercatcher' (4)?"),  # whole words first
        ("tensh", "did you mean 'tench' (0)?"),
        ("zebra", "none looks like it; the model has 7: 'tench', 'crane', 'Golden_Retriever', 'tiger cat', …"),
        ("", "none looks like it"),
        ("7", "out of range; the model has classes 0 to 6"),
        ("-1", "out of range; the model has classes 0 to 6"),
        ("9" * 5000, "out of range"),
    ],
)
def test_a_class_that_is_not_one_is_refused_with_what_to_do(text, says):
    with pytest.raises(BadInput) as caught:
        find_class(text, CLASSES)

    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_label_tells_two_classes_of_one_name_apart_and_leaves_others_alone():
    assert [class_label(index, CLASSES) for index in (0, 1, 5)] == ["tench", "crane (1)", "crane (5)"]
    assert class_label(3, ()) == "class 3"
