"""Can a change that nobody sees, where the model looks, hijack its class?

## What it measures

Of the pictures that the model has right, the 20 % of the pixels that its Grad-CAM map marks (a policy may set another
share: `attacks.area`) are changed, each value by at most 1, 2, 4 or 8 steps of 1/255 (`smoke`: 4 or 8), so as to change
the class (projected gradient ascent whose step adapts, APGD, on the cross-entropy). Every size is tried on every
picture that no smaller one has hijacked. Every picture that is judged is on the 8-bit grid. guided is how much oftener
that succeeds in the marked pixels than in as many pixels of a random map, averaged over the sizes. resists is the share
that is hijacked at 4/255 by any attack of that size in as many pixels. In the marked ones: by gradient; with random
noise (4 draws); where the gradient has failed, with the finest waves that a picture holds (16 of them); and on the
first of the pictures (16; more in the larger profiles) with squares of colour (Square), by gradient to a class that was
drawn beforehand or that the policy names (`attacks.source`), and with a texture signature: the square of another
picture that Grad-CAM marks most, moved about in the marked pixels to where it helps its class most. And by gradient in
the pixels of the random map and, on the first of the pictures, in those that the map marks least: a map that misleads
makes no model safe. What is hijacked in the marked pixels alone is told beside it. A picture whose map is empty or
constant, or not to be judged otherwise, counts as the worst case. Beside them: how far each attack climbed, after how
many steps it succeeded, what can be seen of the change (SSIM, LPIPS), and, on the first pictures, the whole picture,
and changes whose length is limited instead of their largest value (L2).

## Why it matters

If a fiftieth of the range of a few pixels turns a dog into a cat, whoever can touch the picture chooses the class. That
it suffices to change what the map marks says that the map marks what the class hangs on.

## Known limits

What an attack does not find, a better one may: resists is an upper bound of the resistance, more so with few steps
(`release` has 100, and 5 restarts; a policy may change both). More steps of one size, and more restarts, never hurt any
picture; of APGD that is not so, for its steps shrink by how many there are in all. The curve of success over steps is
of one attack, and cannot fall: where it still rises at its end, more steps would find more. Before an attack may find
nothing, it is checked on 16 pictures that it has a slope to follow and that a step along it raises the loss, and that
it succeeds with changes of 64/255 and not without any change: 95 % have to pass, which of 16 is all, so that a single
picture makes the verdict INCONCLUSIVE. After it, the verdict is INCONCLUSIVE if on more than one picture, and more than
1 %, it had no slope to follow, or got no higher than it began, in the marked pixels or in the random ones; if noise
hijacks more pictures than it; or if more than one picture, and more than 1 %, fall to noise, waves or squares,
whichever, and not to it. So of fewer than 200 pictures one may stand still, and one fall to waves or squares alone; the
table tells. That holds whichever way the numbers point: they are told in the reason. A branch that no gradient shows
and that none of these hits is not found; nor is one that only other pixels than these reach, or more of them: the whole
picture is attacked beside the claim. A softmax that has rounded to 1 hides little: the attack climbs log-odds, which do
not round, but become the margin to the best other class, and on that it finds 14 or more of 16 pictures where it finds
all (loud_jaw, glass_jaw): undecided under 3 seeds of 20. A small change need not tell two models apart: of the
controls, clean and adversarially trained, both resist 4/255 on drawn scenes, and 8/255 tells them
(docs/reproductions.md). The attacker knows the model. Undefended networks are hijacked nearly always, which is why this
informs, and gates only where a policy says so. Models that draw at random in the forward pass are not judged. The map
is that of the picture as it was, and is not drawn anew while the attack goes on. LPIPS, which tells better than SSIM
what people see, is measured where the package `lpips` and torchvision's weights of AlexNet, SqueezeNet 1.1 or VGG-16
are at hand: nothing is downloaded for it. The pictures in the report that were hijacked lie beside it as PNG
(`hijacked/`), and what is said of them is said of what was read back: if one is right again, the claim is an ERROR.

## Caught by

glass_jaw, loud_jaw, blind_guide, reversed_gradients, masked_gradients, blinkered, numb_jaw, lined, even_map

## References

Croce and Hein 2020 (APGD, arXiv:2003.01690); Madry et al. 2018 (arXiv:1706.06083); Andriushchenko et al. 2020 (Square,
arXiv:1912.00049); Tsuzuku and Sato 2019 (waves, arXiv:1809.04098); Carlini et al. 2019 (arXiv:1902.06705) and Athalye
et al. 2018 (arXiv:1802.00420) for what an attack has to show before its failure counts; Croce et al. 2021 (RobustBench,
arXiv:2010.09670) for the radius.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from audits.ask import Ask
from audits.hijack_attacks import attack, masks
from audits.hijack_checks import CALM, HUGE, Checks, checked, those_right
from audits.hijack_doubts import doubted
from audits.hijack_judged import judged
from audits.hijack_shown import show
from audits.hijack_signatures import blended, drawn_classes
from audits.policy import JUDGED, Attacks
from audits.question import Question
from audits.report_folder import PICTURES
from camcore.adversary import Attacked
from camcore.cam import METHODS
from camcore.degeneracy import degeneracy
from camcore.engine import DEGENERATE, shuffled
from camcore.errors import Undefined
from camcore.fragility import LEVELS, on_grid
from camcore.images import Batch, Dataset, Images
from camcore.maps import rectify
from camcore.metrics.likeness import structural_similarity
from camcore.metrics.perceptual import lpips, lpips_at_hand
from camcore.recording import record
from camcore.subject import Classifier

VERSION = "6"

RESISTS = Question(
    name="hijack/resists",
    sentence="changes of at most 4/255 in a part of the pixels, where Grad-CAM looks or at random, hijack less than "
    "half of the pictures",
    kind="INV",
    measure="1 where any of the attacks changes the class: the hijacking success rate, among pictures that were right",
    unit="of the pictures",
    bounds=(0.0, 1.0),
    direction="within",
)
GUIDED = Question(
    name="hijack/guided",
    sentence="an attack where Grad-CAM looks succeeds oftener than one on as many pixels of a random map",
    kind="DIR",
    measure="hijacked in the marked pixels minus hijacked in random ones, mean over the sizes of change",
    unit="of the sizes",
    bounds=(-1.0, 1.0),
)
QUESTIONS = (RESISTS, GUIDED)


def hijack(subject: Classifier, batch: Batch, *, effort: Attacks, found: Checks) -> dict[str, Tensor]:
    """Which attacks succeed on each image; nothing but `degenerate` of an image whose map marks nothing.

    Returns:
        `resists` and `guided`, what is judged; `marked`, resists in the marked pixels alone. `<where>:<radius>`, 1
        where an attack by gradient succeeds, with <where> "top" or "random" at all sizes, and of the judged size
        `stuck:<where>`, 1 where it had no slope to follow or got no higher than it began, and `steps:<where>`, how many
        it took; NaN where it has not succeeded. `<attack>:<judged>` of the others in the marked pixels
        (`audits.hijack_judged`): noise, waves, squares, target, signature. Of the judged attack by gradient `loss`,
        what it has climbed to (log-odds against the label). Of the attack that counted, where any has succeeded: `ssim`
        and, with its weights at hand, `lpips`, `changed` (share of the values), `largest` (in steps). NaN but for the
        images in `found.beside`: <where> "anti" and "all" at the judged size; `l2:<judged>`, where the length of the
        change is limited instead of its largest value; `signature:<radius>` at HUGE, and of both signatures
        `ssim:signature:<radius>` and `lpips:signature:<radius>`.
    """
    rec = record(subject, on_grid(batch.images), chunk=batch.chunk)
    code = degeneracy(rec, rectify(METHODS["gradcam"](rec)))
    where = masks(rec, batch, area=effort.area)
    attacked = judged(subject, batch, where, effort, found)
    columns = {f"{name}:{JUDGED}": hits for name, hits in attacked.tried.items()}
    for name, by_size in attacked.by_gradient.items():
        columns |= {f"{name}:{radius}": one.success.double() for radius, one in by_size.items()}
        one = by_size[JUDGED]
        columns[f"stuck:{name}"] = (one.no_slope | one.stuck).double()
        columns[f"steps:{name}"] = one.steps.double().masked_fill(~one.success, torch.nan)
    columns |= _beside(subject, batch, rec.images, where, attacked.piece, effort=effort, found=found)
    change = (attacked.images - rec.images).abs()
    seen = _seen(rec.images, attacked.images, found, of=attacked.success) | {
        "changed": (change > 0.5 / LEVELS).double().mean((1, 2, 3)),
        "largest": change.amax((1, 2, 3)) * LEVELS,
    }
    columns |= {name: values.masked_fill(~attacked.success, torch.nan) for name, values in seen.items()}
    columns["loss"] = attacked.by_gradient["top"][JUDGED].loss.double()
    columns["marked"], columns["resists"] = attacked.marked.double(), attacked.success.double()
    guided = [columns[f"top:{radius}"] - columns[f"random:{radius}"] for radius in effort.sizes]
    columns["guided"] = torch.stack(guided).mean(0)
    columns = {name: values.masked_fill(code != 0, torch.nan) for name, values in columns.items()}
    return columns | {DEGENERATE: code.double()}


def _beside(
    subject: Classifier,
    batch: Batch,
    images: Images,
    where: Mapping[str, Tensor],
    piece: Attacked,
    *,
    effort: Attacks,
    found: Checks,
) -> dict[str, Tensor]:
    """The attacks that no claim is about: they would be most of the audit's cost, if they were tried on every image."""
    chosen = torch.tensor([image_id in found.beside for image_id in batch.ids], device=images.device)
    rows = chosen.nonzero()[:, 0]
    target = drawn_classes(batch, found.signatures).masked_fill(~chosen, -1)
    none = torch.full((len(batch),), torch.nan, dtype=torch.double, device=images.device)

    def tried(area: str, **options: Any) -> Tensor:
        hit = attack(subject, batch, where[area], JUDGED, effort, rows=rows, **options).success
        return none.index_put((rows,), hit.double())

    columns = {f"all:{JUDGED}": tried("all"), f"l2:{JUDGED}": tried("top", norm="l2")}
    plain = blended(subject, batch, where["top"], target, found.signatures, radius=HUGE)
    columns[f"signature:{HUGE}"] = plain.success.double().masked_fill(target < 0, torch.nan)
    for radius, one in ((JUDGED, piece), (HUGE, plain)):
        for name, values in _seen(images, one.images, found, of=target >= 0).items():
            columns[f"{name}:signature:{radius}"] = values
    return columns


