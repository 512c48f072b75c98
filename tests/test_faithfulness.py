import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camcore import metrics
from camcore.cam import METHODS
from camcore.cost import metered
from camcore.perturbations import black, mean_colour, patch_means, patch_numbers, patch_sums
from camcore.recording import record
from camcore.seeds import generator
from tests.oracles import faithfulness as oracle
from tests.tiny import CLASSES, FlatNet, GapNet, some_images, tiny_subject

CELLS = 4
SCALES = ("logit", "probability", "log_odds")


def question(count=2, seed=0):
    """A subject, images, classes, signed maps at their size, a baseline, and the patch of each pixel."""
    images = some_images(count, seed=seed)
    saliency = torch.randn(count, 16, 16, generator=generator(seed, "saliency"))
    target = torch.arange(count) % CLASSES
    return tiny_subject(FlatNet()), images, target, saliency, mean_colour(images), patch_numbers((16, 16), CELLS)


def one_each(count, purpose="draws"):
    return [generator(0, purpose, str(index)) for index in range(count)]


def score_of(subject, target, scale="probability"):
    """One image's score in numpy, by way of the subject alone."""

    def score(image):
        with torch.no_grad():
            logits = subject.logits(torch.as_tensor(image, dtype=torch.float32)[None])[0].double()
        p = float(logits.softmax(0)[target])
        return {"logit": float(logits[target]), "probability": p, "log_odds": oracle.log_odds(p)}[scale]

    return score


def falls(subject, images, target, subsets, baseline, numbers, chunk=32):
    with torch.no_grad():
        intact = metrics.class_scores(subject.logits(images), target)
    hidden = metrics.hidden_scores(subject, images, target, subsets, numbers, baseline=baseline, chunk=chunk)
    return metrics.Scores(*(score[:, None] for score in intact)).drops(hidden)


