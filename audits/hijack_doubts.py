"""What the attacks say of each other once all is measured: one that could not see has shown nothing by failing."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from audits.hijack_judged import BLIND, PLACES
from audits.policy import JUDGED
from camcore.engine import Row, column_of

# images that an attack without gradients alone may hijack: all stop after so many tries, and one image at the brink may
# fall to any; a second is no luck (AutoAttack warns at 0.2 % of some thousand images, and one of 16 is 6 %). Likewise
# for those on which the attack by gradient stands still: of 16, one is no sign that slopes are hidden
LUCKY = 1
SHARE = 0.01  # of the images: if there is no slope for more, or more fall to an attack that needs none, it is no luck
# what is known of each image that is meant for an attack: where the gradient has succeeded, no other needs to be tried
MEANT = {"noise": "top", "waves": "top", "squares": "anti"}


def allowed(images: int) -> float:
    """How many of so many images may be luck."""
    return max(LUCKY, SHARE * images)


def doubted(rows: Mapping[str, Row]) -> str:
    """Why the attack by gradient is not to be believed, in the marked pixels or in random ones; empty if it is.

    Both claims rest on both: what guided compares, and what resists counts, is what they find. In the pixels that the
    map marks least it may stand still: a model need not see them, and only that would be no news.

    Args:
        rows: What `audits.test_hijack.hijack` measured.
    """
    why = [*_stuck(rows), *_outdone(rows)]
    if not why:
        return ""
    hits = _known(rows, "resists")
    return f"gradients masked: {'; '.join(why)}. All attacks together hijack {int(hits.sum())} of {len(hits)}"


def _stuck(rows: Mapping[str, Row]) -> Iterator[str]:
    for name in ("top", "random"):
        stuck = _known(rows, f"stuck:{name}")
        if stuck.sum() > allowed(len(stuck)):
            yield (
                f"on {int(stuck.sum())} of {len(stuck)} images the attack {PLACES[name]} has no slope to follow or "
                f"gets no higher than it began (one may, or {SHARE:.0%})"
            )


def _outdone(rows: Mapping[str, Row]) -> Iterator[str]:
    gradient, noise = _known(rows, f"top:{JUDGED}"), _known(rows, f"noise:{JUDGED}")
    if noise.sum() > gradient.sum():
        yield f"noise hijacks {int(noise.sum())} images and the gradient {int(gradient.sum())}"
    # each by itself, for what falls to one that is meant for few images would be little among all; and all of them
    # together, for two images are two, whether one attack finds both or two find one each
    yield from [said for name in BLIND for said in _alone(rows, name)] or _alone(rows, *BLIND)


def _alone(rows: Mapping[str, Row], *names: str) -> Iterator[str]:
    """Whether too many images fall to an attack, or to any of some, and not to that by gradient."""
    hits = torch.stack([column_of(rows, f"{name}:{JUDGED}") for name in names]) == 1
    meant = torch.stack([~column_of(rows, f"{MEANT[name]}:{JUDGED}").isnan() for name in names])
    alone = hits.any(0) & (column_of(rows, f"top:{JUDGED}") == 0)
    count, of = int(alone.sum()), int(meant.any(0).sum())
    if count > allowed(of):
        yield f"{count} of {of} images fall to {' or '.join(names)} and not to the gradient"


def _known(rows: Mapping[str, Row], name: str) -> Tensor:
    values = column_of(rows, name)
    return values[~values.isnan()]
