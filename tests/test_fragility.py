import pytest
import torch

from camcore import fragility
from camcore.cost import metered
from camcore.fragility import attack, on_grid
from camcore.metrics.fragility import centre_shift, top_cells, top_intersection
from camcore.metrics.invariance import likeness
from camcore.recording import record
from camcore.seeds import generator
from tests.oracles import fragility as oracle
from tests.tiny import FlatNet, GapNet, NoGradNet, some_images, tiny_subject


def parts(subject):
    """GapNet in two pieces: up to its ReLU, and from there."""
    net = subject.module
    return (lambda image: net.relu(net.conv2(net.conv1(image)))), (lambda features: net.head(features.mean((2, 3))))


def recorded(subject=None, count=3):
    subject = subject or tiny_subject(GapNet().double(), "relu")
    return subject, record(subject, on_grid(some_images(count).to(subject.dtype)))


def hirescam(rec):
    return (rec.activations * rec.gradients).sum(1)


def some_maps(name, count=3, side=5):
    return torch.rand(count, side, side + 1, generator=generator(0, name), dtype=torch.float64)


def test_what_stays_on_top_and_how_far_the_centre_moves_equal_their_definitions():
    one, other = some_maps("one"), some_maps("other")
    for index in range(3):
        flat = [maps[index].flatten().tolist() for maps in (one, other)]
        first, second = (oracle.top_cells(values, 0.2) for values in flat)
        assert set(top_cells(one, 0.2)[index].flatten().nonzero()[:, 0].tolist()) == first
        assert top_intersection(one, other, 0.2)[index].item() == len(first & second) / len(first)
        expected = oracle.centre_shift(one[index].tolist(), other[index].tolist())
        assert centre_shift(one, other)[index].item() == pytest.approx(expected)


def test_ties_on_top_fall_by_position_and_there_is_always_one():
    flat = torch.ones(1, 3, 3)
    assert top_cells(flat, 0.3)[0].flatten().tolist() == [True] * 3 + [False] * 6
    assert top_cells(flat, 0.0).sum() == 1
    assert top_intersection(flat, flat, 0.3) == 1


def test_a_map_without_mass_has_no_centre():
    assert centre_shift(torch.zeros(1, 3, 3), torch.ones(1, 3, 3)).isnan()


def test_attack_equals_the_algorithm_one_image_at_a_time():
    subject, rec = recorded()
    found = attack(rec, radii=(1, 3), steps=3)
    for index, image in enumerate(rec.images):
        slow = oracle.attack(
            parts(subject),
            image,
            radii=(1, 3),
            steps=3,
            share=fragility.TOP,
            kept=fragility.KEPT,
            pull=fragility.PULL,
        )
        for images, expected in zip(found.images, slow, strict=True):
            torch.testing.assert_close(images[index], expected)
    assert not torch.equal(found.images[-1], rec.images)


@pytest.mark.parametrize("module", [GapNet(), FlatNet()], ids=["mean", "dense"])
def test_what_is_found_is_a_picture_within_the_radius_that_keeps_the_prediction(module):
    layer = "relu"
    subject, rec = recorded(tiny_subject(module, layer))
    found = attack(rec, radii=(1, 4, 8), steps=4)
    before = rec.logits.softmax(1).gather(1, rec.target[:, None])
    for radius, images in zip((1, 4, 8), found.images, strict=True):
        assert ((images - rec.images) * 255).abs().max() <= radius + 1e-3
        assert 0 <= images.min() <= images.max() <= 1
        torch.testing.assert_close(images * 255, (images * 255).round(), atol=1e-4, rtol=0)
        with torch.no_grad():
            logits = subject.logits(images)
        assert torch.equal(logits.argmax(1), rec.target)
        assert (logits.softmax(1).gather(1, rec.target[:, None]) - before).abs().max() <= fragility.KEPT + 1e-6


def test_a_larger_radius_and_more_steps_never_leave_more():
    _, rec = recorded()
    shares = attack(rec, radii=(1, 2, 4, 64), steps=3).share
    assert (shares.diff(dim=1) <= 0).all()
    assert (shares[:, 0] <= attack(rec, radii=(1,), steps=1).share[:, 0]).all()


