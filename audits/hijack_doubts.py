"""What the attacks say of each other once all is measured: one that could not see has shown nothing by failing."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from audits.hijack_judged import BLIND
from audits.policy import JUDGED
from camcore.engine import Row, column_of

# images that an attack without gradients alone may hijack: both stop after so many tries, and one image at the brink
# may fall to either; a second is no luck (AutoAttack warns at 0.2 % of some thousand images, and one of 16 is 6 %)
LUCKY = 1
SHARE = 0.01  # of the images: if there is no slope for more, or more fall to an attack that needs none, it is no luck


def doubted(rows: Mapping[str, Row], *, guided: bool) -> str:
    """Why the attack by gradient is not to be believed; empty if it is.

    Args:
        rows: What `audits.test_hijack.hijack` measured.
        guided: Whether the claim is about the attack on random pixels, too.
    """
    why = [*_stuck(rows, guided=guided), *_outdone(rows)]
    if not why:
        return ""
    hits = _known(rows, "resists")
    return f"gradients masked: {'; '.join(why)}. All attacks together hijack {int(hits.sum())} of {len(hits)}"


def _stuck(rows: Mapping[str, Row], *, guided: bool) -> Iterator[str]:
    places = {"top": "where Grad-CAM looks", **({"random": "in random pixels"} if guided else {})}
    for name, where in places.items():
        stuck = _known(rows, f"stuck:{name}")
        if stuck.sum() > SHARE * len(stuck):
            yield (
                f"on {int(stuck.sum())} of {len(stuck)} images the attack {where} has no slope to follow or gets no "
                f"higher than it began ({SHARE:.0%} may)"
            )


def _outdone(rows: Mapping[str, Row]) -> Iterator[str]:
    gradient = column_of(rows, f"top:{JUDGED}")
    noise = _known(rows, f"noise:{JUDGED}")
    if noise.sum() > gradient.nansum():
        yield f"noise hijacks {int(noise.sum())} images and the gradient {int(gradient.nansum())}"
    for name in BLIND:
        hits = column_of(rows, f"{name}:{JUDGED}")
        tried, alone = int((~hits.isnan()).sum()), int(((hits == 1) & (gradient == 0)).sum())
        if alone > max(LUCKY, SHARE * tried):
            yield f"{alone} of {tried} images fall to {name} and not to the gradient"


def _known(rows: Mapping[str, Row], name: str) -> Tensor:
    values = column_of(rows, name)
    return values[~values.isnan()]
