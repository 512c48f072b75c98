"""LPIPS: the package's own, with weights that were laid where torchvision lays them, and without a download."""

from pathlib import Path

import pytest
import torch
from torchvision.models import squeezenet1_1

from camcore.metrics import perceptual
from camcore.metrics.perceptual import BACKBONES, lpips_at_hand
from camcore.metrics.perceptual import lpips as measured
from camcore.seeds import generator
from tests.tiny import some_images

package = pytest.importorskip("lpips", reason="the package lpips is not installed")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's cache with a SqueezeNet in it, of drawn weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    perceptual._loaded.cache_clear()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = squeezenet1_1(weights=None).state_dict()
    (tmp_path / "checkpoints").mkdir()
    torch.save(weights, tmp_path / "checkpoints" / BACKBONES["squeeze"])
    return tmp_path


def test_without_weights_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert lpips_at_hand() is None


def test_it_is_the_formula_of_the_paper(cached: Path) -> None:
    assert lpips_at_hand() == "squeeze"
    one, other = some_images(3, size=48), some_images(6, size=48)[3:]
    found = measured(one, other, net="squeeze")

    # Zhang et al. 2018, eq. 1, written down
    weights = torch.load(cached / "checkpoints" / BACKBONES["squeeze"], weights_only=True)
    network = squeezenet1_1(weights=None).eval()
    network.load_state_dict(weights)
    heads = torch.load(
        Path(package.__file__).parent / "weights" / "v0.1" / "squeeze.pth", map_location="cpu", weights_only=True
    )
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    expected = torch.zeros(3)
    features = [(2 * images - 1 - shift) / scale for images in (one, other)]
    ends = (1, 4, 7, 9, 10, 11, 12)
    with torch.no_grad():
        for index, layer in enumerate(network.features):
            features = [layer(feature) for feature in features]
            if index in ends:
                unit = [feature / feature.norm(dim=1, keepdim=True) for feature in features]
                head = heads[f"lin{ends.index(index)}.model.1.weight"]
                expected += ((unit[0] - unit[1]) ** 2 * head).sum(1).mean((1, 2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert (found > 1e-3).all()


@pytest.mark.usefixtures("cached")
def test_equal_pictures_differ_by_nothing_and_louder_noise_by_more() -> None:
    images = some_images(4, size=64)
    noise = torch.rand(images.shape, generator=generator(0, "noise")) - 0.5
    found = [measured(images, images + loud * noise, net="squeeze") for loud in (0, 0.05, 0.2)]
    assert torch.equal(found[0], torch.zeros(4))
    assert (found[1] > 0).all()
    assert (found[2] > found[1]).all()


@pytest.mark.usefixtures("cached")
def test_nothing_is_kept_for_a_backward_and_no_number_of_torchs_is_drawn() -> None:
    images = some_images(2, size=32).requires_grad_()
    state = torch.get_rng_state()
    assert not measured(images, images, net="squeeze").requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_too_small_a_picture_has_none() -> None:
    assert measured(some_images(2), some_images(2), net="squeeze").isnan().all()


def test_weights_that_would_run_code_are_not_loaded(cached: Path) -> None:
    path = cached / "checkpoints" / BACKBONES["squeeze"]
    torch.save({"features.0.weight": Path("x")}, path)
    with pytest.raises(ValueError, match=r"LPIPS: .*squeezenet1_1-b8a52dc0.pth is not torchvision's .* move it away"):
        measured(some_images(1, size=32), some_images(1, size=32), net="squeeze")
