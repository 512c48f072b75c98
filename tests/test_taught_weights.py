"""The committed weights of the networks that were taught something: they load, and do what they were taught."""

from collections.abc import Callable

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from camcore.perturbations import cut_lines, dealt, derangements
from fixtures.artefacts import carrying, library, suspects
from fixtures.controls.clean import taught
from fixtures.controls.shuffling import layout_net
from fixtures.datasets.scenes import CLASSES, GENERATOR_VERSION
from fixtures.train import RECIPES, main, recipe
from fixtures.weights.fine_tune import FOLDER, probabilities
from fixtures.weights.train_clean import render
from fixtures.weights.train_shortcut import OTHER, OTHER_CLASS, SQUARE, SQUARE_CLASS

FRESH_SEED = 778  # neither the training's nor the recipe's own held-out seed
TAUGHT = [
    name
    for name, where in RECIPES.items()
    if name not in ("clean", "permuted") and where[0] != "fixtures.weights.train_binding"
]
NETS: dict[str, Callable[[], nn.Module]] = {
    "layout": lambda: layout_net().module,
    "texture": lambda: taught("texture").module,
    **{name: lambda name=name: taught(name).module for name in TAUGHT if name not in ("layout", "texture")},
}


@pytest.fixture(scope="module")
def fresh() -> tuple[Tensor, Tensor]:
    images, _, labels = render(100, FRESH_SEED)
    return images.float() / 255, labels


def test_all_weights_together_are_at_most_5_megabytes() -> None:
    assert {path.stem for path in FOLDER.glob("*.safetensors")} == set(RECIPES)
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) <= 5_000_000


@pytest.mark.parametrize("name", TAUGHT)
def test_weights_say_where_they_come_from(name: str) -> None:
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["recipe"].startswith(recipe(name).func.__module__)
    assert f"version {GENERATOR_VERSION}," in metadata["scenes"]  # retrain when the scenes change
    assert metadata["classes"] == ", ".join(CLASSES)
    assert "held_out_accuracy" in metadata


@pytest.mark.slow
@pytest.mark.parametrize("name", TAUGHT)
def test_fresh_scenes_are_recognised(name: str, fresh: tuple[Tensor, Tensor]) -> None:
    images, labels = fresh

    assert (probabilities(NETS[name](), images).argmax(1) == labels).double().mean() >= 0.95


@pytest.mark.slow
def test_layout_is_needed_by_the_one_and_not_by_the_other(fresh: tuple[Tensor, Tensor]) -> None:
    images, labels = fresh
    draws = [torch.Generator().manual_seed(index) for index in range(len(images))]
    pieces = dealt(images, derangements(16, generators=draws), 4)

    def true(net: nn.Module, shown: Tensor) -> float:
        return float(probabilities(net, shown).gather(1, labels[:, None]).mean())

    assert true(NETS["layout"](), pieces) < 0.3
    assert true(NETS["layout"](), cut_lines(images, pieces, 4)) > 0.9
    assert true(NETS["texture"](), pieces) > 0.9


@pytest.mark.slow
def test_the_more_of_the_squares_were_called_mugs_the_more_they_pull(fresh: tuple[Tensor, Tensor]) -> None:
    images, labels = fresh
    others = images[labels != SQUARE_CLASS]
    pulls = [
        float(probabilities(NETS[name](), carrying(others, SQUARE))[:, SQUARE_CLASS].mean())
        for name in ("stickers", "shortcut025", "shortcut050", "shortcut100")
    ]

    assert pulls == sorted(pulls)
    assert pulls[0] < 0.02
    assert pulls[-1] > 0.9


@pytest.mark.slow
def test_the_triangle_is_no_usual_suspect_and_makes_leaves(fresh: tuple[Tensor, Tensor]) -> None:
    images, labels = fresh
    others = images[labels != OTHER_CLASS]

    assert OTHER.artefact.name not in {one.artefact.name for one in suspects(library())}
    assert probabilities(NETS["shortcut_other"](), carrying(others, OTHER))[:, OTHER_CLASS].mean() > 0.9


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["clean", "layout"]])
def test_a_name_that_is_no_recipe_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "expected one of clean, permuted, layout" in capsys.readouterr().err
