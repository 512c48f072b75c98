import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from camcore import cam
from camcore.errors import BadInput
from camcore.recording import Recording, record
from camcore.seeds import generator
from tests.oracles import cam as oracle
from tests.tiny import CLASSES, FlatNet, GapNet, InPlaceNet, some_images, tiny_subject

LINEAR_IN_ACTIVATIONS = ("gradcam", "gradcam_plus_plus", "hirescam", "layercam", "xgradcam")
SCALE_FREE = ("gradcam", "hirescam", "layercam", "xgradcam", "eigengradcam")  # in the logits, up to a positive factor


def recording(activations, gradients):
    count = len(activations)
    return Recording(
        images=torch.zeros(count, 3, 4, 4),
        logits=torch.zeros(count, 2),
        target=torch.zeros(count, dtype=torch.long),
        activations=activations,
        gradients=gradients,
        layer="drawn",
    )


@st.composite
def drawn(draw, *, rectified=False):
    """A and g of shape (b, k, i, j), sparse or dense, gradients of any realistic size."""
    shape = [draw(st.integers(1, top)) for top in (3, 5, 4, 4)]
    draws = generator(draw(st.integers(0, 10_000)), "cam")
    activations = torch.randn(shape, generator=draws) * draw(st.sampled_from([0.01, 1, 100]))
    if rectified:
        activations = activations.relu()
    gradients = torch.randn(shape, generator=draws) * draw(st.sampled_from([1e-5, 1e-2, 1]))
    if draw(st.booleans()):
        gradients = gradients.relu()
    return recording(activations, gradients)


def assert_equals_oracle(found, expected, terms):
    """Equal within float32 rounding of the terms that are summed.

    Each number is a sum of n = k i j products, each rounded once or twice to 6e-8 and added with at most n more
    roundings: n * 2**-23 of the sum of magnitudes bounds the error (Higham 2002, section 3.1). `terms` is that sum.
    """
    bound = found.shape[-1] * found.shape[-2] * 8 * 2**-23 * float(terms) + 1e-30
    assert (found.double() - torch.tensor(expected, dtype=torch.float64)).abs().max() <= bound


@pytest.mark.parametrize("name", ["gradcam", "hirescam", "layercam"])
@given(rec=drawn())
def test_map_equals_the_papers_equation(name, rec):
    found = getattr(cam, name)(rec)
    for index, saliency in enumerate(found):
        features, gradients = oracle.channels(rec.activations[index]), oracle.channels(rec.gradients[index])
        terms = rec.activations[index].abs().amax() * rec.gradients[index].abs().amax() * len(features)
        assert_equals_oracle(saliency, getattr(oracle, name)(features, gradients), terms)


@given(rec=drawn(rectified=True))
def test_gradcam_plus_plus_equals_the_papers_equation_after_a_relu(rec):
    found = cam.gradcam_plus_plus(rec)
    for index, saliency in enumerate(found):
        features, gradients = oracle.channels(rec.activations[index]), oracle.channels(rec.gradients[index])
        # where ReLU(g) > 0 the denominator is at least 2, so alpha is at most 1/2 and its relative error tiny
        terms = rec.activations[index].abs().amax() * rec.gradients[index].abs().sum()
        assert_equals_oracle(saliency, oracle.gradcam_plus_plus(features, gradients), terms)


@given(rec=drawn())
def test_gradcam_plus_plus_equals_the_papers_equation_away_from_its_pole(rec):
    denominator = 2 + rec.gradients.double() * rec.activations.double().sum((2, 3), keepdim=True)
    positive = denominator[rec.gradients > 0].abs()
    assume(not len(positive) or positive.min() > 0.5)
    found = cam.gradcam_plus_plus(rec)
    # the error of the sum in the denominator, |g| sum|A| 2**-20, is at most as large as it; alpha is at most 2
    noise = 1 + (rec.gradients.abs() * rec.activations.abs().sum((2, 3), keepdim=True)).max()
    for index, saliency in enumerate(found):
        features, gradients = oracle.channels(rec.activations[index]), oracle.channels(rec.gradients[index])
        terms = 4 * noise * rec.activations[index].abs().amax() * rec.gradients[index].abs().sum()
        assert_equals_oracle(saliency, oracle.gradcam_plus_plus(features, gradients), terms)


def test_gradcam_plus_plus_keeps_its_weights_for_gradients_of_real_size():
    # an epsilon of 1e-6 beside g² would cost this map 92 % of its size
    activations = torch.rand(1, 4, 7, 7, generator=generator(0, "real size"))
    gradients = 1.5e-4 * torch.rand(1, 4, 7, 7, generator=generator(1, "real size"))
    found = cam.gradcam_plus_plus(recording(activations, gradients))[0]
    expected = oracle.gradcam_plus_plus(oracle.channels(activations[0]), oracle.channels(gradients[0]))
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=0)


