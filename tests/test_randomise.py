import pytest
import torch
from torch import Tensor, nn

from camcore.randomise import execution, fresh, matched, randomised
from camcore.seeds import generator
from tests.tiny import GapNet, SharedReluNet, TokenNet, as_they_are, some_images, tiny_subject


class LastFirstNet(nn.Module):
    """Registers its layers in the opposite order of their use, and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 5)
        self.idle = nn.Linear(2, 2)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 0.5))

    def forward(self, images: Tensor) -> Tensor:
        return self.head((self.scale * self.norm(self.second(self.first(images)))).relu().mean((2, 3)))


class TwoConvolutions(nn.Module):
    """Two layers of one shape and one more that shares the first one's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.tied = nn.Conv2d(3, 3, 3, padding=1)
        self.tied.weight = self.conv1.weight
        self.head = nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.tied(self.conv2(self.conv1(images)).relu()).mean((2, 3)))


def ran(net, **options):
    subject = tiny_subject(net, **options)
    return subject, execution(subject, some_images(1))


def names(found):
    return [stage.name for stage in found.stages]


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_stages_are_ordered_by_use_and_not_by_registration():
    _, found = ran(LastFirstNet())
    # what never runs is in the stage of the nearest module around it, from its start: the network itself
    assert names(found) == ["idle.weight, idle.bias", "first", "second", "norm", "scale", "head"]
    assert [stage.first_use for stage in found.stages] == sorted(stage.first_use for stage in found.stages)


def test_tokens_and_weights_that_attention_reads_without_calling_their_owner_have_stages():
    _, found = ran(TokenNet())
    assert names(found) == [
        "patches",
        "class_token",
        *(f"block{block}.{part}" for block in (1, 2) for part in ("norm1", "attention", "norm2", "dense")),
        "norm",
        "head",
    ]
    attention = next(stage for stage in found.stages if stage.name == "block1.attention")
    assert {name.removeprefix("block1.attention.") for name in attention.tensors} == {
        "in_proj_weight",
        "in_proj_bias",
        "out_proj.weight",
        "out_proj.bias",
    }


@pytest.mark.parametrize("net", [GapNet, SharedReluNet, TokenNet, LastFirstNet, TwoConvolutions])
def test_every_parameter_and_running_statistic_is_in_one_stage(net):
    subject, found = ran(net())
    module = subject.module
    statistics = [name for name, _ in module.named_buffers() if "running" in name]
    listed = [name for stage in found.stages for name in stage.tensors]
    assert sorted(listed) == sorted([name for name, _ in module.named_parameters()] + statistics)


def test_tied_weights_belong_to_their_first_use():
    _, found = ran(TwoConvolutions())
    assert {stage.name: stage.tensors for stage in found.stages}["conv1"] == ("conv1.weight", "conv1.bias")
    assert names(found) == ["conv1", "conv2", "tied", "head"]


@pytest.mark.slow
def test_resnet18_has_its_41_stages_in_order_with_the_shortcut_after_the_branch():
    from fixtures.subjects.torchvision import load

    subject = load("resnet18", "random:0")
    subject.module.eval()
    found = names(execution(subject, torch.rand((1, 3, 64, 64), generator=generator(0, "resnet"))))
    assert len(found) == 41
    assert found[:2] == ["conv1", "bn1"]
    assert found[-1] == "fc"
    registered = [
        name for name, part in subject.module.named_modules() if next(part.parameters(recurse=False), None) is not None
    ]
    assert sorted(registered) == sorted(found)


@pytest.mark.slow
def test_all_parameters_of_a_vit_are_reached():
    from torchvision.models import vit_b_16

    module = vit_b_16(weights=None, image_size=32, num_classes=5).eval()
    subject = tiny_subject(module, seed=None, size=32)
    found = execution(subject, some_images(1, size=32))
    assert sum(len(stage.tensors) for stage in found.stages) == len(list(module.parameters()))
    first = names(found)[:4]
    assert first == ["conv_proj", "class_token", "encoder.pos_embedding", "encoder.layers.encoder_layer_0.ln_1"]


