"""The network: ResNet and RoBERTa, one transformer over both, and heads that read boxes off its queries.

Kamath et al. 2021 (arXiv:2104.12763), section 2 and figure 2, on DETR, Carion et al. 2020 (arXiv:2005.12872), section 3
and appendix A.4. Modules are named as in the published weights, so that these load without a table of names.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d
from transformers import RobertaConfig, RobertaModel

from camcore.models.mdetr.config import BACKBONES, Config, TextConfig
from camcore.models.mdetr.transformer import Decoder, Encoder, sine_positions

TARGET_LAYER = "backbone.0.body.layer4"  # the last map of features of the image alone, one cell per 32 pixels


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the network finds in a batch."""

    logits: Float[Tensor, "b q slots"]  # of each box, over the caption's tokens, "no object" last
    boxes: Float[Tensor, "b q 4"]  # centre x, centre y, width, height, as shares of the image without its padding
    query_embeddings: Float[Tensor, "b q e"] | None  # of length 1; like those of the tokens that a box is named by
    token_embeddings: Float[Tensor, "b t e"] | None
    answers: dict[str, Tensor]  # logits of each head for questions, by name; "binary" has one per image
    memory: Float[Tensor, "b s d"]  # the encoder's output: cells of the image row by row, then tokens
    grid: tuple[int, int]  # how many rows and columns of cells that is


class Resizer(nn.Module):
    """From RoBERTa's width to the transformer's."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.fc = nn.Linear(config.text.hidden, config.hidden)
        self.layer_norm = nn.LayerNorm(config.hidden, eps=1e-12)

    def forward(self, tokens: Float[Tensor, "b t w"]) -> Float[Tensor, "b t d"]:
        """Each token by itself."""
        return self.layer_norm(self.fc(tokens))


class MLP(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, hidden: int, out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(hidden, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, out)])

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n out"]:
        """The last axis changes, the others stay."""
        return self.layers[2](self.layers[1](self.layers[0](x).relu()).relu())


class Transformer(nn.Module):
    """The parts that the published weights keep under this name; `MDETR.forward` calls them one by one."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder = Encoder(config, config.encoder_layers)
        self.decoder = Decoder(config, config.decoder_layers)
        self.text_encoder = RobertaModel(_roberta(config.text))
        self.resizer = Resizer(config)


