import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camcore.cost import metered
from camcore.metrics import area_under, deletion_curve, insertion_curve
from camcore.perturbations import blur, rank_pixels
from camcore.seeds import generator
from tests.oracles import deletion as oracle
from tests.tiny import CLASSES, FlatNet, GapNet, some_images, tiny_subject

SHARES = (0, 0.05, 0.1, 0.2, 0.4, 0.7, 1)
CURVES = {"deletion": (deletion_curve, oracle.deletion), "insertion": (insertion_curve, oracle.insertion)}
both = pytest.mark.parametrize("kind", CURVES)


def question(count=3, seed=0):
    """A subject, images, classes, maps without ties and their ranks, and blurred images."""
    images = some_images(count, seed=seed)
    saliency = torch.rand(count, 16, 16, generator=generator(seed, "saliency"))
    rank = rank_pixels(saliency, generators=[generator(0, "ties", str(index)) for index in range(count)])
    target = torch.arange(count) % CLASSES
    return tiny_subject(FlatNet()), images, target, saliency, rank, blur(images)


def curve(kind, subject, images, target, rank, baseline, fractions=SHARES, **options):
    return CURVES[kind][0](subject, images, target, rank, baseline=baseline, fractions=fractions, **options).probability


@both
def test_curve_equals_replacing_one_pixel_after_another(kind):
    subject, images, target, saliency, rank, baseline = question()
    found = curve(kind, subject, images, target, rank, baseline)
    for index in range(len(images)):
        order = oracle.most_salient_first(saliency[index])
        slow = CURVES[kind][1](subject, images[index], int(target[index]), order, baseline[index], SHARES)
        torch.testing.assert_close(found[index], torch.tensor(slow), rtol=1e-4, atol=1e-6)


@both
@pytest.mark.parametrize("chunk", [1, 2, 5, 1000])
def test_curve_does_not_depend_on_the_chunk(kind, chunk):
    subject, images, target, _, rank, baseline = question()
    whole = curve(kind, subject, images, target, rank, baseline)
    torch.testing.assert_close(curve(kind, subject, images, target, rank, baseline, chunk=chunk), whole)


@both
def test_curve_of_an_image_does_not_depend_on_its_batch(kind):
    subject, images, target, _, rank, baseline = question()
    whole = curve(kind, subject, images, target, rank, baseline)
    for index in range(3):
        one = slice(index, index + 1)
        alone = curve(kind, subject, images[one], target[one], rank[one], baseline[one])
        torch.testing.assert_close(alone[0], whole[index])


