import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fixtures.subjects.weights import check_finite, load_into, random_seed, read_weights, seeded, weights_sha256
from tests.refusals import refusal


def net(seed=0, width=3):
    with seeded(seed):
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.LazyLinear(2)).eval()[:2]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_state_dict_comes_back_as_it_was_saved(tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(net().state_dict(), file)
    assert same(read_weights(file), net().state_dict())


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_checkpoint_around_the_state_dict_is_taken_off(tmp_path, wrapper):
    torch.save({"epoch": 3, wrapper: net().state_dict(), "optimizer": {"lr": 0.1}}, tmp_path / "weights.pth")
    assert same(read_weights(tmp_path / "weights.pth"), net().state_dict())


def test_the_prefix_of_dataparallel_is_taken_off(tmp_path):
    torch.save({"state_dict": nn.DataParallel(net()).state_dict()}, tmp_path / "weights.pth")
    assert same(read_weights(tmp_path / "weights.pth"), net().state_dict())


def test_the_prefixes_of_compile_inside_dataparallel_are_taken_off(tmp_path):
    torch.save({f"module._orig_mod.{k}": v for k, v in net().state_dict().items()}, tmp_path / "weights.pth")
    assert same(read_weights(tmp_path / "weights.pth"), net().state_dict())


class Touch:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (os.system, (f"touch {self.file}",))


@pytest.mark.parametrize("protocol", [None, 2, 4, 5])  # None: in torch's own zip file
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, protocol):
    file, touched = tmp_path / "evil.pth", tmp_path / "touched"
    evil = {"state_dict": Touch(touched)}
    if protocol is None:
        torch.save(evil, file)
    else:
        file.write_bytes(pickle.dumps(evil, protocol=protocol))
    message = refusal(read_weights, file)
    assert not touched.exists()
    assert "refused" in message
    assert ("pickle" if protocol in (4, 5) else "system") in message
    assert "safetensors" in message
    assert str(file) in message


def test_the_pickle_of_that_test_would_have_run(tmp_path):
    pickle.loads(pickle.dumps(Touch(tmp_path / "touched")))
    assert (tmp_path / "touched").exists()


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(net(), tmp_path / "model.pt")
    assert "refused" in refusal(read_weights, tmp_path / "model.pt")


def test_a_torchscript_archive_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; such files exist all the same
        torch.jit.save(torch.jit.script(nn.Linear(2, 3)), tmp_path / "scripted.pt")
    assert "TorchScript" in refusal(read_weights, tmp_path / "scripted.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "noise"])
def test_a_damaged_file_is_refused_by_name(tmp_path, suffix, damage):
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(net().state_dict(), file)
    whole = file.read_bytes()
    content = {"empty": b"", "truncated": whole[:-100], "text": b"404: not found", "noise": bytes(range(256)) * 4}
    file.write_bytes(content[damage])
    message = refusal(read_weights, file)
    assert str(file) in message
    assert ("empty" if damage == "empty" else "damaged") in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "'no/such.pth' does not exist" in refusal(read_weights, Path("no/such.pth"))
    assert "is a folder" in refusal(read_weights, tmp_path)


@pytest.mark.parametrize("value", [{}, [1, 2], {"epoch": 3}, torch.zeros(2)])
def test_a_file_without_a_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "weights.pth")
    assert "expected a state dict" in refusal(read_weights, tmp_path / "weights.pth")


def test_half_precision_is_cast_to_the_models_dtype():
    module = net(1)
    load_into(module, {name: value.half() for name, value in net().state_dict().items() if value.ndim}, "file x")
    assert {value.dtype for value in module.parameters()} == {torch.float32}
    assert torch.equal(module[0].weight, net()[0].weight.half().float())


def test_a_checkpoint_from_before_batchnorm_counted_loads():
    state = net().state_dict()
    del state["1.num_batches_tracked"]
    module = net(1)
    load_into(module, dict(state), "file x")
    assert torch.equal(module[0].weight, net()[0].weight)


def test_another_architecture_is_refused_with_counts_and_names():
    state = net().state_dict()
    state["fc.weight"] = state.pop("0.bias")
    message = refusal(load_into, net(), state, "file x.pth")
    assert "1 missing ('0.bias')" in message
    assert "1 unexpected ('fc.weight')" in message
    assert "file x.pth" in message


def test_another_width_is_refused_with_counts_and_names():
    message = refusal(load_into, net(), net(width=5).state_dict(), "file x.pth")
    assert "6 of another shape ('0.weight', '0.bias', '1.weight', …)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused_by_name_and_number(value):
    module = net()
    module[1].running_var[:2] = value
    assert "hold 2 NaN or infinite values in '1.running_var'" in refusal(check_finite, module, "file x")


def test_finite_weights_pass():
    check_finite(net(), "file x")
    assert all(value.isfinite().all() for value in net().state_dict().values())


def test_the_hash_is_the_same_for_the_same_weights_only():
    changed, renamed = net(), nn.Sequential()
    with torch.no_grad():
        changed[0].bias[0] += 1e-6
    renamed.add_module("a", net()[0])
    renamed.add_module("b", net()[1])
    hashes = [weights_sha256(module) for module in (net(), net(), changed, renamed, net().double(), net().bfloat16())]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 5


def test_the_hash_sees_shapes_beside_bytes():
    flat, square = nn.Module(), nn.Module()
    flat.register_buffer("x", torch.zeros(4))
    square.register_buffer("x", torch.zeros(2, 2))
    assert weights_sha256(flat) != weights_sha256(square)


def test_seeded_leaves_the_global_generator_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (net(seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_seed_reads_random_and_leaves_files_alone():
    assert random_seed("random:12") == 12
    assert random_seed("random.pth") is None
    assert random_seed(None) is None


@pytest.mark.parametrize("weights", ["random", "random:", "random:x", "random:-1", "random:1.5"])
def test_random_without_a_whole_seed_is_refused(weights):
    assert repr(weights) in refusal(random_seed, weights)
