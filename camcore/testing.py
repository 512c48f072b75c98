"""The audits in your own test suite: `audit_model` returns results, `parametrize_with_audits` makes a test of a claim.

    from camcore.testing import audit_model, parametrize_with_audits

Neither needs options, fixtures or a conftest.py of this project. The questions are not part of the library: they are
found beside it when one of these functions is called, and need what the extra `audits` installs (docs/testing.md).
"""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from camcore.cam import CamMethod
from camcore.errors import BadInput
from camcore.images import Dataset, Geometry
from camcore.subject import Normalise, Subject
from camcore.suite import enter

if TYPE_CHECKING:
    from reports.schema import Claim, Results

__all__ = ["audit_model", "parametrize_with_audits"]


def audit_model(
    model: nn.Module | Subject | str,
    *,
    data: str | Path | Dataset | tuple[Tensor, Tensor | Sequence[int]] | None = None,
    classes: Sequence[str] | None = None,
    geometry: Geometry | None = None,
    normalise: Normalise | str | None = None,
    layer: str | None = None,
    cams: Sequence[str] | Mapping[str, CamMethod] = (),
    audits: Sequence[str] = (),
    policy: str | Path | None = None,
    profile: str = "pr",
    seed: int = 0,
    device: str | None = None,
    batch_size: int | None = None,
    artefacts: Sequence[str | Path] = (),
    cues: str | Path | None = None,
    templates: Sequence[str] = (),
    name: str | None = None,
    plugins: Sequence[ModuleType] = (),
    report: str | Path | None = None,
    resume: bool = False,
    on_claim: "Callable[[Claim], object] | None" = None,
    on_progress: Callable[[str, int, int], object] | None = None,
) -> "Results":
    """Put the audits to a model, here and now; the same seeds and verdicts as `pytest audits` gives.

    The model leaves as it came: weights, mode, device, hooks and gradients. No option, no environment variable and no
    generator of the process is read or changed.

    Args:
        model: A module that scores classes, a `Classifier`, `TwoTowers` or `BoxFinder`, or a spec as `--model` takes.
        data: What it is shown: images (n, 3, h, w) in [0, 1] and the class index of each, a `camcore.Dataset`, or what
            `--data` takes: a folder, or "scenes". Needed for a module or a classifier; models of captions and of
            phrases have drawn scenes.
        classes: Names of the module's classes, in the order of its scores; else its attribute `classes`, else numbers.
        geometry: How pictures are made to fit the module; else its attribute `geometry`, else as they are if they are
            tensors, else the ImageNet way.
        normalise: How pictures in [0, 1] become the module's input: `Normalise(mean=..., std=...)`, or "inside" if the
            module takes them as they are; else its attribute `normalise`. There is no default: wrongly fed, a model
            seems robust, and is only blind.
        layer: The target layer; found if not given.
        cams: CAM methods by name ("all": those that one recording serves), or functions of a `Recording` by name.
        audits: Whose questions are put; none named: all. What was not asked is not shown: under a policy by which
            other claims gate, the verdict of the results is INCONCLUSIVE, and their claims say each for itself.
        policy: A TOML file laid over the shipped policy.
        profile: How much evidence: "smoke", "pr" or "release".
        seed: Of every random draw.
        device: Where the model runs; where it is, if not given.
        batch_size: Images per forward; measured if not given.
        artefacts: As `--audit-artefact`.
        cues: As `--audit-cues`.
        templates: As `--audit-template`.
        name: What the model is called in the results.
        plugins: Modules that add audits, controls and kinds of models, as `pytest -p` names them (docs/plugins.md). No
            other is loaded, installed or not.
        report: A folder for results.json, report.html and the journal; nothing is written if not given.
        resume: Go on with the audit whose journal is in that folder. A module is known by its weights, and methods of
            your own by their names: after a change of code give another folder.
        on_claim: Called with each claim as it is concluded.
        on_progress: Called with the node id of the test, images done, and images planned.

    Returns:
        What results.json holds: `.verdict`, `.exit_code`, `.claims`, each with its verdict, interval and evidence.

    Raises:
        BadInput: In one line, for whatever is wrong with the arguments, before anything is measured.
    """
    _open_suite()
    from audits.extensions import loaded, registered
    from audits.in_hand import How
    from audits.in_process import audit
    from reports import schema, written

    how = How(
        data=data,
        classes=classes,
        geometry=geometry,
        normalise=normalise,
        layer=layer,
        cams=cams,
        profile=profile,
        policy=policy,
        seed=seed,
        device=device,
        batch_size=batch_size,
        artefacts=artefacts,
        cues=cues,
        templates=templates,
    )

    def finish(content: Mapping[str, Any]) -> "Results":
        results = schema.Results.model_validate(content)
        if report is not None:
            schema.dump(results, Path(report) / "results.json")
            written.write_reports(results, Path(report))
        return results

    if resume and report is None:
        raise BadInput("resume=True goes on with an audit in a folder; name it with report=")
    with loaded(registered(plugins)), tempfile.TemporaryDirectory(prefix="camcore-audit-") as passing:
        return audit(
            model,
            how,
            audits=audits,
            report=Path(passing if report is None else report),
            main=report is not None,
            name=name,
            resume=resume,
            on_claim=None if on_claim is None else lambda record: on_claim(schema.Claim.model_validate(record)),
            on_progress=on_progress,
            finish=finish,
        )


def parametrize_with_audits(
    models: "Sequence[Any] | Mapping[str, Any]",
    *,
    audits: Sequence[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    plugins: Sequence[ModuleType] = (),
    **how: Any,
) -> Any:
    """Make a test of each claim about each model: a decorator for a function of `model` and `claim`.

        @parametrize_with_audits([MyNet()], data="photos/", normalise="inside", audits=["deletion", "wall"])
        def test_my_net(model, claim):
            claim(model)

    Calling the claim puts it to the model and ends the test: PASS passes; FAIL, INCONCLUSIVE and ERROR of a claim that
    gates fail; of one that does not they are xfailed, with the verdict as the reason; what does not apply is skipped.
    The intervals of the claims about a model hold together, whichever of them are asked.

    Args:
        models: Models as `audit_model` takes them, or functions that make one when the first claim is asked: a list,
            or a mapping from names to them.
        audits: Whose questions are put; none named: all.
        expected_failures: Claims that are known to FAIL, by id ("deletion/beats_edges[hirescam]", or "[*]" for every
            method), each with the reason. They are xfailed, and fail once they pass. INCONCLUSIVE and ERROR of them
            are judged as those of any other.
        plugins: As of `audit_model`.
        **how: Further arguments of `audit_model`: data, classes, geometry, normalise, layer, cams, policy, profile,
            seed, device, batch_size, artefacts, cues, templates.

    Returns:
        The decorator.

    Raises:
        BadInput: In one line, for an audit, method, policy or expected failure that there is not. What is wrong with a
            model or its data fails its tests.
    """
    _open_suite()
    from audits import parametrize

    return parametrize.parametrize_with_audits(
        models, audits=audits, expected_failures=expected_failures, plugins=plugins, **how
    )


def _open_suite() -> None:
    """Import the suite's packages; how this process finds others is as it was."""
    before = list(sys.path)
    try:
        enter()
        for part in ("fixtures", "audits.in_process", "reports.written"):
            import_module(part)
    except ModuleNotFoundError as problem:
        raise BadInput(f"{problem.name!r} is not installed; install camcore with the extra 'audits'") from None
    finally:
        sys.path[:] = before
