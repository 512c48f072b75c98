"""What the gradient CAMs cost, as counts: forwards, backwards, graphs. Seconds are measured in benchmarks/."""

import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.gradient_cams import SEVEN
from benchmarks.timing import Times, interleave, peak_allocated, write_section
from camcore.cam import RECORDED
from camcore.cost import metered
from camcore.images import Geometry, Images
from camcore.layers import with_target_layer
from camcore.recording import Recording, record
from camcore.seeds import generator
from camcore.subject import Classifier

BATCH = 4
SIZE = 32


class Witness:
    """Lives exactly as long as the autograd node it was put on."""


class Counted(torch.autograd.Function):
    """The identity; says how many images passed, in which direction."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, log: list[tuple[str, int]], where: str, witnesses: list[Any]) -> Tensor:
        log.append((f"forward {where}", len(features)))
        ctx.log, ctx.where, ctx.witness = log, where, Witness()
        witnesses.append(weakref.ref(ctx.witness))
        return features.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.log.append((f"backward {ctx.where}", len(gradient)))
        return gradient, None, None, None


class Count(nn.Module):
    def __init__(self, where: str, log: list[tuple[str, int]], witnesses: list[Any]) -> None:
        super().__init__()
        self.where, self.log, self.witnesses = where, log, witnesses

    def forward(self, features: Tensor) -> Tensor:
        return Counted.apply(features, self.log, self.where, self.witnesses)


class CountedNet(nn.Module):
    """A stem, a body that is explained, a head with one more convolution; a counter before and after the body."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, int]] = []
        self.witnesses: list[Any] = []
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(inplace=True))
        self.below = Count("below", self.log, self.witnesses)
        self.body = nn.Sequential(nn.Conv2d(8, 96, 3, padding=1), nn.ReLU(inplace=True))
        self.above = Count("above", self.log, self.witnesses)
        self.mix = nn.Sequential(nn.Conv2d(96, 12, 3, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.above(self.body(self.below(self.stem(images))))
        return self.head(self.mix(features).mean((2, 3)))


@pytest.fixture(params=["trainable", "frozen"])
def subject(request: pytest.FixtureRequest) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = CountedNet().eval().requires_grad_(request.param == "trainable")
    return Classifier(
        name="counted",
        spec="test:counted",
        module=module,
        geometry=Geometry(crop=(SIZE, SIZE)),
        target_layer="body",
        classes=tuple("abcde"),
    )


@pytest.fixture
def images() -> Images:
    return torch.rand((BATCH, 3, SIZE, SIZE), generator=generator(0, "gradient cost"))


def seven(recording: Recording) -> dict[str, Tensor]:
    return {name: RECORDED[name](recording) for name in SEVEN}


@pytest.fixture
def outputs(subject: Classifier) -> Iterator[dict[str, Tensor]]:
    """What the modules of the subject gave, by name, in the last forward."""
    given: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _args, output: given.update({name: output})

    handles = [layer.register_forward_hook(keep(name)) for name, layer in subject.module.named_children()]
    yield given
    for handle in handles:
        handle.remove()


def test_seven_cams_of_a_batch_cost_one_forward_and_one_backward(subject, images):
    with metered() as cost:
        seven(record(subject, images))
    assert (cost.forwards, cost.backwards) == (BATCH, BATCH)
    assert subject.module.log == [("forward below", BATCH), ("forward above", BATCH), ("backward above", BATCH)]


def test_the_counters_notice_a_second_recording(subject, images):
    with metered() as cost:
        for _ in SEVEN:
            record(subject, images)
    assert (cost.forwards, cost.backwards) == (7 * BATCH, 7 * BATCH)
    assert Counter(subject.module.log)["backward above", BATCH] == 7


def test_no_graph_is_built_below_the_layer(subject, images, outputs):
    record(subject, images)
    assert not outputs["stem"].requires_grad
    assert not outputs["below"].requires_grad
    assert outputs["above"].requires_grad


def test_below_a_trainable_layer_a_plain_forward_builds_a_graph(subject, images, outputs):
    subject.module.requires_grad_(True)
    subject.logits(images)
    assert outputs["below"].requires_grad


def test_no_parameter_is_left_with_a_gradient(subject, images):
    seven(record(subject, images))
    assert [name for name, parameter in subject.module.named_parameters() if parameter.grad is not None] == []


def test_a_gradient_that_was_there_before_stays_as_it_was(subject, images):
    for parameter in subject.module.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    seven(record(subject, images))
    assert all((parameter.grad == 7).all() for parameter in subject.module.parameters())


def test_no_map_and_no_recording_asks_for_a_gradient(subject, images):
    recording = record(subject, images)
    held = {"logits": recording.logits, "A": recording.activations, "g": recording.gradients, **seven(recording)}
    assert [name for name, tensor in held.items() if tensor.requires_grad or tensor.grad_fn is not None] == []


def test_the_graph_is_gone_when_the_recording_returns(subject, images):
    recording = record(subject, images)
    maps = seven(recording)
    assert len(subject.module.witnesses) == 2
    assert [witness() for witness in subject.module.witnesses] == [None, None]
    assert len(maps) == 7


def test_a_graph_that_is_kept_would_be_noticed(subject, images):
    subject.module.requires_grad_(True)
    logits = subject.logits(images)
    assert all(witness() is not None for witness in subject.module.witnesses)
    assert logits.requires_grad


def test_the_eigen_maps_decompose_at_most_the_smaller_gram_matrix(subject, images, monkeypatch):
    recording = record(subject, images)
    sides: list[tuple[int, ...]] = []
    eigh = torch.linalg.eigh

    def refuse(*_args: Any, **_options: Any) -> None:
        raise AssertionError("a full decomposition of (places, channels)")

    def seen(matrix: Tensor) -> Any:
        sides.append(tuple(matrix.shape))
        return eigh(matrix)

    for name in ("svd", "svdvals", "eig", "qr"):
        monkeypatch.setattr(torch.linalg, name, refuse)
    for name in ("svd", "svd_lowrank", "pca_lowrank"):
        monkeypatch.setattr(torch, name, refuse)
    monkeypatch.setattr(torch.linalg, "eigh", seen)
    seven(recording)
    places, channels = (SIZE // 4) ** 2, 96
    # the features are rectified: Eigen-CAM needs no decomposition; times gradients of both signs, EigenGrad-CAM does
    assert sides == [(BATCH, places, places)]
    assert places < channels


def test_each_layer_of_a_resnet_runs_once_for_seven_cams():
    from fixtures.subjects.torchvision import load

    subject = load("resnet18", "random:0")
    subject.module.eval()
    subject = with_target_layer(subject)
    runs: Counter[str] = Counter()
    handles = [
        layer.register_forward_hook(lambda _module, args, _output, name=name: runs.update({(name, len(args[0])): 1}))
        for name, layer in subject.module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    images = torch.rand((2, 3, 64, 64), generator=generator(0, "resnet"))
    with metered() as cost:
        maps = seven(record(subject, images))
    for handle in handles:
        handle.remove()
    assert (cost.forwards, cost.backwards) == (2, 2)
    assert len(runs) == 21
    assert set(runs.values()) == {1}
    assert {size for _, size in runs} == {2}
    assert all(saliency.shape == (2, 2, 2) and saliency.isfinite().all() for saliency in maps.values())


def test_every_timing_stands_between_two_of_the_baseline():
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "xyz"}
    times = interleave(lambda: order.append("-"), calls, rounds=3, tidy=lambda: None)
    assert "".join(order) == "-x-y-z-" + "-y-z-x-" + "-z-x-y-"
    assert {name: len(one.ratios) for name, one in times.items()} == {"x": 3, "y": 3, "z": 3}


def test_the_middle_half_leaves_a_disturbed_round_out():
    times = Times(seconds=(1.0,) * 5, ratios=(1.0, 1.1, 1.2, 1.3, 80.0))
    assert times.middle_half == pytest.approx((1.1, 1.3))


def test_a_written_section_replaces_itself_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- begin a -->\nold\n<!-- end a -->\n\nafter\n")
    write_section(page, "a", "new")
    write_section(page, "b", "other")
    assert page.read_text() == (
        "# Title\n\n<!-- begin a -->\nnew\n<!-- end a -->\n\nafter\n\n<!-- begin b -->\nother\n<!-- end b -->\n"
    )


def test_the_memory_of_tensors_is_counted_at_its_peak():
    def call():
        first = torch.zeros(1000, 250)
        second = first + 1
        del first
        return second * 2

    assert 2_000_000 <= peak_allocated(call) < 2_001_000  # two at a time, of three
