"""What all methods that ask for the pixels again have in common."""

import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch

from camcore import cam
from camcore.cost import metered
from camcore.recording import Recording, ZeroGradient, record
from tests.questions import state_of
from tests.test_cam_pixels import asked
from tests.tiny import FlatNet, GapNet, NoGradNet, TokenNet, some_images

# every method that asks for the pixels of an image, cheaply, and how many forwards and backwards it takes per image
ASKING = {
    "gradient": (cam.gradient, 1, 1),
    "gradient_times_input": (cam.gradient_times_input, 1, 1),
    "smoothgrad": (partial(cam.smoothgrad, samples=5), 5, 5),
    "integrated_gradients": (partial(cam.integrated_gradients, steps=7), 7, 7),
    "occlusion": (partial(cam.occlusion, window=4, stride=3), 25, 0),
    "rise": (partial(cam.rise, masks=11), 11, 0),
}


@pytest.mark.parametrize("name", list(ASKING))
def test_map_of_an_image_depends_on_neither_batch_nor_chunk(name):
    method = ASKING[name][0]
    together = method(asked(FlatNet, chunk=4))
    for chunk in (1, 2, 7, 64):
        torch.testing.assert_close(method(asked(FlatNet, chunk=chunk)), together, rtol=1e-4, atol=1e-6)
    images = some_images(3)
    order = torch.tensor([2, 0, 1])
    shuffled = method(record(asked(FlatNet).subject, images[order], chunk=4))
    torch.testing.assert_close(shuffled, together[order], rtol=1e-4, atol=1e-6)
    for index in range(3):
        alone = method(record(asked(FlatNet).subject, images[index : index + 1], chunk=4))
        torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", list(ASKING))
def test_contrast_is_the_difference_of_two_maps(name):
    method = ASKING[name][0]
    target, other = torch.tensor([0, 1, 2]), torch.tensor([4, 0, 3])
    maps = [
        method(asked(dtype=torch.float64, target=classes, against=against))
        for classes, against in ((target, None), (other, None), (target, other))
    ]
    torch.testing.assert_close(maps[2], maps[0] - maps[1])
    assert (maps[2] < 0).any()


@pytest.mark.parametrize("name", list(ASKING))
def test_map_behind_a_wall_is_that_of_a_network_with_the_wall_built_in(name):
    def hide(features):
        seen = torch.arange(features.shape[2]) < 3
        return torch.where(seen[:, None], features, 0)

    class Walled(FlatNet):
        def forward(self, images):
            return self.dense(hide(self.relu(self.conv(images))).flatten(1))

    method = ASKING[name][0]
    target = torch.tensor([0, 1, 2])
    found = method(asked(FlatNet, behind=hide, target=target))
    torch.testing.assert_close(found, method(asked(Walled, target=target)), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found, method(asked(FlatNet, target=target)), rtol=1e-4, atol=1e-6)
    if name not in ("occlusion", "rise"):  # cell 2 of 8 reads the pixel rows 3 to 5
        assert not found[:, 6:].any()
        assert found[:, :6].any()


@pytest.mark.parametrize("name", list(ASKING))
def test_forwards_are_full_and_counted(name):
    method, forwards, backwards = ASKING[name]
    rec = asked()
    sizes = []
    handle = rec.subject.module.register_forward_hook(lambda _module, args, _output: sizes.append(len(args[0])))
    with metered() as cost:
        method(rec)
    handle.remove()
    total = 3 * forwards
    assert (cost.forwards, cost.backwards) == (total, 3 * backwards)
    assert sizes == [4] * (total // 4) + [total % 4] * (total % 4 > 0)


@pytest.mark.parametrize(
    ("method", "option"),
    [(cam.smoothgrad, "samples"), (cam.integrated_gradients, "steps"), (cam.rise, "masks")],
)
def test_what_is_held_does_not_grow_with_what_is_asked(method, option):
    def most_alive(many):
        given, alive = [], []

        def watch(images):
            alive.append(sum(ref() is not None for ref in given))
            given.append(weakref.ref(images))
            return images

        rec = asked()
        method(replace(rec, subject=replace(rec.subject, preprocess=watch)), **{option: many})
        assert len(given) == -(-3 * many // 4)
        return max(alive)

    assert most_alive(40) == most_alive(8) <= 1  # the one whose successor was made before it could be let go


@pytest.mark.parametrize("name", list(ASKING))
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_map_and_model_are_the_same_whatever_the_mode_of_the_caller(name, mode):
    method = ASKING[name][0]
    expected = method(asked(TokenNet, "block1"))
    subject = asked(TokenNet, "block1").subject
    for index, parameter in enumerate(subject.module.parameters()):
        parameter.requires_grad_(index % 2 == 0)
    weights = {key: value.clone() for key, value in subject.module.state_dict().items()}
    before, random_state = state_of(subject.module), torch.get_rng_state()
    with mode():
        images = some_images(3)
        if mode is torch.enable_grad:
            images.requires_grad_()
        found = method(record(subject, images, chunk=4))
    assert not found.requires_grad
    assert torch.equal(torch.get_rng_state(), random_state)
    assert state_of(subject.module) == before
    assert all(torch.equal(weights[key], value) for key, value in subject.module.state_dict().items())
    assert images.grad is None
    torch.testing.assert_close(found.clone(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", list(ASKING))
def test_map_keeps_the_digits_of_the_recording(name):
    method = ASKING[name][0]
    assert method(asked(dtype=torch.float64)).dtype == torch.float64
    assert method(asked(dtype=torch.float32)).dtype == torch.float32
    half = method(asked(dtype=torch.bfloat16))
    assert half.dtype == torch.float32
    full = method(asked(target=asked(dtype=torch.bfloat16).target))
    for one, other in zip(half, full, strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize("name", list(ASKING))
def test_a_recording_without_a_model_is_refused(name):
    rec = asked()
    by_hand = Recording(
        images=rec.images,
        logits=rec.logits,
        target=rec.target,
        activations=rec.activations,
        gradients=rec.gradients,
        layer="drawn",
    )
    with pytest.raises(ValueError, match="no model to ask again"):
        ASKING[name][0](by_hand)


class DetachedNet(GapNet):
    def forward(self, images):
        return super().forward(images.detach())


@pytest.mark.parametrize("name", list(ASKING))
def test_a_model_decorated_with_no_grad_is_explained_as_the_one_without(name):
    torch.testing.assert_close(ASKING[name][0](asked(NoGradNet)), ASKING[name][0](asked()))


@pytest.mark.parametrize("name", list(ASKING))
def test_a_model_that_cuts_its_gradients_off_is_asked_for_scores_alone(name):
    method, _, backwards = ASKING[name]
    if not backwards:
        torch.testing.assert_close(method(asked(DetachedNet)), method(asked()))
        return
    with pytest.raises(ZeroGradient, match="are cut off from its input"):
        method(asked(DetachedNet))
