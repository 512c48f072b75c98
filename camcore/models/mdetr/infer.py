"""What a state dict tells of the network that it belongs to: everything but the numbers of attention heads."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from camcore.errors import BadInput
from camcore.models.mdetr.config import CLEVR, GQA, Config, TextConfig

DEPTHS: dict[
    tuple[tuple[int, ...], bool], str
] = {  # (blocks per stage, whether a block has a third convolution): He et al. 2016 (arXiv:1512.03385), table 1
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
BODY, TEXT = "backbone.0.body", "transformer.text_encoder"


def config_of(state: Mapping[str, Tensor], file: Path, *, heads: int = 8, text_heads: int | None = None) -> Config:
    """The configuration of the network that has these weights.

    Args:
        state: Names and shapes are looked at, values are not.
        file: Named in what is refused.
        heads: Of the transformer; 8 in all published ones.
        text_heads: Of RoBERTa; one per 64 features if not given.

    Raises:
        BadInput: The weights are of no MDETR, or of one whose backbone is no ResNet.
    """
    backbone = _backbone(state, file)
    try:
        hidden = state["input_proj.weight"].shape[0]
        vocabulary, text_hidden = state[f"{TEXT}.embeddings.word_embeddings.weight"].shape
        text = TextConfig(
            vocabulary=vocabulary,
            hidden=text_hidden,
            layers=_count(state, f"{TEXT}.encoder.layer"),
            heads=text_heads or _per_64(text_hidden, file),
            feedforward=state[f"{TEXT}.encoder.layer.0.intermediate.dense.weight"].shape[0],
            positions=state[f"{TEXT}.embeddings.position_embeddings.weight"].shape[0],
        )
        aligned = state.get("contrastive_align_projection_image.weight")
        config = Config(
            backbone=backbone,
            hidden=hidden,
            heads=heads,
            encoder_layers=_count(state, "transformer.encoder.layers"),
            decoder_layers=_count(state, "transformer.decoder.layers"),
            feedforward=state["transformer.encoder.layers.0.linear1.weight"].shape[0],
            queries=state["query_embed.weight"].shape[0],
            slots=state["class_embed.weight"].shape[0],
            contrastive=None if aligned is None else aligned.shape[0],
            answers=_answers(state),
            text=text,
        )
    except KeyError as error:
        raise BadInput(
            f"the weights in {str(file)!r} are of no MDETR with a published design: they lack {error.args[0]!r}"
        ) from error
    for what, width, number in (("the transformer", hidden, heads), ("RoBERTa", text.hidden, text.heads)):
        if width % number:
            raise BadInput(
                f"{what} in {str(file)!r} has {width} features, which {number} attention heads cannot share; "
                "pass the number that it was trained with"
            )
    return config


def _per_64(width: int, file: Path) -> int:
    if width % 64:
        raise BadInput(
            f"RoBERTa in {str(file)!r} has {width} features, expected a multiple of 64; "
            "pass text_heads, the number of attention heads that it was trained with"
        )
    return width // 64


def _backbone(state: Mapping[str, Tensor], file: Path) -> str:
    if any(name.startswith((f"{BODY}.conv_stem.", f"{BODY}.blocks.")) for name in state):
        raise BadInput(
            f"{str(file)!r} is an MDETR with an EfficientNet, which is not supported yet; "
            "use one with a ResNet, for example mdetr_resnet101"
        )
    stages = tuple(_count(state, f"{BODY}.layer{stage}") for stage in (1, 2, 3, 4))
    found = DEPTHS.get((stages, f"{BODY}.layer1.0.conv3.weight" in state))
    if found is None:
        raise BadInput(
            f"expected an MDETR with a ResNet of 18, 34, 50, 101 or 152 layers in {str(file)!r}; the stages of its "
            f"backbone have {', '.join(map(str, stages))} blocks; use a published MDETR, for example mdetr_resnet101"
        )
    return found


def _answers(state: Mapping[str, Tensor]) -> tuple[tuple[str, int], ...]:
    """The heads for questions, in the order of their queries, and how many answers each has."""
    if "qa_embed.weight" not in state:
        return ()
    names = CLEVR if "answer_binary_head.weight" in state else GQA
    last = {name: f"answer_{name}_head{'.layers.2' if name == 'reg' else ''}.weight" for name in names}
    return tuple((name, state[last[name]].shape[0]) for name in names)


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many layers are numbered behind a prefix."""
    matches = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in state)
    return len({match[1] for match in matches if match})
