from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from camcore.cam import RECORDED
from camcore.cascade import certified, every_stage, half_random, later_half, one_by_one, spread, top_down
from camcore.cost import metered
from camcore.hooks import standing_in
from camcore.randomise import execution, randomised
from camcore.recording import record
from tests.oracles import randomisation as oracle
from tests.tiny import GapNet, InPlaceNet, SharedReluNet, TokenNet, some_images, tiny_subject


class Block(nn.Module):
    """A residual block whose last ReLU rewrites the sum, and whose first rewrites what the norm gave."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        branch = self.conv2(self.relu(self.norm(self.conv1(features))))
        branch += features
        return self.relu(branch)


class DeepNet(nn.Module):
    """Four blocks in two containers and a head with a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.low = nn.Sequential(Block(4), Block(4))
        self.high = nn.Sequential(Block(4), Block(4))
        self.hidden = nn.Linear(4, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.hidden(self.high(self.low(self.stem(images))).mean((2, 3))).relu())


class RewritingNet(DeepNet):
    """Keeps a layer's output, and reads it again after somebody has rewritten it in place."""

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        rectified = self.low[0].relu(stem)
        return self.head(self.hidden(self.high(self.low(rectified)).mean((2, 3)) + stem.mean((2, 3))).relu())


class RememberingNet(GapNet):
    """Its second layer reads what the first one left in an attribute, behind the graph's back."""

    def forward(self, images: Tensor) -> Tensor:
        self.conv1.scale = None
        features = self.conv1(images)
        return self.head(self.relu(self.conv2(features)).mean((2, 3))) * self.conv1.scale


class Remembering(nn.Conv2d):
    def forward(self, features: Tensor) -> Tensor:
        self.scale = features.mean()
        return super().forward(features)


NETS = {
    "deep": (DeepNet, "high"),
    "target in the middle": (DeepNet, "low.1"),
    "target inside a block": (DeepNet, "high.1.conv1"),
    "rewriting": (RewritingNet, "high"),
    "gap": (GapNet, "conv2"),
    "in place": (InPlaceNet, "conv"),
    "shared ReLU": (SharedReluNet, "conv2"),
    "tokens": (TokenNet, "block2.norm1"),
}
every_net = pytest.mark.parametrize("net", NETS)


def made(name, count=3):
    build, layer = NETS[name]
    subject = tiny_subject(build(), layer)
    images = some_images(count)
    return subject, images, execution(subject, images[:1])


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def drawn(subject, found, draw=0):
    weights = {}
    for stage in found.stages:
        with randomised(subject, stage, seed=0, draw=draw):
            weights |= {name: subject.module.state_dict()[name].clone() for name in stage.tensors}
    return weights


@every_net
def test_the_cascade_equals_copies_of_the_model_run_in_full_to_the_bit(net):
    subject, images, found = made(net)
    target = record(subject, images).target
    weights = drawn(subject, found)
    slow = oracle.cascade(subject, images, target, [stage.tensors for stage in found.stages], weights.__getitem__)
    with half_random(subject, images, replace(found, reusable=True), seed=0, chunk=4) as under:
        under(())
        fast = [under(stages, target) for stages in top_down(found)]
    assert len(fast) == len(found.stages)
    assert all(oracle.same(*pair) for pair in zip(fast, slow, strict=True))


@every_net
def test_each_stage_alone_equals_a_copy_with_that_stage_replaced(net):
    subject, images, found = made(net)
    target = record(subject, images).target
    weights = drawn(subject, found)
    with half_random(subject, images, replace(found, reusable=True), seed=0, chunk=4) as under:
        for stages in one_by_one(found):
            (index,) = stages
            one = {name: weights[name] for name in found.stages[index].tensors}
            assert oracle.same(under(stages, target), oracle.recorded(subject, images, target, one))


