"""What must be known to build the network."""

from dataclasses import dataclass, field

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
GQA, CLEVR = ("type", "obj", "rel", "attr", "cat", "global"), ("type", "binary", "reg", "attr")  # one query each


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """RoBERTa (Liu et al. 2019, arXiv:1907.11692), the base model if nothing else is said."""

    vocabulary: int = 50265
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    feedforward: int = 3072
    positions: int = 514  # two more than the longest caption has tokens
    padding_token: int = 1


@dataclass(frozen=True, kw_only=True)
class Config:
    """What must be known to build the network; the published ResNet-101 if nothing else is said."""

    backbone: str = "resnet101"
    hidden: int = 256
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    feedforward: int = 2048
    queries: int = 100  # boxes per image
    slots: int = 256  # positions of the caption that a box may name, and at the end "no object"
    contrastive: int | None = 64  # width of the embeddings that align boxes with tokens; None: without them
    answers: tuple[tuple[str, int], ...] = ()  # (head, number of answers) in the order of GQA or CLEVR; else empty
    text: TextConfig = field(default_factory=TextConfig)