class Backbone(nn.Module):
    """A ResNet up to layer4. Its normalisation never learned with the rest: the statistics are constants."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"expected a backbone among {', '.join(BACKBONES)}; got {name!r}")
        whole = torchvision.models.get_model(name, weights=None, norm_layer=FrozenBatchNorm2d)
        self.channels: int = whole.fc.in_features
        self.body = nn.Sequential()
        for part, module in whole.named_children():
            if part not in ("avgpool", "fc"):
                self.body.add_module(part, module)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k i j"]:
        """One cell per 32 pixels."""
        return self.body(pixels)


class MDETR(nn.Module):
    """Boxes for what captions name in images."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.class_embed = nn.Linear(config.hidden, config.slots)
        self.bbox_embed = MLP(config.hidden, 4)
        self.query_embed = nn.Embedding(config.queries, config.hidden)
        self.backbone = nn.ModuleList([Backbone(config.backbone)])
        self.input_proj = nn.Conv2d(self.backbone[0].channels, config.hidden, 1)  # type: ignore[arg-type]
        if config.contrastive is not None:
            self.contrastive_align_projection_image = nn.Linear(config.hidden, config.contrastive)
            self.contrastive_align_projection_text = nn.Linear(config.hidden, config.contrastive)
        if config.answers:
            self.qa_embed = nn.Embedding(len(config.answers), config.hidden)
        for name, count in config.answers:
            head = MLP(config.hidden, count) if name == "reg" else nn.Linear(config.hidden, count)
            self.add_module(f"answer_{name}_head", head)

    def forward(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        padding: Bool[Tensor, "b h w"],
        tokens: Int[Tensor, "b t"],
        token_padding: Bool[Tensor, "b t"],
    ) -> Outputs:
        """Find what the captions name.

        Convolutions see across the edge between an image and its padding, as they did in training: to the digit, a box
        is the same in another batch only if no image had to be padded. Nothing else depends on the padding.

        Args:
            pixels: Normalised; 0 where there is padding.
            padding: True where there is no image.
            tokens: Of RoBERTa's vocabulary, <s> first and </s> last.
            token_padding: True where a shorter caption has ended.
        """
        features = self.backbone[0](pixels)
        outside = functional.interpolate(padding[:, None].to(features.dtype), features.shape[-2:])[:, 0].bool()
        image = self.input_proj(features).flatten(2).transpose(1, 2)
        read = self.transformer.text_encoder(
            tokens, attention_mask=(~token_padding).long(), token_type_ids=torch.zeros_like(tokens)
        )
        text = self.transformer.resizer(read.last_hidden_state)

        # Only the image has positions here: RoBERTa has seen to the order of the tokens.
        where = sine_positions(outside, self.config.hidden, features.dtype).flatten(1, 2)
        positions = torch.cat([where, torch.zeros_like(text)], dim=1)
        ignored = torch.cat([outside.flatten(1), token_padding], dim=1)
        memory = self.transformer.encoder(torch.cat([image, text], dim=1), positions, ignored)

        queries = self.query_embed.weight
        if self.config.answers:
            queries = torch.cat([queries, self.qa_embed.weight])
        made = self.transformer.decoder(queries.expand(len(pixels), -1, -1), memory, positions, ignored)
        found = made[-1, :, : self.config.queries]
        named = self._aligned(found, memory[:, image.shape[1] :])
        return Outputs(
            logits=self.class_embed(found),
            boxes=self.bbox_embed(found).sigmoid(),
            query_embeddings=named[0],
            token_embeddings=named[1],
            answers=self._answered(made[0, :, self.config.queries :]),
            memory=memory,
            grid=(features.shape[-2], features.shape[-1]),
        )

    def _aligned(
        self, found: Float[Tensor, "b q d"], read: Float[Tensor, "b t d"]
    ) -> tuple[Float[Tensor, "b q e"] | None, Float[Tensor, "b t e"] | None]:
        """Boxes and tokens in the space where they are compared by cosine (contrastive alignment)."""
        if self.config.contrastive is None:
            return None, None
        image, text = self.contrastive_align_projection_image(found), self.contrastive_align_projection_text(read)
        return functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)

    def _answered(self, asked: Float[Tensor, "b n d"]) -> dict[str, Tensor]:
        """The heads for questions. They were trained on the first decoder layer's output, not on the last one's."""
        answers = {}
        for index, (name, count) in enumerate(self.config.answers):
            logits = self.get_submodule(f"answer_{name}_head")(asked[:, index])
            answers[name] = logits[:, 0] if count == 1 else logits
        return answers


def _roberta(text: TextConfig) -> Any:
    """Explicit where RobertaConfig has defaults that the published RoBERTa does not have."""
    return RobertaConfig(
        vocab_size=text.vocabulary,
        hidden_size=text.hidden,
        num_hidden_layers=text.layers,
        num_attention_heads=text.heads,
        intermediate_size=text.feedforward,
        max_position_embeddings=text.positions,
        pad_token_id=text.padding_token,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def empty(config: Config) -> MDETR:
    """The network on the CPU with weights to be filled in: none are drawn, which would take seconds and random numbers.

    In eval mode and with nothing to train.
    """
    with torch.device("meta"):
        model = MDETR(config)
    model = model.to_empty(device="cpu").requires_grad_(False).eval()
    for name, buffer in model.transformer.text_encoder.embeddings.named_buffers():  # constants that no file holds
        values = torch.arange(buffer.shape[1]) if name == "position_ids" else torch.zeros(buffer.shape[1])
        buffer.copy_(values.expand_as(buffer))
    return model