@pytest.mark.parametrize("net", ["deep", "tokens"])
def test_any_order_of_steps_draws_and_classes_gives_the_same(net):
    subject, images, found = made(net)
    target = record(subject, images).target
    steps = [
        ((), target, 0),
        (every_stage(found), target, 1),
        (later_half(found), (target + 1) % 5, 0),
        ((0,), target, 0),
        ((), (target + 1) % 5, 0),
        (every_stage(found), target, 0),
        ((len(found.stages) - 1,), target, 1),
    ]
    with half_random(subject, images, replace(found, reusable=True), seed=0, chunk=4) as under:
        fast = [under(*step) for step in steps]
    for rec, (stages, classes, draw) in zip(fast, steps, strict=True):
        weights = drawn(subject, found, draw)
        names = [name for index in stages for name in found.stages[index].tensors]
        assert oracle.same(rec, oracle.recorded(subject, images, classes, {name: weights[name] for name in names}))


@every_net
def test_every_net_is_certified_and_the_model_is_left_as_it_came(net):
    subject, images, found = made(net)
    before, modes = state(subject.module), [part.training for part in subject.module.modules()]
    assert certified(subject, images[:1], found, [frozenset(), *top_down(found)], seed=0).reusable
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.module.state_dict().items())
    assert [part.training for part in subject.module.modules()] == modes
    for part in subject.module.modules():
        assert "forward" not in vars(part)
        assert not part._forward_hooks
    assert all(parameter.grad is None and parameter.requires_grad for parameter in subject.module.parameters())


def remembering():
    net = RememberingNet()
    net.conv1 = Remembering(3, 4, 3, padding=1)
    subject = tiny_subject(net, None)
    net.conv1.scale = torch.ones(())
    return replace(tiny_subject(net, "conv2"), module=net), subject


def test_a_network_that_passes_things_on_in_secret_is_not_certified_and_runs_in_full():
    subject, _ = remembering()
    images = some_images(2)
    found = execution(subject, images[:1])
    checked = certified(subject, images[:1], found, [frozenset(), *top_down(found)], seed=0)
    assert not checked.reusable
    with half_random(subject, images, checked, seed=0, chunk=4) as under, metered() as cost:
        runs = []
        handle = subject.module.conv1.register_forward_hook(lambda *_: runs.append("conv1"))
        under(())
        under(every_stage(found))
        under((len(found.stages) - 1,))
        handle.remove()
    assert len(runs) == 3
    assert cost.forwards == 6


