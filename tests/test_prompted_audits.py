"""Shuffling, bias and hijack of models that score captions: through prompts they are classifiers like any other."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from audits.roles import TEMPLATES
from audits.test_shuffling import SIZES
from camcore import CaptionScorer, Geometry, TwoTowers, as_classifier
from camcore.images import Image
from camcore.prompted import scorer_as_classifier, with_map
from camcore.seeds import generator
from camcore.subject import Subject
from camcore.testing import audit_model
from fixtures.datasets.binding_scenes import Bindings, Group
from fixtures.subjects.spec import find_image_text
from fixtures.vision_language.tiny_clip import save_tiny_clip
from reports.schema import Claim, Results
from tests.running import overlay
from tests.tiny import as_they_are

AUDITS = ("shuffling", "bias", "hijack")
LEAST = """
[profiles.smoke]
images = {images}
[profiles.smoke.attacks]
sizes = [4]
steps = 2
restarts = 1
queries = 2
beside = 2
"""
SIDE = 48  # pixels, of pictures that are one colour
CELL = 4
COLOURS = ("red", "green", "blue")
BALLS = ("a red ball to the left of a green ball", "a green ball to the left of a red ball")
WORDINGS = ("a photo of a {}", "there is something {}")


class Shades(nn.Module):
    """How much there is of each colour: a coarse map of each, and the mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Conv2d(3, 3, CELL, stride=CELL, bias=False)
        self.colours.weight.data = (torch.eye(3) / CELL**2)[:, :, None, None].repeat(1, 1, CELL, CELL)
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.colours(images)).mean((2, 3))


class Named(nn.Module):
    """Which of the colours a caption names, and a little that tells it from others that name the same."""

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        captions = [bytes(row).decode().strip() for row in tokens["letters"].tolist()]
        apart = [0.01 * torch.rand(3, generator=generator(0, "shades", one)) for one in captions]
        return torch.stack(apart) + torch.tensor([[float(name in one.split()) for name in COLOURS] for one in captions])


def tokenise(captions: Sequence[str]) -> dict[str, Tensor]:
    return {"letters": torch.tensor([[*one.encode().ljust(64)] for one in captions])}


def shades(said: list[str] | None = None) -> TwoTowers:
    """Two towers that know how much there is of each colour, and nothing of places; `said` is told every caption."""
    pair = nn.ModuleDict({"image": Shades(), "text": Named()}).eval()

    def read(captions: Sequence[str]) -> dict[str, Tensor]:
        if said is not None:
            said.extend(captions)
        return tokenise(captions)

    return TwoTowers(
        name="shades",
        spec="",
        module=pair,
        geometry=Geometry(crop=(SIDE, SIDE)),
        preprocess=as_they_are,
        target_layer="relu",
        tokenise=read,
        embed_image=pair["image"],
        embed_text=pair["text"],
        scale=100.0,
    )


