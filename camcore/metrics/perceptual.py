"""How different two pictures look to people, where the weights that say so are at hand."""

import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcore.images import Images

# torchvision's files of the networks whose features are compared, the one that LPIPS is usually told with first
BACKBONES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "vgg": "vgg16-397923af.pth",
}
SMALLEST = 32  # pixels a side: of less, the last features are of no place


def lpips_at_hand() -> str | None:
    """The network of LPIPS that can be had without a download: "alex", "squeeze", "vgg", or None.

    It needs the package `lpips`, which carries the weights of the comparison, and torchvision's ImageNet weights of the
    network in torch's cache (`torch.hub.get_dir()`, under checkpoints).
    """
    if find_spec("lpips") is None:
        return None
    return next((net for net in BACKBONES if _file(net).is_file()), None)


@torch.no_grad()
def lpips(one: Images, other: Images, *, net: str) -> Float[Tensor, " b"]:
    """LPIPS of pictures in [0, 1]: 0 for equal ones, NaN for those of under 32 pixels a side.

    Zhang et al. 2018, arXiv:1801.03924, eq. 1, version 0.1, by the authors' package.

    Args:
        one: Pictures.
        other: The same ones, changed.
        net: As `lpips_at_hand` tells.

    Returns:
        One number for each pair.

    Raises:
        ValueError: The file of weights is another one.
    """
    if min(one.shape[2:]) < SMALLEST:
        return one.new_full((len(one),), torch.nan)
    return _loaded(net, one.device)(one.float(), other.float(), normalize=True).flatten().to(one.dtype)


@cache
def _loaded(net: str, device: torch.device) -> nn.Module:
    from lpips import LPIPS

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(The parameter 'pretrained'|Arguments other than a weight enum)")
        # the network as it is drawn: its own way to the weights would download them, and unpickle whatever they are
        made = LPIPS(net=net, pnet_rand=True, verbose=False)
    try:
        weights = torch.load(_file(net), map_location="cpu", weights_only=True)
        # the package cuts the features into slices, and leaves their numbers: slice2.3.weight is features.3.weight
        made.net.load_state_dict(
            {name: weights[f"features.{name.partition('.')[2]}"] for name in made.net.state_dict()}
        )
    except (OSError, RuntimeError, KeyError, TypeError, UnpicklingError) as error:
        raise ValueError(f"LPIPS: {_file(net)} is not torchvision's {net} weights; move it away") from error
    return made.eval().requires_grad_(False).to(device)


def _file(net: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net]
