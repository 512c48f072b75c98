"""Transformers of other libraries, built small with random weights: what is derived of them, and that maps exist."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from camcore import cam, record
from camcore.cam import RECORDED
from camcore.grid import Grid
from camcore.images import Geometry
from camcore.intercept import Attentions
from camcore.layers import with_target_layer
from camcore.seeds import generator
from camcore.subject import Classifier
from tests.tiny import CLASSES, tiny_subject

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # their warnings are theirs

WIDTH = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
PATCH = 16


def huggingface(name: str, **given: Any) -> nn.Module:
    """A model of transformers by the name of its class, from a config of its own kind."""
    transformers = pytest.importorskip("transformers")
    attention = given.pop("attention", "sdpa")
    model = getattr(transformers, name)
    config = model.config_class(**given, attn_implementation=attention)
    return model(config)


def vit(name: str, *, size: tuple[int, int], attention: str = "sdpa", **given: Any) -> nn.Module:
    sizes = {"image_size": list(size), "patch_size": PATCH, "num_labels": CLASSES}
    return huggingface(name, **{**WIDTH, **sizes, "attention": attention, **given})


def two_towers(name: str, *, attention: str = "sdpa") -> nn.Module:
    vision = {**WIDTH, "intermediate_size": 32, "image_size": 64, "patch_size": PATCH}
    text = {**WIDTH, "intermediate_size": 32, "vocab_size": 10, "bos_token_id": 8, "eos_token_id": 9}
    return huggingface(
        name, vision_config=vision, text_config=text, num_labels=CLASSES, projection_dim=16, attention=attention
    )


def timm_model(name: str, size: tuple[int, int], **given: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    small = {"embed_dim": 16, "depth": 2, "num_heads": 2} if "vit" in name or "deit" in name else {}
    return timm.create_model(name, img_size=size, num_classes=CLASSES, **{**small, **given})


def subject_of(build: Callable[[], nn.Module], size: tuple[int, int]) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build().eval()
    draws = generator(0, "any transformer")
    for parameter in net.parameters():  # class tokens, layer scales and heads that begin at zero have no gradient
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=draws)
    square = tiny_subject(net, seed=None)
    return with_target_layer(replace(square, geometry=Geometry(crop=size)))


def images_of(size: tuple[int, int]) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=generator(0, "any transformer images"))


SQUARE, WIDE, TALL = (64, 64), (64, 96), (224, 160)

Case = tuple[Callable[[], nn.Module], tuple[int, int], str, int]  # build, size, target layer, tokens before the patches
FOLLOWED: dict[str, Case] = {
    "ViT": (
        lambda: vit("ViTForImageClassification", size=SQUARE, intermediate_size=32),
        *(SQUARE, "vit.layers.1.layernorm_before", 1),
    ),
    "ViT eager": (
        lambda: vit("ViTForImageClassification", size=SQUARE, intermediate_size=32, attention="eager"),
        *(SQUARE, "vit.layers.1.layernorm_before", 1),
    ),
    "ViT wide": (
        lambda: vit("ViTForImageClassification", size=WIDE, intermediate_size=32),
        *(WIDE, "vit.layers.1.layernorm_before", 1),
    ),
    "DeiT with teacher": (
        lambda: vit("DeiTForImageClassificationWithTeacher", size=TALL, intermediate_size=32),
        *(TALL, "deit.layers.1.layernorm_before", 2),
    ),
    "DINOv2": (lambda: vit("Dinov2ForImageClassification", size=SQUARE, mlp_ratio=2), SQUARE, "dinov2.layernorm", 1),
    "DINOv2 with registers": (
        lambda: vit("Dinov2WithRegistersForImageClassification", size=SQUARE, image_size=64, mlp_ratio=2),
        *(TALL, "dinov2_with_registers.layernorm", 5),
    ),
    "BEiT": (
        lambda: vit("BeitForImageClassification", size=WIDE, intermediate_size=32),
        *(WIDE, "beit.layers.1", 1),
    ),
    "CLIP": (lambda: two_towers("CLIPForImageClassification"), SQUARE, "vision_model.encoder.layers.1", 1),
    "CLIP eager": (
        lambda: two_towers("CLIPForImageClassification", attention="eager"),
        *(SQUARE, "vision_model.encoder.layers.1", 1),
    ),
    "CLIP projected": (
        lambda: huggingface(
            "CLIPVisionModelWithProjection",
            **WIDTH,
            intermediate_size=32,
            image_size=64,
            patch_size=PATCH,
            projection_dim=CLASSES,
        ),
        *(SQUARE, "vision_model.encoder.layers.1.layer_norm1", 1),
    ),
    "SigLIP": (lambda: two_towers("SiglipForImageClassification"), SQUARE, "vision_model.post_layernorm", 0),
    "timm ViT": (lambda: timm_model("vit_tiny_patch16_224", TALL), TALL, "blocks.1.norm1", 1),
    "timm ViT with registers": (
        lambda: timm_model("vit_tiny_patch16_224", TALL, reg_tokens=4),
        *(TALL, "blocks.1.norm1", 5),
    ),
    "timm ViT averaged": (
        lambda: timm_model("vit_tiny_patch16_224", SQUARE, reg_tokens=4, global_pool="avg"),
        *(SQUARE, "blocks.1", 5),
    ),
    "timm ViT pooled by attention": (
        lambda: timm_model("vit_tiny_patch16_224", WIDE, global_pool="map", class_token=False),
        *(WIDE, "norm", 0),
    ),
    "timm DeiT distilled": (
        lambda: timm_model("deit_tiny_distilled_patch16_224", TALL),
        *(TALL, "blocks.1.norm1", 2),
    ),
    "timm EVA-02": (
        lambda: timm_model("eva02_tiny_patch14_224", (112, 112), embed_dim=24, depth=2, num_heads=2),
        *((112, 112), "blocks.1", 1),
    ),
}


@pytest.mark.parametrize("case", FOLLOWED.values(), ids=FOLLOWED)
def test_layer_grid_and_maps_of_a_transformer(case: Case) -> None:
    build, size, layer, prefix = case
    subject = subject_of(build, size)
    patch = 14 if size == (112, 112) else PATCH
    grid = Grid(layout="tokens", height=size[0] // patch, width=size[1] // patch, prefix=prefix)
    assert (subject.target_layer, subject.grid) == (layer, grid)

    rec = record(subject, images_of(size), chunk=2)
    for name in (*RECORDED, "attention_rollout", "attention_relevance"):
        saliency = getattr(cam, name)(rec)
        assert saliency.shape == (2, grid.height, grid.width), name
        assert saliency.isfinite().all(), name
    rollout = cam.attention_rollout(rec)
    assert (rollout > 0).all()
    assert (rollout.sum((1, 2)) < 1 + 1e-5).all()


@pytest.mark.parametrize("name", ["ViT eager", "DeiT with teacher", "SigLIP", "CLIP", "timm ViT pooled by attention"])
def test_attention_written_out_gives_the_same_scores(name: str) -> None:
    build, size, *_ = FOLLOWED[name]
    subject, images = subject_of(build, size), images_of(size)
    with Attentions() as attentions:
        found = subject.logits(images.requires_grad_())
    torch.testing.assert_close(found, subject.logits(images), rtol=1e-5, atol=1e-5)
    assert len(attentions.kept) >= 2


def test_eager_attention_and_fused_attention_have_the_same_maps() -> None:
    recordings = []
    for attention in ("sdpa", "eager"):
        net = {"size": SQUARE, "intermediate_size": 32, "attention": attention}
        subject = subject_of(lambda net=net: vit("ViTForImageClassification", **net), SQUARE)
        recordings.append(record(subject, images_of(SQUARE), chunk=2))
    for name in ("attention_rollout", "attention_relevance"):
        fused, eager = (getattr(cam, name)(rec) for rec in recordings)
        torch.testing.assert_close(fused, eager, rtol=1e-4, atol=1e-7)


SWIN = {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 1, 1, 1)}
REFUSED = {
    "Swin": (
        lambda: huggingface(
            "SwinForImageClassification",
            image_size=64,
            patch_size=4,
            embed_dim=8,
            depths=[2, 2],
            num_heads=[1, 2],
            window_size=4,
            num_labels=CLASSES,
        ),
        *(SQUARE, r"within windows or across stages \(\(32, 1, 16, 16\)"),
    ),
    "timm Swin": (
        lambda: timm_model("swin_tiny_patch4_window7_224", (224, 168), **SWIN),
        *((224, 168), r"within windows or across stages \(\(96, 1, 49, 49\)"),
    ),
    "timm CaiT": (
        lambda: timm_model("cait_xxs24_224", (224, 224), embed_dim=16, depth=2, num_heads=2),
        *((224, 224), "within windows or across stages"),
    ),
    "timm PVT v2": (
        lambda: pytest.importorskip("timm").create_model("pvt_v2_b0", num_classes=CLASSES),
        *((224, 224), r"within windows or across stages \(\(2, 1, 3136, 49\)"),
    ),
}


@pytest.mark.parametrize(("build", "size", "message"), REFUSED.values(), ids=REFUSED)
def test_a_transformer_of_windows_or_stages_has_a_layer_and_no_rollout(build, size, message) -> None:
    subject = subject_of(build, size)
    rec = record(subject, images_of(size), chunk=2)
    assert rec.gradients.any()
    for name in ("attention_rollout", "attention_relevance"):
        with pytest.raises(ValueError, match=message) as refusal:
            getattr(cam, name)(rec)
        assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"no ReLU was met in a forward of tiny \(it uses gelu\)"):
        cam.guided_backprop(rec)
