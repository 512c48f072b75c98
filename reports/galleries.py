"""Which pictures a report shows: as many as fit, and of those that do not, how many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from reports.pictures import Album, Frames, Full, Unreadable
from reports.schema import Claim, Overlay

ROOM = 5_500_000  # characters that all pictures of a report may take, so that it stays below 10 MB
RANKS = ("worst", "typical", "best")  # what a reader should look at first comes first
COLUMNS = 3  # of pictures


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An overlay and its frames; without, it could not be read."""

    overlay: Overlay
    frames: Frames | None


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of a claim."""

    pictures: tuple[Picture, ...]
    left_out: int
    columns: int  # the versions of one image stand in one row


def galleries(numbered: Sequence[tuple[int, Claim]], album: Album) -> dict[int, Gallery]:
    """A gallery for every claim with pictures, by the claim's number.

    First come the worst images of every claim, then the others: in both rounds the claims that keep a release back
    lead, then those that do not pass, then those that gate. The first image that does not fit ends the showing.
    """
    images = {number: _images(claim) for number, claim in numbered}
    order = sorted((number for number in images if images[number]), key=lambda n: _place(dict(numbered)[n]))
    queue = [(number, 0) for number in order] + [(n, i) for n in order for i in range(1, len(images[n]))]
    shown: dict[tuple[int, int], list[Picture]] = {}
    for number, place in queue:
        try:
            shown[number, place] = [_picture(overlay, album) for overlay in images[number][place]]
        except Full:
            break
    made = {}
    for number, rows in images.items():
        pictures = [one for place in range(len(rows)) for one in shown.get((number, place), ())]
        if rows:
            made[number] = Gallery(
                pictures=tuple(pictures), left_out=sum(map(len, rows)) - len(pictures), columns=_columns(rows)
            )
    return made


def _place(claim: Claim) -> tuple[bool, bool, bool]:
    shown = claim.verdict in ("PASS", "NOT_APPLICABLE")
    return (not claim.gates or shown, shown, not claim.gates)


def _images(claim: Claim) -> list[list[Overlay]]:
    """The overlays of each image, the worst first."""
    overlays = [item for item in claim.evidence if isinstance(item, Overlay)]
    ranked = sorted(overlays, key=lambda one: RANKS.index(one.role))
    return [list(same) for _, same in groupby(ranked, key=lambda one: (one.role, one.unit))]


def _picture(overlay: Overlay, album: Album) -> Picture:
    try:
        return Picture(overlay=overlay, frames=album.frames(overlay))
    except Unreadable:
        return Picture(overlay=overlay, frames=None)


def _columns(rows: Sequence[Sequence[Overlay]]) -> int:
    most = max(len(row) for row in rows)
    return most if 1 < most <= COLUMNS + 1 else COLUMNS
