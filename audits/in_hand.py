"""What a caller has in hand, a module, pictures, functions of a recording, as the audits take it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from audits.options import Settings, read_settings
from audits.plan import chosen_cams
from audits.roles import trying
from camcore.cam import CamMethod
from camcore.errors import BadInput
from camcore.images import Dataset, Geometry
from camcore.subject import Classifier, Normalise, Subject
from fixtures.datasets.captions import Captions
from fixtures.datasets.tensors import tensors
from fixtures.subjects.factory import as_fed

Model = nn.Module | Subject | str
INSIDE = Normalise(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # pictures as they are


@dataclass(frozen=True, kw_only=True)
class How:
    """What a model is shown, and on which terms: documented at `camcore.testing.audit_model`."""

    data: str | Path | Dataset | Captions | tuple[Tensor, Any] | None = None
    classes: Sequence[str] | None = None
    geometry: Geometry | None = None
    normalise: Normalise | str | None = None
    layer: str | None = None
    cams: Sequence[str] | Mapping[str, CamMethod] = ()
    profile: str = "pr"
    policy: str | Path | None = None
    seed: int = 0
    device: str | None = None
    batch_size: int | None = None
    artefacts: Sequence[str | Path] = ()
    cues: str | Path | None = None
    templates: Sequence[str] = ()

    def settings(self, spec: str, report: Path, *, device: str, resume: bool = False) -> Settings:
        """As the command line would have them."""
        named = isinstance(self.data, str | Path)
        return replace(
            read_settings({}, {}),
            models=(spec,),
            data=str(self.data) if named else None,
            cams=() if isinstance(self.cams, Mapping) else tuple(self.cams),
            layer=self.layer,
            artefacts=tuple(map(Path, self.artefacts)),
            cues=None if self.cues is None else Path(self.cues),
            templates=tuple(self.templates),
            policy=None if self.policy is None else Path(self.policy),
            profile=self.profile,
            device=device,
            report=report,
            resume=resume,
            seed=self.seed,
            batch_size=self.batch_size,
        )

    @property
    def said(self) -> list[str]:
        """The arguments that are not the default, as one would type them; what is only in memory by its type."""
        given = ((one.name, getattr(self, one.name)) for one in fields(self))
        changed = ((name, value) for name, value in given if value is not getattr(How, name))
        return [f"{name}={_told(value)}" for name, value in changed]


def spec_of(model: Model) -> str:
    """What stands for the model where the command line has a spec."""
    if isinstance(model, str):
        return model
    if isinstance(model, Subject):
        return model.spec or f"subject:{model.name}"
    if isinstance(model, nn.Module):
        return f"module:{type(model).__name__}"
    raise BadInput(
        "a model must be a torch.nn.Module, a subject of camcore or a spec as --model takes, "
        f"got {type(model).__name__}"
    )


def module_of(model: Model) -> nn.Module | None:
    """The caller's own module, if there is one."""
    return model if isinstance(model, nn.Module) else model.module if isinstance(model, Subject) else None


def methods(spec: str, how: How) -> dict[str, CamMethod]:
    """The CAM methods to judge, by name.

    Raises:
        BadInput: An unknown name.
    """
    if isinstance(how.cams, str):
        raise BadInput(f"cams must be a list of names, got {how.cams!r}; write [{how.cams!r}]")
    if not isinstance(how.cams, Mapping):
        return chosen_cams(spec, how.cams)
    for name, method in how.cams.items():
        if not name.isidentifier() or not callable(method):
            raise BadInput(f"cams must map names to functions of a Recording, got {name!r}: {type(method).__name__}")
    return dict(how.cams)


def as_subject(model: nn.Module | Subject, spec: str, how: How) -> Subject:
    """The model as the audits take it.

    Raises:
        BadInput: It is not said how it is fed, or it does not run so.
    """
    if isinstance(model, Subject):
        fed = {"classes": how.classes, "geometry": how.geometry, "normalise": how.normalise}
        for name, value in fed.items():
            if value is not None:
                raise BadInput(f"{name} is for a torch.nn.Module; {model.name} is a subject, which says it itself")
        return model
    normalise = how.normalise if how.normalise is not None else getattr(model, "normalise", None)
    if normalise == "inside":
        normalise = INSIDE
    if not isinstance(normalise, Normalise):
        raise BadInput(
            "say how the model is fed: normalise='inside' if it takes pictures in [0, 1], else "
            f"normalise=Normalise(mean=..., std=...), got {normalise!r}"
        )
    geometry = how.geometry
    if geometry is None and isinstance(how.data, tuple) and not hasattr(model, "geometry"):
        images = how.data[0]
        if isinstance(images, Tensor) and images.ndim == 4:
            geometry = Geometry(crop=(images.shape[2], images.shape[3]))
    with trying(spec):
        return as_fed(
            model.eval(),
            name=type(model).__name__,
            spec=spec,
            source="as given",
            geometry=geometry,
            normalise=normalise,
            classes=how.classes,
        )


def as_data(how: How, subject: Subject | None) -> Dataset | Captions | None:
    """What the caller has in hand; None where it is named, or left to the audits.

    Raises:
        BadInput: It is nothing that a model can be shown.
    """
    if how.data is None or isinstance(how.data, str | Path):
        return None
    if isinstance(how.data, Dataset | Captions):
        return how.data
    if isinstance(how.data, tuple) and len(how.data) == 2:
        return tensors(*how.data, classes=subject.classes if isinstance(subject, Classifier) else ())
    raise BadInput(
        f"data must be as --data takes it, a camcore Dataset or (images, labels), got {type(how.data).__name__}"
    )


def _told(value: object) -> str:
    """A value as one would type it, if one would."""
    if isinstance(value, str | int):
        return repr(value)
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, list | tuple) and all(isinstance(each, str | Path) for each in value) and len(value) < 10:
        return f"[{', '.join(map(_told, value))}]"
    return f"<{type(value).__name__}>"