@both
@pytest.mark.parametrize(("count", "chunk"), [(1, 32), (3, 4), (3, 7), (2, 1)])
def test_forwards_are_one_per_image_and_step_in_batches_of_at_most_a_chunk(kind, count, chunk):
    subject, images, target, _, rank, baseline = question(count)
    sizes = []
    handle = subject.module.register_forward_hook(lambda _module, args, _output: sizes.append(len(args[0])))
    with metered() as cost:
        curve(kind, subject, images, target, rank, baseline, chunk=chunk)
    handle.remove()
    asked = count * len(SHARES)
    assert (cost.forwards, cost.backwards) == (asked, 0)
    assert sum(sizes) == asked
    assert max(sizes) <= chunk
    assert len(sizes) == -(-asked // chunk)  # no forward smaller than need be


def test_the_ends_of_both_curves_are_the_intact_image_and_the_baseline():
    subject, images, target, _, rank, baseline = question()
    with torch.no_grad():
        intact, empty = (
            subject.logits(shown).softmax(1).gather(1, target[:, None])[:, 0] for shown in (images, baseline)
        )
    deletion = curve("deletion", subject, images, target, rank, baseline)
    insertion = curve("insertion", subject, images, target, rank, baseline)
    for found, expected in ((deletion[:, 0], intact), (deletion[:, -1], empty)):
        torch.testing.assert_close(found, expected)
    for found, expected in ((insertion[:, 0], empty), (insertion[:, -1], intact)):
        torch.testing.assert_close(found, expected)


def test_insertion_is_deletion_of_the_reverse_order_read_backwards():
    subject, images, target, _, rank, baseline = question()
    reverse = 255 - rank
    shares = (0, 0.25, 0.5, 0.75, 1)
    inserted = curve("insertion", subject, images, target, rank, baseline, shares)
    torch.testing.assert_close(inserted, curve("deletion", subject, images, target, reverse, baseline, shares).flip(1))


@both
@pytest.mark.parametrize("rescale", [lambda x: 5 * x - 2, torch.exp, lambda x: x**3], ids=["line", "exp", "cube"])
def test_curve_ignores_a_monotone_rescaling_of_the_map(kind, rescale):
    subject, images, target, saliency, _, baseline = question()
    saliency = saliency.round(decimals=1).double()  # with ties
    curves = [
        curve(
            kind,
            subject,
            images,
            target,
            rank_pixels(shown, generators=[generator(0, str(index)) for index in range(3)]),
            baseline,
        )
        for shown in (saliency, rescale(saliency))
    ]
    assert torch.equal(*curves)


def test_deleting_where_the_score_comes_from_hurts_and_elsewhere_does_not():
    # the head reads the left half alone, and the convolutions reach two pixels further
    subject = tiny_subject(FlatNet())
    with torch.no_grad():
        subject.module.dense.weight.view(CLASSES, 4, 8, 8)[..., 4:] = 0
    images = some_images(4)
    with torch.no_grad():
        intact = subject.logits(images).softmax(1)
    target = intact.argmax(1)
    left = torch.arange(16).lt(8).float().expand(4, 16, 16)
    generators = [generator(0, str(index)) for index in range(4)]
    right = rank_pixels(1 - left, generators=generators)
    hurt, harmless = (
        curve("deletion", subject, images, target, rank, torch.zeros_like(images), (0.4,))[:, 0]
        for rank in (rank_pixels(left, generators=generators), right)
    )
    top = intact.amax(1)
    assert (hurt - top).abs().mean() > 10 * (harmless - top).abs().mean()


@both
def test_curve_builds_no_graph_and_leaves_no_gradient(kind):
    subject, images, target, _, rank, baseline = question()
    assert not curve(kind, subject, images, target, rank, baseline).requires_grad
    assert all(parameter.grad is None for parameter in subject.module.parameters())


@both
def test_images_and_baseline_are_left_alone(kind):
    subject, images, target, _, rank, baseline = question()
    copies = images.clone(), baseline.clone()
    curve(kind, subject, images, target, rank, baseline)
    assert torch.equal(images, copies[0])
    assert torch.equal(baseline, copies[1])


@both
def test_a_map_of_the_wrong_size_is_refused(kind):
    subject, images, target, _, rank, baseline = question()
    with pytest.raises(ValueError, match=r"the map is \(8, 16\) and the images are \(16, 16\); upsample the map first"):
        curve(kind, subject, images, target, rank[:, :8], baseline)


def test_curve_follows_the_class_that_was_asked_for():
    subject, images, _, _, rank, baseline = question()
    subject = tiny_subject(GapNet())
    total = sum(
        curve("deletion", subject, images, torch.full((3,), target), rank, baseline) for target in range(CLASSES)
    )
    torch.testing.assert_close(total, torch.ones(3, len(SHARES)))


@given(
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=8),
    st.lists(st.integers(1, 20), min_size=7, max_size=7),
)
def test_area_is_the_sum_of_the_trapezoids_over_the_width(heights, widths):
    x = [sum(widths[:index]) / 100 for index in range(len(heights))]
    found = area_under(torch.tensor([heights]), x)
    assert found.item() == pytest.approx(oracle.area(heights, x), abs=1e-5)


def test_area_under_a_constant_is_its_height_and_under_a_line_its_middle():
    x = (0.1, 0.3, 0.9)
    torch.testing.assert_close(area_under(torch.full((2, 3), 0.4), x), torch.full((2,), 0.4))
    torch.testing.assert_close(area_under(torch.tensor([[0.1, 0.3, 0.9]]), x), torch.tensor([0.5]))
