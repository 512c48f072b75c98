"""An MDETR small enough for tests, a tokenizer for it, and the numerical reference where the shared folder has it."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from camcore.models.mdetr.config import CLEVR, Config, TextConfig
from camcore.models.mdetr.model import MDETR, empty
from camcore.seeds import generator

DATA = Path(__file__).parents[2] / "shared" / "data" / "mdetr"
needs_reference = pytest.mark.skipif(not DATA.exists(), reason="the shared folder with MDETR's reference is not here")
CAPTIONS = (
    "the red apple is on the left of the photo",
    "the green apple is on the right of the photo",
    "a café, the (small) one",
)
QUESTIONS = tuple(zip(CLEVR, (3, 1, 20, 15), strict=True))


@cache
def reference() -> dict[str, Any]:
    """What the original code computed with small random weights: tensors and plain values only."""
    return torch.load(DATA / "mdetr_ref.pt", weights_only=True)


@cache
def manifests() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the published models."""
    content = json.loads((DATA / "mdetr_official_keys.json").read_text(encoding="utf-8"))
    return {name: shapes for name, shapes in content.items() if isinstance(shapes, dict)}


def reference_config() -> Config:
    return Config(
        backbone="resnet18",
        hidden=64,
        encoder_layers=2,
        decoder_layers=2,
        feedforward=128,
        queries=12,
        contrastive=16,
        text=TextConfig(vocabulary=362, hidden=48, layers=2, heads=4, feedforward=96, positions=66),
    )


@cache
def reference_model() -> MDETR:
    model = empty(reference_config())
    model.load_state_dict(reference()["state_dict"])
    return model


def tokenizer(captions: tuple[str, ...] = CAPTIONS) -> Tokenizer:
    """A byte-level BPE with RoBERTa's special tokens, trained on a few captions."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(captions, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return made


def tiny_config(**given: Any) -> Config:
    text = TextConfig(
        vocabulary=tokenizer().get_vocab_size(), hidden=64, layers=1, heads=1, feedforward=32, positions=40
    )
    widths = {"hidden": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 32, "queries": 5}
    return Config(**{"backbone": "resnet18", "contrastive": 8, "text": text, **widths, **given})


def tiny_model(seed: int = 0, **given: Any) -> MDETR:
    """Weights drawn so that no layer drowns another; the normalisation's statistics are drawn as well."""
    model, draws = empty(tiny_config(**given)), generator(seed, "tiny mdetr")
    for name, value in model.state_dict().items():
        fan_in = value[0].numel() if value.ndim > 1 else 4
        drawn = torch.randn(value.shape, generator=draws) / fan_in**0.5
        norm = re.search(r"\b(bn\d|norm\d?|layer_norm|LayerNorm|downsample\.1)\.weight|running_var", name)
        value.copy_(1 + drawn.abs() if norm else drawn)
    return model