@given(rec=drawn(rectified=True))
def test_xgradcam_equals_the_papers_equation_after_a_relu(rec):
    found = cam.xgradcam(rec)
    for index, saliency in enumerate(found):
        features, gradients = oracle.channels(rec.activations[index]), oracle.channels(rec.gradients[index])
        terms = rec.activations[index].abs().amax() * rec.gradients[index].abs().amax() * len(features)
        assert_equals_oracle(saliency, oracle.xgradcam(features, gradients), terms)


@given(rec=drawn())
def test_xgradcam_equals_the_papers_equation_for_features_of_both_signs(rec):
    features, products = rec.activations.double(), (rec.activations * rec.gradients).double()
    total, spread = features.sum((2, 3)).abs(), features.abs().sum((2, 3))
    assume((total > 0.01 * spread).all())  # nearer to cancelling out nothing is left of float32
    found = cam.xgradcam(rec)
    # shares of a weight: the roundings of n = i j numbers, more where the sum nearly cancels
    rounding = found[0].numel() * 2**-23
    error = products.abs().sum((2, 3)) / total * (rounding * spread / total + 2 * rounding)
    bound = (error[:, :, None, None] * features.abs()).sum(1) + 1e-30
    for index, saliency in enumerate(found):
        expected = oracle.xgradcam(oracle.channels(rec.activations[index]), oracle.channels(rec.gradients[index]))
        assert ((saliency - torch.tensor(expected, dtype=torch.float64)).abs() <= bound[index]).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_xgradcam_damps_towards_zero_whatever_the_sign_of_the_sum(sign):
    # the sum is a quarter of a millionth of the magnitudes: a stabiliser of fixed sign would turn a negative sum round
    nearly = sign * torch.tensor([[[[0.5, -0.5 + 2.0**-22]]]], dtype=torch.float64)
    gradients = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    weight = (cam.xgradcam(recording(nearly, gradients)) / nearly[:, 0])[0, 0, 0].item()
    total, spread = float(nearly.sum()), float(nearly.abs().sum())
    assert weight == pytest.approx(float(nearly[0, 0, 0, 0]) / (sign * 1e-6 * spread))
    assert 0 < weight < 0.5 * 0.5 * sign / total


def test_xgradcam_damps_a_channel_that_sums_to_nearly_nothing_and_drops_one_that_sums_to_nothing():
    activations = torch.tensor([[[[1.0, -1.0]], [[1.0, -1.0 + 1e-7]]]])
    gradients = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]])
    alone = cam.xgradcam(recording(activations[:, :1], gradients[:, :1]))
    assert not alone.any()
    damped = cam.xgradcam(recording(activations[:, 1:], gradients[:, 1:]))
    assert 0 < damped[0, 0, 0] < 1 / 1e-6  # without the stabiliser: 1 / 1.2e-7
    assert torch.isfinite(damped).all()


@given(rec=drawn(rectified=True))
def test_xgradcam_conserves_the_sum_of_gradient_times_activation(rec):
    total = (rec.activations * rec.gradients).double().sum((1, 2, 3))
    scale = (rec.activations * rec.gradients).double().abs().sum((1, 2, 3))
    assert ((cam.xgradcam(rec).double().sum((1, 2)) - total).abs() <= 1e-5 * scale + 1e-30).all()


@pytest.mark.parametrize("seed", range(3))
def test_hirescam_adds_up_to_the_score_less_bias_for_a_linear_head(seed):
    subject = tiny_subject(FlatNet(), "relu", seed=seed)
    rec = record(subject, some_images(4, seed=seed))
    scores = rec.logits.gather(1, rec.target[:, None])[:, 0] - subject.module.dense.bias[rec.target]
    torch.testing.assert_close(cam.hirescam(rec).sum((1, 2)), scores.detach())
    torch.testing.assert_close(cam.xgradcam(rec).sum((1, 2)), scores.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("net", [GapNet, InPlaceNet])
@pytest.mark.parametrize("target", range(CLASSES))
def test_cam_gradcam_hirescam_and_xgradcam_agree_for_a_mean_and_a_linear_head(net, target):
    subject = tiny_subject(net(), "relu")
    rec = record(subject, some_images(2), torch.full((2,), target))
    weights = subject.module.head.weight[target].tolist()
    places = rec.activations[0, 0].numel()
    for index in range(2):
        expected = torch.tensor(oracle.cam(weights, oracle.channels(rec.activations[index]))) / places
        for name in ("gradcam", "hirescam", "xgradcam"):
            torch.testing.assert_close(getattr(cam, name)(rec)[index], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-4, 0.1, 30])
@pytest.mark.parametrize("name", SCALE_FREE)
def test_scaling_the_logits_scales_the_map(name, factor):
    rec = record(tiny_subject(GapNet(), "relu"), some_images())
    scaled = recording(rec.activations, rec.gradients * factor)
    found, expected = getattr(cam, name)(scaled), getattr(cam, name)(rec) * factor
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=float(1e-5 * expected.abs().max()))


def test_gradcam_plus_plus_depends_on_the_scale_of_the_logits():
    rec = record(tiny_subject(FlatNet(), "relu"), some_images())
    plain, hot = cam.gradcam_plus_plus(rec), cam.gradcam_plus_plus(recording(rec.activations, rec.gradients * 30))
    assert not torch.allclose(plain / plain.abs().max(), hot / hot.abs().max(), atol=0.01)