def _seen(images: Images, changed: Images, found: Checks, *, of: Tensor) -> dict[str, Tensor]:
    """Of some images SSIM, mean over the colours, and LPIPS, where its weights are at hand; NaN of the others."""
    measures = {"ssim": _structure}
    if found.lpips is not None:
        measures["lpips"] = partial(lpips, net=found.lpips)
    seen = {name: torch.full((len(images),), torch.nan, dtype=torch.double, device=images.device) for name in measures}
    if of.any():
        for name, measure in measures.items():
            seen[name][of] = measure(images[of], changed[of]).double()
    return seen


def _structure(one: Images, other: Images) -> Tensor:
    colours = range(one.shape[1])
    return torch.stack([structural_similarity(one[:, colour], other[:, colour]) for colour in colours]).mean(0)


@pytest.mark.audit("hijack")
def test_hijack_fails_on_most_pictures(ask: Ask) -> None:
    ask_about(ask, RESISTS, "resists")


@pytest.mark.audit("hijack")
def test_hijack_is_guided_by_the_map(ask: Ask) -> None:
    ask_about(ask, GUIDED, "guided")


def to_attack(dataset: Dataset, given: Mapping[str, Checks], *, guided: bool) -> Dataset:
    """The images that the model has right.

    Raises:
        Undefined: Nothing guides where nothing is hijacked.
    """
    found = given["found"]
    if guided and not found.by_gradient:
        raise Undefined(
            f"of {found.checked} pictures none was hijacked with {CALM}/{LEVELS} everywhere, so that there is nothing "
            "for a map to guide"
        )
    return those_right(dataset, found)


