"""What the bias audit shows: pictures with the suspect, the search, how little of it pulls, what its class loses."""

from collections.abc import Iterable, Mapping

from audits.bias_removal import Removal
from audits.bias_scan import Scan
from audits.crossing import first_at
from audits.seen import side_by_side
from audits.shares import exact_share
from camcore.cam import CamMethod
from camcore.engine import Row, column_of
from camcore.images import Batch
from camcore.subject import Classifier
from camcore.verdict import Curve, Evidence, Table
from fixtures.artefacts import SHARE, Suspect, carrying

SHARES = (0.02, 0.04, 0.08, 0.12, SHARE, 0.24)  # of the shorter side
OPACITIES = (0.1, 0.25, 0.5, 0.75, 1.0)


def show(
    subject: Classifier,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    cams: Mapping[str, CamMethod],
    name: str | None,
    column: str,
    enough: float,
    found: Scan,
) -> Iterable[Evidence]:
    """Each image as it is and with the suspect, under the map of what is predicted; the search; size and opacity.

    Args:
        subject: The model.
        batch: The images, the worst first.
        rows: What was measured of them.
        cams: The chosen methods.
        name: Of the method whose maps are shown.
        column: What is judged.
        enough: The gain from which on a suspect pulls: the smallest and the faintest that does is named.
        found: What the search came to.
    """
    suspect, label = found.strongest[0].suspect, found.strongest[0].label
    versions = {"as it is": batch.images, f"with a {suspect.name}": carrying(batch.images, suspect)}
    cam = cams.get(name or "")
    yield from side_by_side(subject, batch, rows, versions, cam=cam, target=None, column=column)
    towards = subject.classes[label]
    gain = f"gain of {towards} (probability, mean over images)"
    if not suspect.artefact.everywhere:
        yield Curve(
            title=f"How large a {suspect.artefact.name} has to be",
            x_label="its side, as a share of the picture's shorter side",
            y_label=gain,
            x=(0.0, *SHARES),
            series={suspect.name: (0.0, *(_mean(rows, f"share:{share:g}") for share in SHARES))},
        )
    yield Curve(
        title=f"How faint a {suspect.artefact.name} may be",
        x_label="opacity",
        y_label=gain,
        x=(0.0, *OPACITIES),
        series={suspect.name: (0.0, *(_mean(rows, f"opacity:{one:g}") for one in OPACITIES))},
    )
    yield _least(rows, suspect, enough)
    yield Table(
        title=f"The strongest of {found.tried} pairs of a suspect and a class, on the {len(found.searched)} images "
        "searched (gain in probability; p of no gain, times the number of pairs); the first is confirmed on others",
        columns=("suspect", "towards", "gain", "p (Bonferroni)"),
        rows=tuple(
            (one.suspect.name, subject.classes[one.label], round(one.pull, 4), one.p) for one in found.strongest
        ),
    )
    yield Table(
        title=f"What a {suspect.name} does to pictures of other classes than {towards}, on images not searched",
        columns=("picture", f"probability of {towards}", f"called {towards}"),
        rows=(
            ("as it is", _mean(rows, "without"), ""),
            ("pixels hidden", _mean(rows, "hidden"), ""),
            ("with it", _mean(rows, "with"), _mean(rows, "called")),
        ),
    )
    if found.removal is not None:
        yield _taken_out(found.removal, suspect, towards)


def _least(rows: Mapping[str, Row], suspect: Suspect, enough: float) -> Table:
    """The smallest suspect that pulls, and the faintest, as numbers."""
    by_size, by_opacity = (
        first_at({one: _mean(rows, f"{key}:{one:g}") for one in steps}, enough)
        for key, steps in (("share", SHARES), ("opacity", OPACITIES))
    )
    size = "as large as the picture" if suspect.artefact.everywhere else "{}{:.3f}".format(*by_size)
    return Table(
        title=f"The least {suspect.artefact.name} that gains {enough:g} (on a straight line between what was tried)",
        columns=("side, as a share of the picture's shorter side", "opacity"),
        rows=((size, "{}{:.2f}".format(*by_opacity)),),
    )


def _taken_out(removal: Removal, suspect: Suspect, towards: str) -> Table:
    """What the class loses without the suspect, where its pictures carry it."""
    if suspect.artefact.everywhere:
        title = f"Pictures of {towards} were not looked through for a {suspect.name}, which is everywhere"
    else:
        title = (
            f"Pictures of {towards}, on images not searched, {removal.right.shape[1]} of {removal.looked_at} of which "
            f"carry a {suspect.name} (share called {towards}, exact 95 % interval)"
        )
    kinds = ("as they are", "without it (inpainted)", "with as much inpainted elsewhere")
    return Table(
        title=title,
        columns=("pictures that carry it", f"called {towards}"),
        rows=tuple((kind, exact_share(right.double())) for kind, right in zip(kinds, removal.right, strict=True)),
    )


def _mean(rows: Mapping[str, Row], key: str) -> float:
    return round(float(column_of(rows, key).nanmean()), 4)