def counted(subject, images, found, steps):
    """How often each convolution and dense layer runs on its own weights."""
    runs = dict.fromkeys(("low.0.conv1", "low.1.conv2", "high.0.conv1", "high.1.conv2", "head"), 0)
    kernels = {id(subject.module.get_submodule(name).weight): name for name in runs}
    conv, dense = nn.functional.conv2d, nn.functional.linear

    class Counting(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in (conv, dense, torch.conv2d) and id(args[1]) in kernels:
                runs[kernels[id(args[1])]] += 1
            return func(*args, **(kwargs or {}))

    with half_random(subject, images, found, seed=0, chunk=4) as under:
        target = under(()).target
        with Counting():
            for stages in steps:
                under(stages, target)
    return runs


def test_what_no_change_reaches_does_not_run_again():
    subject, images, found = made("deep")
    steps = top_down(found)
    total = len(steps)
    assert total == 15  # stem, four blocks of three, hidden, head
    runs = counted(subject, images, replace(found, reusable=True), steps)
    in_full = counted(subject, images, found, steps)
    assert set(in_full.values()) == {total}
    # from the change upwards at every step, and once more for each container that the change enters
    assert runs["head"] == total
    assert runs["high.1.conv2"] == total - 2 + 0
    assert runs["high.0.conv1"] <= (total - 2 - 5) + 2
    assert runs["low.1.conv2"] <= (total - 2 - 6) + 2
    assert runs["low.0.conv1"] <= 2 + 2
    assert sum(runs.values()) < 0.7 * sum(in_full.values())


def test_another_class_costs_the_suffix_alone():
    subject, images, found = made("deep")
    runs = counted(subject, images, replace(found, reusable=True), [frozenset()])
    assert runs == {"low.0.conv1": 0, "low.1.conv2": 0, "high.0.conv1": 0, "high.1.conv2": 0, "head": 1}


def test_one_recording_per_stage_serves_all_gradient_cams():
    subject, images, found = made("deep")
    with half_random(subject, images, replace(found, reusable=True), seed=0, chunk=4) as under, metered() as cost:
        target = under(()).target
        maps = [[cam(rec) for cam in RECORDED.values()] for rec in (under(s, target) for s in top_down(found))]
    assert len(maps) == 15
    assert (cost.forwards, cost.backwards) == (16 * len(images), 16 * len(images))


@pytest.mark.slow
def test_resnet18_in_41_stages_asks_42_forwards_and_runs_its_first_layer_twice():
    from camcore.layers import with_target_layer
    from fixtures.subjects.torchvision import load

    subject = load("resnet18", "random:0")
    subject.module.eval()
    subject = with_target_layer(subject)
    images = some_images(1, size=64)
    found = replace(execution(subject, images), reusable=True)
    kernels, runs = {}, []

    class Counting(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if len(args) > 1 and id(args[1]) in kernels:
                runs.append(kernels[id(args[1])])
            return func(*args, **(kwargs or {}))

    kernels |= {id(part.weight): name for name, part in subject.module.named_modules() if isinstance(part, nn.Conv2d)}
    with metered() as cost, half_random(subject, images, found, seed=0, chunk=4) as under, Counting():
        target = under(()).target
        for stages in top_down(found):
            under(stages, target)
    assert cost.forwards == 42
    assert runs.count("conv1") == 2  # for the original, and when it is random itself
    # 42 whole forwards would run all 20 convolutions 840 times
    assert len(runs) <= 0.6 * 840


def test_a_method_may_ask_the_model_while_it_is_random():
    subject, images, found = made("deep")
    with half_random(subject, images, replace(found, reusable=True), seed=0, chunk=4) as under, torch.no_grad():
        intact = subject.logits(images)
        rec = under(every_stage(found))
        torch.testing.assert_close(subject.logits(images), rec.logits)
        assert (rec.logits - intact).abs().amax() > 1e-3
        under(())
        torch.testing.assert_close(subject.logits(images), intact)


@pytest.mark.parametrize("reusable", [True, False])
def test_weights_and_forwards_are_put_back_when_the_block_raises(reusable):
    subject, images, found = made("deep")
    before = state(subject.module)
    found = replace(found, reusable=reusable)

    def ask_for_a_class_that_is_not_there():
        with half_random(subject, images, found, seed=0, chunk=4) as under:
            under(every_stage(found))
            under(later_half(found), torch.full((3,), 99))

    with pytest.raises(ValueError, match="out of range"):
        ask_for_a_class_that_is_not_there()
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.module.state_dict().items())
    assert all("forward" not in vars(part) for part in subject.module.modules())


def test_a_forward_that_somebody_put_there_is_put_back():
    net = GapNet()
    own = net.conv1.forward
    net.conv1.forward = lambda features: own(features) * 2
    with standing_in(net, {"conv1": lambda features: features, "conv2": lambda features: features}):
        assert net.conv2(torch.ones(1)).item() == 1
    assert net.conv1(torch.zeros(1, 3, 4, 4)).equal(2 * own(torch.zeros(1, 3, 4, 4)))
    assert "forward" not in vars(net.conv2)


def test_steps_of_the_cascade_grow_from_the_output_down():
    _, _, found = made("gap")
    assert [sorted(step) for step in top_down(found)] == [[2], [1, 2], [0, 1, 2]]
    assert [sorted(step) for step in one_by_one(found)] == [[2], [1], [0]]
    assert sorted(later_half(found)) == [1, 2]
    assert sorted(every_stage(found)) == [0, 1, 2]


@pytest.mark.parametrize(("count", "most"), [(3, 5), (5, 5), (41, 24), (467, 24), (7, 2)])
def test_a_spread_of_steps_has_the_first_and_the_last_and_is_even(count, most):
    steps = [frozenset({index}) for index in range(count)]
    found = [next(iter(step)) for step in spread(steps, most)]
    assert len(found) == min(count, most)
    assert (found[0], found[-1]) == (0, count - 1)
    gaps = {b - a for a, b in pairwise(found)}
    assert max(gaps) - min(gaps) <= 1