def test_an_attack_without_room_moves_nothing():
    subject, rec = recorded()
    found = attack(rec, radii=(0,), steps=3)
    assert torch.equal(found.images[0], rec.images)
    torch.testing.assert_close(found.share[:, 0], found.before)
    again = record(subject, found.images[0], rec.target)
    torch.testing.assert_close(likeness(hirescam(rec), hirescam(again)), torch.ones(3, dtype=torch.float64))


def test_a_wide_attack_empties_the_cells_that_it_was_aimed_at():
    # a network that hardly knows one class from the other lets the map go anywhere; its map is nowhere below 0
    subject, _ = recorded()
    with torch.no_grad():
        subject.module.head.weight.abs_().mul_(0.01)
    rec = record(subject, on_grid(some_images().double()))
    found = attack(rec, radii=(64,), steps=40)
    assert (found.before > 2.5 * fragility.TOP).all()
    assert (found.share[:, 0] < 1.5 * fragility.TOP).all()  # about what so many cells hold if none stands out
    moved = record(subject, found.images[0], rec.target)
    assert top_intersection(hirescam(rec).relu(), hirescam(moved).relu(), 0.1).mean() < 0.2


def test_the_share_reported_is_the_share_of_the_map_of_the_image_found():
    subject, rec = recorded()
    found = attack(rec, radii=(2,), steps=3)
    top = top_cells(hirescam(rec), fragility.TOP)
    saliency = hirescam(record(subject, found.images[0], rec.target))
    torch.testing.assert_close(found.share[:, 0], (saliency * top).sum((1, 2)) / saliency.abs().sum((1, 2)))


def test_an_attack_is_one_forward_and_two_backwards_a_step():
    _, rec = recorded()
    with metered() as cost:
        attack(rec, radii=(1, 2), steps=3)
    steps, images = 6, 3
    assert cost.forwards == images * (steps + 1)
    assert cost.backwards == images * (2 * steps + 1)  # at the last image no direction is asked for


def test_the_attack_of_an_image_does_not_depend_on_its_batch():
    subject, rec = recorded()
    found = attack(rec, radii=(1, 2), steps=3)
    for index in range(3):
        alone = attack(record(subject, rec.images[index : index + 1]), radii=(1, 2), steps=3)
        assert torch.equal(alone.images[-1][0], found.images[-1][index])


@pytest.mark.parametrize("preprocess", [lambda x: (x * 8).round() / 8, lambda x: x.detach()], ids=["rounded", "cut"])
def test_a_model_that_hides_its_gradient_is_named(preprocess):
    subject = tiny_subject(GapNet(), "relu", preprocess=preprocess)
    _, rec = recorded(subject)
    found = attack(rec, radii=(2,), steps=2)
    assert found.masked.all()
    assert torch.equal(found.images[0], rec.images)
    _, rec = recorded()
    assert not attack(rec, radii=(2,), steps=2).masked.any()


def test_a_slope_that_is_no_number_is_named():
    grey = some_images(3).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    coloured = lambda x: x + (x.var(1, keepdim=True) + 1e-12).sqrt()  # noqa: E731
    broken = lambda x: x + x.var(1, keepdim=True).sqrt()  # noqa: E731 - its slope is NaN where there is no colour
    for preprocess, masked in ((coloured, False), (broken, True)):
        rec = record(tiny_subject(GapNet(), "relu", preprocess=preprocess), on_grid(grey))
        assert attack(rec, radii=(2,), steps=2).masked.all() == masked


def test_the_model_is_left_as_it_came_even_if_it_forbids_gradients():
    subject, rec = recorded(tiny_subject(NoGradNet(), "relu"))
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    found = attack(rec, radii=(4,), steps=3)
    assert not torch.equal(found.images[0], rec.images)
    assert all(torch.equal(before[name], value) for name, value in subject.module.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in subject.module.parameters())
    assert not any(module._forward_hooks for module in subject.module.modules())
    assert not found.share.requires_grad
    assert not found.images[0].requires_grad
