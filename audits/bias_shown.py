"""What the bias audit shows: pictures with the suspect, the search, how little of it pulls, what its class loses."""

from collections.abc import Iterable, Mapping

from audits.bias_doses import Doses
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
from fixtures.artefacts import Suspect, carrying

TURNED = "turned"  # the column of the claim that is about another suspect than the rest


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
    stuck = found.turners[0].suspect if column == TURNED else suspect
    versions = {"as it is": batch.images, f"with a {stuck.name}": carrying(batch.images, stuck)}
    cam = cams.get(name or "")
    yield from side_by_side(subject, batch, rows, versions, cam=cam, target=None, column=column)
    if column == TURNED:
        yield Table(
            title=f"The suspects with which most of the {len(found.searched)} images searched are called something "
            "else, and are not with the same pixels hidden; the first is confirmed on others",
            columns=("suspect", "share of the pictures"),
            rows=tuple((one.suspect.name, round(one.share, 4)) for one in found.turners),
        )
        return
    towards = subject.classes[label]
    if found.doses is not None:
        yield from _dosed(found.doses, suspect, towards, enough)
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


def _dosed(doses: Doses, suspect: Suspect, towards: str, enough: float) -> Iterable[Evidence]:
    """How large and how visible it has to be, as curves; and the least that pulls, as numbers."""
    gain = f"gain of {towards} (probability, mean over {doses.images} images)"

    def curve(title: str, x_label: str, values: Mapping[float, float]) -> Curve:
        series = {suspect.name: (0.0, *(round(one, 4) for one in values.values()))}
        return Curve(title=title, x_label=x_label, y_label=gain, x=(0.0, *values), series=series)

    if suspect.artefact.everywhere:
        size = "as large as the picture"
    else:
        size = "{}{:.3f}".format(*first_at(doses.by_share, enough))
        share = "its side, as a share of the picture's shorter side"
        yield curve(f"How large a {suspect.artefact.name} has to be", share, doses.by_share)
    yield curve(f"How faint a {suspect.artefact.name} may be", "opacity", doses.by_opacity)
    yield Table(
        title=f"The least {suspect.artefact.name} that gains {enough:g} (on a straight line between what was tried)",
        columns=("side, as a share of the picture's shorter side", "opacity"),
        rows=((size, "{}{:.2f}".format(*first_at(doses.by_opacity, enough))),),
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
