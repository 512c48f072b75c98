"""Published weights: read without running code, the averaged ones by preference, the configuration inferred from them.

Training saved {"model", "model_ema", "optimizer", "epoch", "args"}: the last weights, their moving average, with which
the published numbers were measured, and what is of no use here. `convert` keeps one set of weights and leaves three
quarters of the file behind.
"""

import json
import warnings
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path, PosixPath
from typing import Any, Literal
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from camcore.errors import BadInput, one_line, some
from camcore.models.mdetr.config import Config
from camcore.models.mdetr.infer import config_of
from camcore.models.mdetr.model import MDETR, empty
from camcore.pickles import code_in

State = Mapping[str, Tensor]
Chosen = Literal["model_ema", "model"]
MASKS = ("mask_head.", "bbox_attention.")  # of models that draw masks as well: no box depends on them
POSITION_IDS = "transformer.text_encoder.embeddings.position_ids"  # 0, 1, 2, …: saved by older transformers only
# What no shape tells: arguments of the training, with the only value that the network here is built for.
AS_HERE = {
    "dilation": False,
    "pre_norm": False,
    "position_embedding": "sine",
    "pass_pos_and_query": True,
}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A state dict with the names that `MDETR` has, and where it came from."""

    state: State
    chosen: str  # "model_ema" or "model" of a training's checkpoint; "state dict" where there was nothing to choose
    source: str  # file name of the checkpoint
    source_sha256: str  # of that file; empty until `convert` has read it whole
    heads: int | None = None  # of the transformer, if the file tells
    masks_left_out: bool = False  # the file also had a head for masks


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A network with its weights, in eval mode, with nothing to train."""

    model: MDETR
    weights: str  # which weights these are, in words
    sha256: str  # of the file that was loaded


def load(
    file: Path, *, prefer: Chosen | None = None, heads: int | None = None, text_heads: int | None = None
) -> Loaded:
    """The network with the weights in a file: a training's checkpoint, a state dict, or what `convert` wrote.

    Args:
        file: .safetensors, or anything that torch.save wrote.
        prefer: Which of a checkpoint's weights; if not given, the average where there is one.
        heads: Of the transformer. No shape tells; if not given, what the checkpoint tells, or else 8.
        text_heads: Of RoBERTa. If not given, one per 64 features, as in all published ones.

    Raises:
        BadInput: In one line, if the file is missing, damaged, would run code, or is not of an MDETR with a ResNet.
    """
    weights = read(file, prefer=prefer)
    config = config_of(weights.state, file, heads=heads or weights.heads or 8, text_heads=text_heads)
    check(weights, config)
    model = empty(config)
    model.load_state_dict(dict(weights.state), strict=True)  # copies, so that the file need not stay
    masks = ", without its head for masks" if weights.masks_left_out else ""
    return Loaded(model=model, weights=f"{weights.chosen} of {weights.source}{masks}", sha256=sha256(file))


