"""Networks that are recorded, each at a layer, and all that a recording must leave as it was."""

import hashlib

import pytest
import torch

from tests.tiny import ChannelsLastNet, DictNet, FlatNet, GapNet, InPlaceNet, TokenNet, TupleNet

NETS = {
    "gap": (GapNet, "relu"),
    "first layer": (GapNet, "conv1"),
    "flattened": (FlatNet, "conv"),
    "in place": (InPlaceNet, "conv"),
    "tokens": (TokenNet, "block2.norm1"),
    "channels last": (ChannelsLastNet, "norm"),
    "tuple": (TupleNet, "body"),
    "dict": (DictNet, "relu"),
}
every_net = pytest.mark.parametrize(("net", "layer"), NETS.values(), ids=NETS)


def checksum(module):
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def traces(module):
    """Everything about a module that a recording must leave as it was."""
    return {
        "weights": checksum(module),
        "hooks": [
            len(hooks)
            for part in module.modules()
            for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
        ],
        "grads": [parameter.grad for parameter in module.parameters()],
        "requires": [parameter.requires_grad for parameter in module.parameters()],
        "mode": [part.training for part in module.modules()],
        "rng": torch.get_rng_state().tolist(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "modules": [id(part) for part in module.modules()],
    }
