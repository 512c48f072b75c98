"""What a recording leaves behind, which is nothing, and which parts of the network it runs to get there."""

import pytest

from camcore.cost import metered
from camcore.recording import features, record, record_layers, run_behind
from tests.recorded import every_net, traces
from tests.tiny import DictNet, GapNet, RaisingNet, SharedReluNet, some_images, tiny_subject


@every_net
def test_record_leaves_no_trace(net, layer):
    subject = tiny_subject(net(), layer)
    before = traces(subject.module)
    record(subject, some_images())
    assert traces(subject.module) == before


def test_record_leaves_no_trace_when_the_forward_raises():
    subject = tiny_subject(DictNet(), "relu")
    broken = tiny_subject(RaisingNet(), seed=None)
    broken.module.load_state_dict(subject.module.state_dict())
    broken.module.eval()
    before = traces(broken.module)
    with pytest.raises(RuntimeError, match="the forward broke"):
        record(broken, some_images(), layer="relu")
    assert traces(broken.module) == before


def test_record_leaves_no_trace_when_it_refuses():
    subject = tiny_subject(SharedReluNet(), "conv2")
    before = traces(subject.module)
    with pytest.raises(ValueError, match="more than once"):
        record(subject, some_images(), layer="relu")
    with pytest.raises(ValueError, match="no layer"):
        record_layers(subject, some_images(), layers=["conv1", "conv9"])
    assert traces(subject.module) == before


def test_run_behind_and_features_leave_no_trace():
    subject = tiny_subject(GapNet(), "relu")
    before = traces(subject.module)
    features(subject, some_images())
    run_behind(subject, some_images(), lambda activations: activations * 0)
    assert traces(subject.module) == before


def test_no_graph_is_built_below_the_target_layer():
    subject = tiny_subject(GapNet(), "relu")
    asks = {}

    def note(name):
        return lambda _module, _args, output: asks.__setitem__(name, output.requires_grad)

    handles = [part.register_forward_hook(note(name)) for name, part in subject.module.named_children()]
    record(subject, some_images())
    for handle in handles:
        handle.remove()
    # the notes are hooked in first, so the target's own raw output is seen before the graph starts
    assert asks == {"conv1": False, "conv2": False, "relu": False, "head": True}


def test_record_runs_every_layer_once_and_counts_one_forward_and_one_backward_per_image():
    subject = tiny_subject(GapNet(), "relu")
    calls = []
    handle = subject.module.conv1.register_forward_hook(lambda _module, _args, output: calls.append(len(output)))
    with metered() as cost:
        record(subject, some_images(3))
    handle.remove()
    assert calls == [3]
    assert (cost.forwards, cost.backwards) == (3, 3)


def test_backward_visits_only_the_suffix():
    subject = tiny_subject(GapNet(), "relu")
    visited = []
    handles = [
        part.register_full_backward_pre_hook(lambda _module, _output, name=name: visited.append(name))
        for name, part in subject.module.named_children()
    ]
    record(subject, some_images())
    for handle in handles:
        handle.remove()
    assert visited == ["head", "relu"]  # the walk ends at the output of the target layer itself


def test_record_of_several_layers_is_one_forward_one_backward():
    subject = tiny_subject(GapNet(), "relu")
    with metered() as cost:
        record_layers(subject, some_images(2), layers=["conv1", "conv2", "relu"])
    assert (cost.forwards, cost.backwards) == (2, 2)