def check(weights: Weights, config: Config) -> None:
    """Compare with the network of a configuration: every name and every shape must agree, every value be finite.

    Raises:
        BadInput: In one line, with how many names and which are missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        own = MDETR(config).state_dict()
    state = weights.state
    wrong = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [name for name in own if name in state and own[name].shape != state[name].shape],
    }
    if any(wrong.values()):
        parts = [f"{len(names)} {what} ({some(names)})" for what, names in wrong.items() if names]
        raise BadInput(
            f"the weights of {weights.source} are of another architecture: an MDETR like it has {len(own)} tensors, "
            f"the file {len(state)}, of which {', '.join(parts)}; only the published ResNet models are supported"
        )
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise BadInput(f"{len(bad)} tensors of {weights.source} hold NaN or infinity ({some(bad)}); download it again")


def convert(source: Path, target: Path, *, prefer: Chosen | None = None) -> str:
    """Write a checkpoint's weights as safetensors, with where they came from, and return the new file's SHA-256.

    Raises:
        BadInput: As `load`; and if the target is no .safetensors or exists: weights that were audited stay as they are.
    """
    if target.suffix != ".safetensors" or target.exists():
        what = "exists" if target.exists() else "has another suffix"
        raise BadInput(f"expected a new .safetensors file to convert to, {str(target)!r} {what}; name another")
    weights = read(source, prefer=prefer)
    check(weights, config_of(weights.state, source, heads=1, text_heads=1))  # no shape depends on the heads
    told = {
        "chosen": weights.chosen,
        "source": weights.source,
        "source_sha256": sha256(source),
        "heads": weights.heads,
        "masks_left_out": weights.masks_left_out,
    }
    state = {name: value.contiguous() for name, value in weights.state.items()}
    save_file(state, target, metadata={"mdetr": json.dumps(told)})  # one entry: safetensors does not keep their order
    return sha256(target)


def read(file: Path, *, prefer: Chosen | None = None) -> Weights:
    """The weights in a file, named as `MDETR` has them; nothing in it is executed.

    Raises:
        BadInput: As `load`, but for what concerns the architecture.
    """
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise BadInput(f"expected a file with MDETR's weights, {str(file)!r} {what}; give a .pth or .safetensors file")
    told: dict[str, Any] = {}  # what `convert` wrote beside the weights
    args: dict[str, Any] = {}  # of the training
    if file.suffix == ".safetensors":
        state, told = _read_safetensors(file)
        chosen = told.get("chosen", "state dict")
        if prefer is not None and prefer != chosen:
            raise BadInput(f"expected {prefer!r}, {str(file)!r} holds {chosen!r}; convert the checkpoint again")
    else:
        state, chosen, args = _choose(_read_torch(file), file, prefer)
    named, masks = _renamed(state)
    for name, value in AS_HERE.items():
        if args.get(name, value) != value:
            raise BadInput(
                f"{str(file)!r} was trained with {name}={args[name]!r}, expected {value!r}: "
                "the network here has no such variant; use one of the published models"
            )
    return Weights(
        state=named,
        chosen=chosen,
        source=told.get("source", file.name),
        source_sha256=told.get("source_sha256", ""),
        heads=told.get("heads", args.get("nheads")),
        masks_left_out=bool(told.get("masks_left_out", masks)),
    )


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()


def _read_safetensors(file: Path) -> tuple[State, dict[str, Any]]:
    try:
        with safe_open(file, framework="pt") as opened:
            told = dict(json.loads((opened.metadata() or {}).get("mdetr", "{}")))
            return {name: opened.get_tensor(name) for name in opened.keys()}, told  # noqa: SIM118 -- no mapping
    except Exception as error:  # safetensors has its own exception, raised for every kind of damage
        raise BadInput(
            f"{str(file)!r} is damaged or no safetensors file ({one_line(error)}); copy or convert it again"
        ) from error


def _read_torch(file: Path) -> Any:
    safe = [Namespace, (PosixPath, "pathlib.PosixPath")]  # by name: it lives elsewhere since Python 3.13
    with warnings.catch_warnings(), torch.serialization.safe_globals(safe):  # type: ignore[arg-type]
        warnings.simplefilter("ignore")  # torch warns of what is refused below
        try:
            # Mapped, as most of a checkpoint is never read. Files from before torch 1.6 are no archives to map.
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
        except Exception as error:  # depending on the damage: EOFError, KeyError, RuntimeError, UnpicklingError, …
            code = code_in(file, error)
            if code:
                raise BadInput(
                    f"refused {str(file)!r}: loading it would run {code}; expected the tensors and arguments of a "
                    "training; save a plain state_dict with torch.save, or convert it to safetensors"
                ) from error
            raise BadInput(
                f"{str(file)!r} is damaged or no torch file ({type(error).__name__}); copy or download it again"
            ) from error


def _choose(content: Any, file: Path, prefer: Chosen | None) -> tuple[State, str, dict[str, Any]]:
    """The weights to take, their name, and the arguments of the training."""
    if not isinstance(content, Mapping):
        raise BadInput(f"expected a checkpoint or a state dict in {str(file)!r}, it holds {type(content).__name__}")
    there = [name for name in ("model_ema", "model") if isinstance(content.get(name), Mapping) and content[name]]
    if prefer is not None and prefer not in there:
        raise BadInput(f"{str(file)!r} has no weights {prefer!r}; it has {', '.join(there) or 'a plain state dict'}")
    chosen = prefer or (there[0] if there else "state dict")
    state = content[chosen] if there else content
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"expected a state dict of tensors in {str(file)!r}, got a dictionary with {some(list(state))}")
    args = content.get("args")
    return state, chosen, dict(vars(args)) if isinstance(args, Namespace) else {}


def _renamed(state: State) -> tuple[State, bool]:
    """Without the prefix, and the head, of a model that draws masks, and without constants; whether it was such."""
    masks = any(name.startswith(MASKS) for name in state)
    named = {
        name.removeprefix("detr.") if masks else name: value
        for name, value in state.items()
        if not name.startswith(MASKS)
    }
    named.pop(POSITION_IDS, None)
    return named, masks
