"""Recordings for Opti-CAM, and the score of an image seen through its mask."""

from dataclasses import replace

import pytest
import torch

from camcore import ask
from camcore.cam.opti import mask_of
from camcore.recording import record
from tests.tiny import CLASSES, ChannelsLastNet, FlatNet, GapNet, TokenNet, some_images, tiny_subject

NETS = {
    "gap": (GapNet, "relu"),
    "before a relu": (GapNet, "conv2"),
    "flat": (FlatNet, "relu"),
    "tokens": (TokenNet, "block2.norm1"),
    "channels last": (ChannelsLastNet, "norm"),
}
every_net = pytest.mark.parametrize(("net", "layer"), NETS.values(), ids=NETS)
TO_THE_END = {"patience": 1000}
PATIENCE, TOLERANCE = 3, 0.1  # so impatient that tiny nets stop at different times


def asked_of(net, layer, dtype=torch.float64, *, count=2, seed=0, chunk=8, preprocess=None, **options):
    given = {} if preprocess is None else {"preprocess": preprocess}
    subject = tiny_subject(net().to(dtype), layer, seed=seed, **given)
    target = torch.arange(count) % CLASSES
    return record(subject, some_images(count, seed=seed).to(dtype), target, chunk=chunk, **options)


def masked_score(rec, weights):
    """The explained score of each image seen through these weights, asked for without the method."""
    features = rec.activations.relu()
    mask = mask_of(features, weights.log(), rec.images.shape[2:])[:, None]
    return ask.scores(rec, rec.images * mask, torch.arange(len(rec.images)))


def only(rec, rows):
    """The same recording of some of its images."""
    kept = {name: getattr(rec, name)[rows] for name in ("images", "logits", "target", "activations", "gradients")}
    return replace(rec, **kept)