def ask_about(ask: Ask, question: Question, column: str) -> None:
    """Put one of the claims: they share the checks, and read different columns of the same measurement."""
    effort, seed = ask.policy.attacks, ask.terms.seed

    def prepare(_images: Tensor) -> dict[str, Checks]:
        if ask.subject.target_layer is None:
            raise Undefined(f"{ask.subject.name} has no map of features, so that no attack can be guided by one")
        order = shuffled(ask.dataset, seed)[: ask.terms.budget]
        check: Callable[..., Checks] = partial(checked, seed=seed, chunk=ask.terms.batch_size, progress=ask.progress)
        found = check(ask.subject, ask.dataset, order, steps=effort.steps, source=effort.source)
        first = shuffled(those_right(ask.dataset, found), seed)[: effort.beside]  # of those that are measured
        return {"found": replace(found, beside=frozenset(first), lpips=lpips_at_hand())}

    ask(
        question,
        measure=partial(hijack, effort=effort),
        column=column,
        doubt=doubted,
        show=partial(show, effort=effort, column=column, folder=ask.log.path.parent / PICTURES / column),
        version=VERSION,
        premise=prepare,
        among=partial(to_attack, guided=question is GUIDED),
        apart=f"of {ask.terms.budget}",  # of more images others come first, which are attacked in more ways
    )
