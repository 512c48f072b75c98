import pytest
import torch

from camcore import cam, record
from tests.oracles import scoring as oracle
from tests.splits import SPLITS, close, recorded, top_rows
from tests.tiny import GapNet, InPlaceNet, some_images, tiny_subject


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("net", [GapNet, InPlaceNet])
def test_cam_equals_the_papers_equation(net, dtype):
    subject = tiny_subject(net().to(dtype), "relu")
    rec = record(subject, some_images(2).to(dtype), torch.tensor([1, 3]))
    for index, target in enumerate((1, 3)):
        weights = subject.module.head.weight[target].tolist()
        close(cam.cam(rec)[index], oracle.weighted(weights, rec.activations[index].tolist()), dtype)


def test_cam_of_a_contrast_takes_the_difference_of_the_weights():
    rec = recorded("gap", torch.float64, against=torch.tensor([0, 4]))
    net = rec.subject.module
    weights = (net.head.weight[rec.target] - net.head.weight[rec.against]).tolist()
    for index in range(2):
        close(cam.cam(rec)[index], oracle.weighted(weights[index], rec.activations[index].tolist()), torch.float64)


@pytest.mark.parametrize("name", ["before a relu", "flat", "in place", "tokens"])
def test_cam_is_refused_for_another_head(name):
    with pytest.raises(ValueError, match=r"CAM needs a mean .* use hirescam or gradcam") as refusal:
        cam.cam(recorded(name, torch.float32))
    assert repr(SPLITS[name].layer) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_cam_is_refused_behind_a_wall():
    with pytest.raises(ValueError, match="CAM needs"):
        cam.cam(recorded("gap", torch.float32, behind=top_rows))
