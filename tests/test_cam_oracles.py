"""Every CAM of one recording against its paper, on networks cut by hand: A and g are the oracle's own as well."""

import pytest
import torch

from camcore import cam
from tests.oracles import cam as oracle
from tests.splits import CASES, SPLITS, Asked, close, recorded

NEEDS_GRADIENTS = ("gradcam", "gradcam_plus_plus", "xgradcam", "hirescam", "layercam", "eigengradcam")


def features_and_gradients(asked):
    """A and g = d(score)/dA in float64, by running the second half of the network by itself."""
    leaf = torch.tensor([asked.features], dtype=torch.float64, requires_grad=True)
    scores = asked.split.behind(asked.net, asked.edit(leaf), asked.subject.preprocess(asked.image))[0]
    score = scores[asked.target] - (0 if asked.against is None else scores[asked.against])
    return oracle.channels(leaf[0].detach()), oracle.channels(torch.autograd.grad(score, leaf)[0][0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("name", SPLITS)
def test_every_cam_of_a_recording_equals_its_paper(name, dtype):
    for seed in range(3):
        check(recorded(name, dtype, seed=seed), SPLITS[name], dtype)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["gap", "before a relu", "tokens"])
def test_every_cam_explains_what_was_recorded(name, case):
    check(recorded(name, torch.float64, **CASES[case]), SPLITS[name], torch.float64)


def check(rec, split, dtype):
    for index in range(2):
        features, gradients = features_and_gradients(Asked(split, rec, index))
        for method in NEEDS_GRADIENTS:
            close(getattr(cam, method)(rec)[index], getattr(oracle, method)(features, gradients), dtype)
        close(cam.eigencam(rec)[index], oracle.eigencam(features), dtype)