def saved(folder: Path, pictures: Sequence[tuple[str, Image]]) -> Path:
    """A sub-folder for each class."""
    for index, (name, picture) in enumerate(pictures):
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = picture.permute(1, 2, 0).mul(255).round().byte().numpy()
        Pillow.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def coloured(folder: Path, *, by: float, count: int) -> Path:
    """Grey noise of which one colour is stronger than the others, by so much."""
    noise = 0.4 + 0.2 * torch.rand(count, 1, SIDE, SIDE, generator=generator(0, "coloured"))
    pictures = noise.repeat(1, 3, 1, 1)
    for index, picture in enumerate(pictures):
        picture[index % 3] += by
    return saved(folder, [(COLOURS[index % 3], picture) for index, picture in enumerate(pictures)])


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in which of two balls is on the left, and in nothing else."""
    groups = tuple(
        Group(
            id=f"balls-{index}",
            relation="left",
            thing="ball",
            colours=("red", "green"),
            captions=((BALLS[0],), (BALLS[1],)),
        )
        for index in range(48)
    )
    drawn = Bindings(spec="balls", groups=groups, size=96, seed=3)
    pictures = [pair for group in groups for pair in zip(BALLS, drawn.draw(group)[0], strict=True)]
    return saved(tmp_path_factory.mktemp("balls"), pictures)


def audited(model: Subject | str, data: Path, tmp_path: Path, *, images: int, **how: object) -> Results:
    given = {"audits": AUDITS, "profile": "smoke", "batch_size": 8, "templates": ["{}"], **how}
    return audit_model(model, data=data, policy=overlay(tmp_path, LEAST.format(images=images)), **given)


def claims(results: Results) -> dict[str, Claim]:
    return {one.id.partition("[")[0]: one for one in results.claims}


def seen_by(module: nn.Module, audit: Callable[[], Results]) -> tuple[Results, int]:
    """What the audits find, and how many pictures ran through the module."""
    counts: list[int] = []
    handle = module.register_forward_hook(lambda _module, given, _output: counts.append(len(given[0])))
    found = audit()
    handle.remove()
    return found, sum(counts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "verdicts"),
    [
        # a red square turns what is not red, two in three: more than half, which so few pictures do not show
        (0.004, {"bias/pull": "FAIL", "bias/decides": "INCONCLUSIVE", "hijack/resists": "FAIL"}),
        (0.4, {"bias/decides": "PASS", "hijack/resists": "PASS"}),
    ],
    ids=["a shade", "vivid"],
)
def test_a_model_of_shades_is_decided_by_little_if_they_are_faint_and_by_no_order_of_the_pieces(
    by: float, verdicts: dict[str, str], tmp_path: Path
) -> None:
    said: list[str] = []
    model = shades(said)
    data = coloured(tmp_path / "data", by=by, count=120)

    def asked() -> Results:
        return audited(model, data, tmp_path, images=120, templates=WORDINGS)

    results, seen = seen_by(model.embed_image, asked)
    found = claims(results)
    expected = {"shuffling/structure": "FAIL", "shuffling/map_follows": "PASS", **verdicts}

    assert {name: found[name].verdict for name in expected} == expected
    assert {wording.format(name) for wording in WORDINGS for name in COLOURS} <= set(said)
    assert results.subjects[0].abilities == ("captions", "classes")
    n = len(found["shuffling/structure"].units)
    assert found["shuffling/structure"].cost.forwards == n * (
        1 + 2 * len(SIZES) + 2
    )  # and faded, in place and in pieces
    counted = [max(one.cost.forwards for one in results.claims if one.audit == audit) for audit in AUDITS]
    assert all(counted)
    assert sum(counted) <= seen
    for name in expected:
        captions = [one.caption for one in found[name].evidence if one.type == "overlay"]
        assert any(colour in caption for colour in COLOURS for caption in captions), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("control", "structure"),
    [("clip-trained", "PASS"), ("clip-no-places", "FAIL")],
)
def test_captions_of_what_is_where_lose_by_shuffling_if_and_only_if_places_are_read(
    control: str, structure: str, balls: Path, tmp_path: Path
) -> None:
    results = audited(f"control:{control}", balls, tmp_path, images=96, audits=["shuffling"])

    assert claims(results)["shuffling/structure"].verdict == structure


@pytest.mark.slow
def test_a_trained_clip_answers_all_three_audits_through_captions(balls: Path, tmp_path: Path) -> None:
    model = find_image_text("control:clip-trained")
    results, seen = seen_by(model.embed_image, lambda: audited(model, balls, tmp_path, images=48))
    found = claims(results)

    assert {one.verdict for one in found.values()} <= {"PASS", "FAIL", "INCONCLUSIVE"}
    assert all(one.units for one in found.values())
    assert {one.audit for one in found.values()} == set(AUDITS)
    assert found["bias/pull"].verdict == "FAIL"  # a square in the middle decides what is left of what
    counted = [max(one.cost.forwards for one in results.claims if one.audit == audit) for audit in AUDITS]
    assert 0 < sum(counted) <= seen
    for one in found.values():
        told = [shown.caption for shown in one.evidence if shown.type == "overlay"]
        assert any(caption in text for caption in BALLS for text in told), one.id


@pytest.mark.slow
def test_a_scorer_of_captions_has_no_maps_and_is_asked_what_needs_none(balls: Path, tmp_path: Path) -> None:
    scorer = find_image_text("control:clip-colour-only")
    assert isinstance(scorer, CaptionScorer)
    model = scorer_as_classifier(scorer, sorted(BALLS))  # as a folder's classes are numbered
    found = claims(audited(model, balls, tmp_path, images=96, templates=[]))

    assert found["shuffling/structure"].verdict == "FAIL"
    assert found["bias/pull"].verdict != "ERROR"
    assert found["bias/pull"].units
    for without in ("shuffling/map_follows", "bias/map_share", "hijack/resists"):
        assert found[without].verdict == "NOT_APPLICABLE"
        assert "has no map of features" in found[without].reason


@pytest.mark.slow
def test_a_clip_from_a_folder_answers_all_three_audits_in_the_usual_prompt(tmp_path: Path) -> None:
    """It knows nothing, so that its pictures are labelled by what it says of them."""
    pytest.importorskip("transformers")
    spec = f"hf:{save_tiny_clip(tmp_path / 'clip')}"
    names = ("blue", "dog", "red")
    model = as_classifier(with_map(find_image_text(spec)), names, templates=TEMPLATES)
    draws = generator(0, "prompted")
    shown = 0.8 * torch.rand(160, 3, 1, 1, generator=draws) + 0.2 * torch.rand(160, 3, *[64] * 2, generator=draws)
    with torch.no_grad():
        said = model.logits(shown).argmax(1)
    chosen = [int(at) for label in range(3) for at in (said == label).nonzero()[:16, 0]]
    data = saved(tmp_path / "data", [(names[int(said[at])], shown[at]) for at in chosen])
    results = audited(spec, data, tmp_path, images=48, templates=[])

    assert results.subjects[0].abilities == ("captions", "classes")
    for one in results.claims:
        assert one.cost.forwards > 0, one.id
        assert one.units, one.id
        # of random weights Grad-CAM is empty on many pictures, and what rests on it is none
        assert one.verdict != "ERROR" or "map empty" in one.reason, one.id
    tables = [one for one in claims(results)["shuffling/structure"].evidence if one.type == "table"]
    whole = dict(zip(tables[0].columns, tables[0].rows[0], strict=True))
    assert whole["accuracy"] > 0.9  # in another prompt it would say something else; rounded pixels may turn a few