@pytest.mark.parametrize("name", sorted(cam.RECORDED))
def test_order_of_the_channels_does_not_matter(name):
    rec = record(tiny_subject(FlatNet(), "relu"), some_images())
    order = torch.tensor([2, 0, 3, 1])
    permuted = recording(rec.activations[:, order], rec.gradients[:, order])
    torch.testing.assert_close(getattr(cam, name)(permuted), getattr(cam, name)(rec), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(cam.RECORDED))
def test_map_of_an_image_does_not_depend_on_its_batch(name):
    subject = tiny_subject(FlatNet(), "relu")
    images = some_images(4)
    together = getattr(cam, name)(record(subject, images))
    order = torch.tensor([3, 1, 0, 2])
    shuffled = getattr(cam, name)(record(subject, images[order]))
    torch.testing.assert_close(shuffled, together[order], rtol=1e-4, atol=1e-5)
    for index in range(4):
        alone = getattr(cam, name)(record(subject, images[index : index + 1]))
        torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(cam.RECORDED))
def test_map_moves_with_the_image_on_a_circular_net(name):
    # stride 2 after a circular stride 1: a shift by two pixels is a shift by one cell
    subject = tiny_subject(GapNet(padding_mode="circular"), "relu")
    images = some_images(2)
    still = getattr(cam, name)(record(subject, images))
    moved = getattr(cam, name)(record(subject, images.roll((2, -4), (2, 3))))
    torch.testing.assert_close(moved, still.roll((1, -2), (1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(cam.RECORDED))
def test_map_flips_with_the_image_on_a_net_with_symmetric_filters(name):
    subject = tiny_subject(InPlaceNet(), "relu")
    weight = subject.module.conv.weight
    with torch.no_grad():
        weight.copy_((weight + weight.flip(3)) / 2)
    subject.module.conv.stride = (1, 1)  # a stride of two starts at one side
    images = some_images(2)
    still = getattr(cam, name)(record(subject, images))
    flipped = getattr(cam, name)(record(subject, images.flip(3)))
    torch.testing.assert_close(flipped, still.flip(2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LINEAR_IN_ACTIVATIONS)
def test_maps_are_signed(name):
    activations = torch.randn(1, 3, 4, 4, generator=generator(0, "signed"))
    found = getattr(cam, name)(recording(activations, torch.ones(1, 3, 4, 4)))
    assert (found < 0).any()
    assert (found > 0).any()


@pytest.mark.parametrize("name", sorted(cam.RECORDED))
def test_zero_activations_give_a_zero_map(name):
    gradients = torch.randn(2, 3, 4, 4, generator=generator(0, "zero"))
    assert torch.equal(getattr(cam, name)(recording(torch.zeros(2, 3, 4, 4), gradients)), torch.zeros(2, 4, 4))


@pytest.mark.parametrize("name", sorted(set(cam.RECORDED) - {"eigencam"}))
def test_zero_gradients_give_a_zero_map(name):
    activations = torch.randn(2, 3, 4, 4, generator=generator(0, "zero"))
    assert torch.equal(getattr(cam, name)(recording(activations, torch.zeros(2, 3, 4, 4))), torch.zeros(2, 4, 4))


@pytest.mark.parametrize("name", sorted(cam.RECORDED))
def test_methods_leave_the_recording_alone(name):
    rec = record(tiny_subject(FlatNet(), "relu"), some_images())
    activations, gradients = rec.activations.clone(), rec.gradients.clone()
    saliency = getattr(cam, name)(rec)
    assert saliency.shape == (3, 8, 8)
    assert torch.equal(rec.activations, activations)
    assert torch.equal(rec.gradients, gradients)


def test_every_method_is_found_by_its_name():
    expected = {"gradcam", "gradcam_plus_plus", "xgradcam", "hirescam", "layercam", "eigencam", "eigengradcam"}
    assert expected <= set(cam.METHODS)
    for name, method in cam.METHODS.items():
        assert cam.find_cam(name) is method is getattr(cam, name)


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("grad_cam", "gradcam"),
        ("Grad-CAM", "gradcam"),
        ("HiResCAM", "hirescam"),
        ("hirescan", "hirescam"),
        ("Layer-CAM", "layercam"),
        ("eigen_cam", "eigencam"),
        ("gradcam++", "gradcam"),
    ],
)
def test_an_unknown_method_is_refused_with_the_nearest_name(asked, near):
    with pytest.raises(BadInput) as refusal:
        cam.find_cam(asked)
    assert f"no CAM method named {asked!r}; did you mean {near!r}?" in str(refusal.value)


def test_an_unknown_method_unlike_any_is_refused_with_all_names():
    with pytest.raises(BadInput) as refusal:
        cam.find_cam("zzz")
    assert "did you mean" not in str(refusal.value)
    assert str(refusal.value).endswith(f"known: {', '.join(sorted(cam.METHODS))}, or all")