@pytest.mark.parametrize("net", [LastFirstNet, TokenNet])
@pytest.mark.parametrize("initialise", [fresh, matched])
def test_every_tensor_changes_inside_and_is_back_to_the_bit_outside(net, initialise):
    subject, found = ran(net())
    with torch.no_grad():
        for name, buffer in subject.module.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand(buffer.shape, generator=generator(0, name)) + 1.5)
    before, owned = state(subject.module), {name: p.data_ptr() for name, p in subject.module.named_parameters()}
    objects = list(subject.module.parameters())
    for stage in found.stages:
        with randomised(subject, stage, seed=0, initialise=initialise):
            now = state(subject.module)
        changed = {name for name in now if not torch.equal(now[name], before[name])}
        assert changed == set(stage.tensors)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.module.state_dict().items())
    assert {name: p.data_ptr() for name, p in subject.module.named_parameters()} == owned
    assert all(one is other for one, other in zip(subject.module.parameters(), objects, strict=True))
    assert all(parameter.requires_grad for parameter in objects)


def test_weights_are_put_back_when_the_block_raises():
    subject, found = ran(GapNet())
    before = state(subject.module)
    with pytest.raises(RuntimeError, match="inside"), randomised(subject, found.stages[0], seed=0):
        raise RuntimeError("inside")
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.module.state_dict().items())


def drawn(subject, stage, **options):
    with randomised(subject, stage, **options):
        return {name: subject.module.state_dict()[name].clone() for name in stage.tensors}


def test_layers_of_one_shape_get_different_weights_and_draws_differ_and_repeat():
    subject, found = ran(TwoConvolutions())
    one, other = (drawn(subject, stage, seed=0)[f"{stage.name}.weight"] for stage in found.stages[:2])
    again = drawn(subject, found.stages[0], seed=0)["conv1.weight"]
    second = drawn(subject, found.stages[0], seed=0, draw=1)["conv1.weight"]
    reseeded = drawn(subject, found.stages[0], seed=1)["conv1.weight"]
    assert torch.equal(one, again)
    for different in (other, second, reseeded):
        assert one.sub(different).abs().amax() > 0.01


def test_a_stage_is_drawn_alike_whatever_else_is_random():
    subject, found = ran(TwoConvolutions())
    alone = drawn(subject, found.stages[0], seed=0)
    with randomised(subject, found.stages[1], seed=0):
        assert torch.equal(drawn(subject, found.stages[0], seed=0)["conv1.weight"], alone["conv1.weight"])


def test_the_global_random_state_is_left_alone():
    subject, found = ran(GapNet())
    before = torch.get_rng_state()
    drawn(subject, found.stages[0], seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "shape", "value"),
    [("bn.weight", (7,), 1), ("conv.bias", (7,), 0), ("bn.running_mean", (7,), 0), ("bn.running_var", (7,), 1)],
)
def test_norms_biases_and_statistics_start_where_training_starts(name, shape, value):
    assert (fresh(name, torch.full(shape, 3.0), generator(0)) == value).all()


def test_fresh_weights_keep_the_variance_of_what_goes_through_a_relu():
    weights = fresh("conv.weight", torch.zeros(200, 50, 3, 3), generator(0))
    assert weights.std().item() == pytest.approx((2 / 450) ** 0.5, rel=0.01)
    assert weights.mean().abs() < 1e-3


@pytest.mark.parametrize("name", ["class_token", "relative_position_bias_table", "layer_scale"])
def test_what_has_no_convention_keeps_its_mean_and_spread(name):
    tensor = 3 + 0.1 * torch.randn(1, 50, 80, generator=generator(0, "trained"))
    found = fresh(name, tensor, generator(1))
    assert (found.mean().item(), found.std().item()) == pytest.approx((3, 0.1), rel=0.05)
    assert torch.corrcoef(torch.stack([found.flatten(), tensor.flatten()]))[0, 1].abs() < 0.1


@pytest.mark.parametrize(("value", "spread"), [(2.0, 2.0), (0.0, 0.02)])
def test_what_is_all_equal_is_spread_by_its_size(value, spread):
    found = matched("scale", torch.full((100, 100), value), generator(0))
    assert found.std().item() == pytest.approx(spread, rel=0.05)


def test_memory_format_type_and_preprocessing_are_kept():
    subject = tiny_subject(GapNet(), preprocess=as_they_are)
    subject.module.to(memory_format=torch.channels_last, dtype=torch.float64)
    found = execution(subject, some_images(1).double())
    with randomised(subject, found.stages[0], seed=0):
        weight = subject.module.conv1.weight
        assert weight.dtype == torch.float64
        assert weight.is_contiguous(memory_format=torch.channels_last)


def test_watching_leaves_no_hook():
    subject, _ = ran(TokenNet())
    for part in subject.module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