@given(st.integers(1, 7), st.integers(7, 20), st.integers(7, 20))
def test_patches_cover_the_image_once_and_differ_by_a_row_and_a_column_at_most(cells, height, width):
    numbers = patch_numbers((height, width), cells)
    expected = torch.zeros(height, width, dtype=torch.int64)
    for number, pixels in enumerate(oracle.patches(height, width, cells)):
        for place in pixels:
            expected[place] = number
    assert torch.equal(numbers, expected)
    counts = numbers.flatten().bincount()
    assert len(counts) == cells**2
    assert counts.min() >= (height // cells) * (width // cells)
    assert counts.max() <= -(-height // cells) * -(-width // cells)


def test_patch_sums_and_means_add_up():
    saliency = torch.rand(2, 13, 17, generator=generator(0, "saliency"))
    numbers = patch_numbers((13, 17), 3)
    torch.testing.assert_close(patch_sums(saliency, numbers).sum(1), saliency.sum((1, 2)))
    torch.testing.assert_close(patch_means(torch.full((2, 13, 17), 0.7), numbers), torch.full((2, 9), 0.7))


def test_more_patches_than_pixels_are_refused():
    with pytest.raises(ValueError, match="an image of 4x9 cannot be cut into 5x5 patches"):
        patch_numbers((4, 9), 5)


@pytest.mark.parametrize("scale", SCALES)
def test_occlusion_correlation_is_spearman_of_patches_hidden_one_by_one(scale):
    subject, images, target, saliency, baseline, numbers = question()
    drops = getattr(falls(subject, images, target, metrics.each_patch(2, CELLS**2), baseline, numbers), scale)
    found = metrics.occlusion_correlation(saliency, drops, numbers)
    for index in range(2):
        score = score_of(subject, int(target[index]), scale)
        slow = oracle.occlusion(score, images[index].numpy(), baseline[index].numpy(), saliency[index].numpy(), CELLS)
        assert found[index].item() == pytest.approx(slow, abs=1e-6)


def test_the_log_odds_rank_as_the_probability_does():
    subject, images, target, saliency, baseline, numbers = question()
    drops = falls(subject, images, target, metrics.each_patch(2, CELLS**2), baseline, numbers)
    found = [metrics.occlusion_correlation(saliency, one, numbers) for one in (drops.probability, drops.log_odds)]
    torch.testing.assert_close(*found)


def test_log_odds_do_not_saturate_with_the_probability():
    logits = torch.tensor([[30.0, 0.0, 1.0], [40.0, 0.0, 1.0]])
    scores = metrics.class_scores(logits, torch.tensor([0, 0]))
    assert scores.probability.tolist() == [1, 1]
    assert (scores.log_odds[1] - scores.log_odds[0]).item() == pytest.approx(10, abs=1e-4)
    for scale, one in zip(SCALES, metrics.class_scores(logits / 10, torch.tensor([1, 2])), strict=True):
        p = (logits / 10).double().softmax(1)[[0, 1], [1, 2]]
        wanted = {"logit": torch.tensor([0.0, 0.1]), "probability": p, "log_odds": (p / (1 - p)).log()}[scale]
        torch.testing.assert_close(one.double(), wanted.double(), rtol=1e-5, atol=1e-6)


def test_drops_of_patches_are_camcores_occlusion_where_squares_do_not_overlap():
    subject, images, _, _, _, numbers = question()
    subject = tiny_subject(GapNet(), "conv2")
    rec = record(subject, images)
    drops = falls(subject, images, rec.target, metrics.each_patch(2, CELLS**2), mean_colour(images), numbers)
    map_of_drops = METHODS["occlusion"](rec, window=16 // CELLS, stride=16 // CELLS)
    torch.testing.assert_close(drops.logit[:, numbers], map_of_drops, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("scale", "baseline"), [("logit", black), ("probability", mean_colour)])
@pytest.mark.parametrize("size", [1, 5])
def test_sensitivity_n_is_the_papers_correlation_set_by_set(scale, baseline, size):
    subject, images, target, saliency, _, numbers = question()
    subsets = metrics.draw_subsets(CELLS**2, size=size, count=12, generators=one_each(2))
    drops = getattr(falls(subject, images, target, subsets, baseline(images), numbers), scale)
    found = metrics.sensitivity_n(saliency, subsets, drops, numbers)
    for index in range(2):
        sets = [one.nonzero()[:, 0].tolist() for one in subsets[index]]
        by = baseline(images)[index].numpy()
        score = score_of(subject, int(target[index]), scale)
        slow = oracle.sensitivity_n(score, images[index].numpy(), by, saliency[index].numpy(), CELLS, sets)
        assert found[index].item() == pytest.approx(slow, abs=1e-5)


def test_a_linear_model_and_its_own_contributions_correlate_perfectly():
    # gradient x (input - baseline) sums to the drop exactly: Sensitivity-n for every n (Ancona et al., proposition 2)
    subject, images, _, _, _, numbers = question()
    weights = torch.randn(3, 16, 16, generator=generator(0, "weights"))
    subject = tiny_subject(_Linear(weights), seed=None)
    saliency = (weights * images).sum(1)
    subsets = metrics.draw_subsets(CELLS**2, size=6, count=20, generators=one_each(2))
    drops = falls(subject, images, torch.zeros(2, dtype=torch.int64), subsets, black(images), numbers).logit
    for sign in (1, -1):
        found = metrics.sensitivity_n(sign * saliency, subsets, drops, numbers)
        torch.testing.assert_close(found, torch.full((2,), float(sign), dtype=torch.float64))


class _Linear(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, images):
        score = (images * self.weights).sum((1, 2, 3))
        return torch.stack([score, *[score * 0] * (CLASSES - 1)], 1)


@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_subsets_have_exactly_the_size_asked_for(patches, count, data):
    size = data.draw(st.integers(1, patches))
    subsets = metrics.draw_subsets(patches, size=size, count=count, generators=one_each(2))
    assert subsets.shape == (2, count, patches)
    assert (subsets.sum(2) == size).all()


def test_subsets_favour_no_patch_and_belong_to_the_image():
    subsets = metrics.draw_subsets(16, size=4, count=1600, generators=one_each(2))
    # each patch is drawn 400 times with a deviation of 17
    assert (subsets[0].sum(0) - 400).abs().max() < 70
    alone = metrics.draw_subsets(16, size=4, count=1600, generators=one_each(2)[1:])
    assert torch.equal(alone[0], subsets[1])
    assert not torch.equal(subsets[0], subsets[1])


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_hidden_scores_ask_once_per_image_and_set_whatever_the_chunk(chunk):
    subject, images, target, _, baseline, numbers = question()
    subsets = metrics.draw_subsets(CELLS**2, size=3, count=9, generators=one_each(2))
    sizes = []
    handle = subject.module.register_forward_hook(lambda _module, args, _output: sizes.append(len(args[0])))
    with metered() as cost:
        found = metrics.hidden_scores(subject, images, target, subsets, numbers, baseline=baseline, chunk=chunk)
    handle.remove()
    assert (cost.forwards, cost.backwards) == (18, 0)
    assert max(sizes) <= chunk
    assert len(sizes) == -(-18 // chunk)
    whole = metrics.hidden_scores(subject, images, target, subsets, numbers, baseline=baseline)
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other)
        assert not one.requires_grad


def test_flipping_is_one_patch_after_another_and_its_aopc_the_mean_fall():
    subject, images, target, saliency, baseline, _ = question()
    found = metrics.pixel_flipping(
        subject, images, target, saliency, baseline=baseline, cells=CELLS, steps=7, generators=one_each(2)
    ).probability
    assert found.shape == (2, 8)
    area = metrics.area_over_perturbation(found)
    for index in range(2):
        score = score_of(subject, int(target[index]))
        slow = oracle.flipping(score, images[index].numpy(), baseline[index].numpy(), saliency[index].numpy(), CELLS, 7)
        torch.testing.assert_close(found[index], torch.tensor(slow), rtol=1e-4, atol=1e-6)
        assert area[index].item() == pytest.approx(oracle.aopc(slow), abs=1e-5)


def test_flipping_pixels_is_deletion():
    subject, images, target, saliency, baseline, _ = question()
    found = metrics.pixel_flipping(
        subject, images, target, saliency, baseline=baseline, cells=16, steps=20, generators=one_each(2)
    )
    from camcore.perturbations import rank_pixels

    rank = rank_pixels(saliency, generators=one_each(2))
    steps = [step / 256 for step in range(21)]
    curve = metrics.deletion_curve(subject, images, target, rank, baseline=baseline, fractions=steps)
    torch.testing.assert_close(found.logit, curve.logit)


@pytest.mark.parametrize("steps", [0, 17])
def test_flipping_more_patches_than_there_are_is_refused(steps):
    subject, images, target, saliency, baseline, _ = question()
    with pytest.raises(ValueError, match=f"expected 1 to 16 steps for 4x4 patches, got {steps}"):
        metrics.pixel_flipping(
            subject, images, target, saliency, baseline=baseline, cells=4, steps=steps, generators=one_each(2)
        )


def test_average_drop_and_increase_are_the_papers():
    subject, images, target, saliency, _, _ = question(4)
    with torch.no_grad():
        intact, shown = (
            metrics.class_scores(subject.logits(one), target).probability
            for one in (images, metrics.shown_by(images, saliency))
        )
    drop, increase = metrics.average_drop(intact, shown), metrics.increase_in_confidence(intact, shown)
    for index in range(4):
        score = score_of(subject, int(target[index]))
        slow = oracle.average_drop(score, images[index].numpy(), saliency[index].numpy())
        assert (drop[index].item(), increase[index].item()) == pytest.approx(slow, abs=1e-5)
    assert 0 < increase.sum() < 4, "the question must hold both cases"


@given(st.floats(0.01, 1), st.floats(0, 1))
def test_a_drop_lies_between_0_and_1_and_excludes_an_increase(intact, shown):
    y, o = torch.tensor([intact]), torch.tensor([shown])
    drop, increase = metrics.average_drop(y, o).item(), metrics.increase_in_confidence(y, o).item()
    assert 0 <= drop <= 1
    assert not (drop > 0 and increase > 0)


@given(st.integers(0, 10_000), st.integers(3, 12), st.integers(2, 5))
def test_spearman_shares_ranks_among_ties(seed, count, levels):
    draws = generator(seed, "levels")
    x, y = (torch.randint(levels, (1, count), generator=draws).float() for _ in range(2))
    found = metrics.spearman(x, y).item()
    if len(set(x[0].tolist())) == 1 or len(set(y[0].tolist())) == 1:
        assert found != found
    else:
        slow = oracle.pearson(oracle.ranks(x[0].tolist()), oracle.ranks(y[0].tolist()))
        assert found == pytest.approx(slow, abs=1e-9)


def test_spearman_ignores_monotone_rescaling_and_pearson_ignores_lines():
    x, y = torch.randn(2, 3, 20, generator=generator(0, "rows"), dtype=torch.float64)
    torch.testing.assert_close(metrics.spearman(x.exp(), y), metrics.spearman(x, y))
    torch.testing.assert_close(metrics.spearman(-x, y), -metrics.spearman(x, y))
    torch.testing.assert_close(metrics.pearson(3 * x - 1, y), metrics.pearson(x, y))


def test_a_constant_map_has_no_correlation():
    # 0.1 is no binary fraction: the mean of many is not 0.1 exactly
    rows = torch.full((1, 49), 0.1)
    assert metrics.pearson(rows, torch.rand(1, 49, generator=generator(0, "rows"))).isnan().all()
