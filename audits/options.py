"""The command line: each option once, with its environment variable and its default."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from camcore.errors import BadInput, shown


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option. Precedence: command line, the environment, the user's pyproject.toml, the default."""

    flag: str
    help: str
    default: Any = None
    many: bool = False  # may be given several times; in the environment, separated by commas
    is_flag: bool = False
    convert: Callable[[str], Any] = str
    metavar: str | None = None

    @property
    def name(self) -> str:
        """Its key in a pyproject.toml: model, seed, batch_size."""
        return self.flag.removeprefix("--").removeprefix("audit-").replace("-", "_")

    @property
    def dest(self) -> str:
        """Its name among pytest's options: never one that another plugin would choose."""
        return f"audit_option_{self.name}"

    @property
    def environment(self) -> str:
        """AUDIT_MODEL, AUDIT_SEED and so on."""
        return f"AUDIT_{self.name.upper()}"


SEEDS = 2**63  # either way from 0
MOST_AT_ONCE = 1_000_000  # images in a batch
# What is audited if nobody says: the clean control of each ability. Pictures of classes, and layers, are for the first.
CLEAN = ("control:clean", "control:clip-oracle", "control:grounder-oracle")
OPTIONS = (
    Option(
        flag="--model",
        metavar="SPEC",
        many=True,
        help="model to audit, repeatable: resnet50, torchvision:resnet50@IMAGENET1K_V1, py:FILE.py:factory, "
        "py:pkg.mod:factory (runs that code), control:NAME, mdetr:resnet101@FILE (finds phrases); default: the clean "
        "control of each ability, or with --data or --audit-layer control:clean alone",
    ),
    Option(
        flag="--weights", metavar="FILE|random:SEED", help="weights for every --model, instead of the published ones"
    ),
    Option(
        flag="--data",
        metavar="SPEC",
        help="a folder (a sub-folder per class, or a labels.csv with file, class_index, label), imagenette, "
        "cifar10[:PATH] or scenes; of captions: one with captions.csv (file, caption, foil), Winoground, What'sUp, "
        "ARO, SugarCrepe or VSR; of phrases: one with phrases.csv (file, caption, phrase, x0, y0, x1, y1); default: "
        "imagenette for published ImageNet weights, else scenes",
    ),
    Option(flag="--cam", metavar="NAME", many=True, help="CAM method to audit, repeatable, or all; default: hirescam"),
    Option(flag="--audit-layer", metavar="NAME", help="target layer, instead of the one that is found"),
    Option(
        flag="--audit-artefact",
        metavar="FILE",
        many=True,
        help="a picture that the model may have learned in place of a class, to be looked for with the usual suspects, "
        "as large as they are; FILE@0.3: its longer side is 0.3 of the picture's shorter one; FILE@whole: laid over "
        "the whole picture; repeatable",
    ),
    Option(
        flag="--audit-cues",
        metavar="FOLDER",
        help="pictures whose shape says one class and whose texture another, as <shape>/<shape>1-<texture>2.png; "
        "default: drawn ones for models of scenes, else none",
    ),
    Option(
        flag="--audit-template",
        metavar="TEXT",
        many=True,
        help="what a model of captions that is asked about the classes of --data is told of each, {} for its name; "
        "repeatable, as an ensemble; default: 'a photo of a {}'",
    ),
    Option(flag="--audit-policy", metavar="FILE", help="TOML laid over audits/policy.toml"),
    Option(flag="--audit-profile", metavar="smoke|pr|release", default="pr", help="how much evidence; default: pr"),
    Option(
        flag="--audit-device",
        metavar="auto|cpu|cuda[:N]|mps",
        default="auto",
        help="where the model runs; default: auto",
    ),
    Option(
        flag="--audit-report",
        metavar="DIR",
        default="audit-report",
        help="folder for results.json and report.html; default: audit-report",
    ),
    Option(
        flag="--audit-baseline",
        metavar="FILE",
        help="results.json of an earlier run: what gates must not be worse either, picture by picture; same data, seed "
        "and profile, both in full",
    ),
    Option(
        flag="--audit-full",
        is_flag=True,
        help="measure what gates on all the images that the profile grants, certain or not: for a run that is to be a "
        "baseline (with --audit-baseline this is so anyway)",
    ),
    Option(
        flag="--audit-rejudge",
        metavar="FILE",
        help="judge this results.json again under --audit-policy, from the values that it holds: no model is loaded; "
        "the outcome goes to --audit-report",
    ),
    Option(
        flag="--audit-xfails-file",
        metavar="FILE",
        help="claims or tests that are known to fail, an id a line with its reason behind a #, * for anything: pytest "
        "says x instead of F; verdict and exit code stay, only a waiver in the policy changes them",
    ),
    Option(flag="--audit-resume", is_flag=True, help="go on with the run that --audit-report holds"),
    Option(flag="--audit-seed", metavar="N", default=0, convert=int, help="seed of every random draw; default: 0"),
    Option(flag="--audit-batch-size", metavar="N", convert=int, help="images per forward; default: measured"),
)


@dataclass(frozen=True, kw_only=True)
class Project:
    """What the user's pyproject.toml says of audits (audits/project.py finds it)."""

    where: str  # the file and its table
    options: Mapping[str, Any]  # by `Option.name`
    policy: Mapping[str, Any]  # laid over the shipped one, below --audit-policy


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user asked for, read but not yet looked up."""

    models: tuple[str, ...]
    weights: str | None
    data: str | None
    cams: tuple[str, ...]  # empty: the default, or the control's own
    layer: str | None
    artefacts: tuple[Path, ...]
    cues: Path | None
    templates: tuple[str, ...]  # empty: the default
    policy: Path | None
    profile: str
    device: str
    report: Path
    baseline: Path | None
    full: bool
    rejudge: Path | None
    xfails: Path | None
    resume: bool
    seed: int
    batch_size: int | None
    project: Project | None = None

    @property
    def laid_under(self) -> tuple[str, Mapping[str, Any]] | None:
        """What the user's pyproject.toml says of the policy, for `load_policy`."""
        return None if self.project is None else (self.project.where, self.project.policy)

    @property
    def words(self) -> str:
        """The options that matter to a rerun of one audit, as one would type them."""
        words = [f"--model {quoted(model)}" for model in self.models]
        for flag, value in (
            ("--weights", self.weights),
            ("--data", self.data),
            ("--audit-layer", self.layer),
            *(("--audit-artefact", artefact) for artefact in self.artefacts),
            ("--audit-cues", self.cues),
            *(("--audit-template", template) for template in self.templates),
            ("--audit-policy", self.policy),
            ("--audit-profile", self.profile),
            ("--audit-seed", self.seed),
        ):
            if value is not None:
                words.append(f"{flag} {quoted(str(value))}")
        return " ".join([*words, *(f"--cam {cam}" for cam in self.cams)])


def quoted(word: str) -> str:
    """A word as a shell takes it."""
    return word if re.fullmatch(r"[\w@%+=:,./-]+", word) else "'" + word.replace("'", "'\"'\"'") + "'"


def read_settings(
    given: Mapping[str, Any], environment: Mapping[str, str], *, project: Project | None = None
) -> Settings:
    """Settings from parsed options (by `Option.dest`), the environment, and the user's pyproject.toml.

    Raises:
        BadInput: A variable of the environment cannot be read, a number is out of range, or a variable's name is
            nearly, but not quite, one of ours.
    """
    known = {option.environment for option in OPTIONS}
    for name in environment:
        near = get_close_matches(name, known, n=1, cutoff=0.85) if name.startswith("AUDIT_") else []
        if near and name not in known:
            raise BadInput(f"unknown environment variable {name!r}; did you mean {near[0]!r}?")
    found: dict[str, Any] = {}
    for option in OPTIONS:
        value = given.get(option.dest)
        text = environment.get(option.environment)
        if value is None and text:
            value = _from_environment(option, text)
        if value is None and project is not None:
            value = project.options.get(option.name)
        if isinstance(value, str):  # here rather than in argparse, which would print its usage as well
            value = _converted(option, value, option.flag)
        for word in value if isinstance(value, list | tuple) else [value]:
            if word == "":  # a variable of a script that was not set, say: the user meant something
                raise BadInput(f"{option.flag} is empty; give it a value, or leave it out")
            if isinstance(word, str) and not _is_utf8(word):
                raise BadInput(f"{option.flag} {word!r} is no UTF-8; give it another name")
        found[option.name] = option.default if value is None else value
    _in_range("--audit-seed", found["seed"], -SEEDS, SEEDS)
    if found["batch_size"] is not None:
        _in_range("--audit-batch-size", found["batch_size"], 1, MOST_AT_ONCE)
    return Settings(
        models=tuple(found["model"] or (CLEAN if found["data"] is found["layer"] is None else CLEAN[:1])),
        weights=found["weights"],
        data=found["data"],
        cams=tuple(found["cam"] or ()),
        layer=found["layer"],
        artefacts=tuple(map(Path, found["artefact"] or ())),
        cues=Path(found["cues"]) if found["cues"] else None,
        templates=tuple(found["template"] or ()),
        policy=Path(found["policy"]) if found["policy"] else None,
        profile=found["profile"],
        device=found["device"],
        report=Path(found["report"]),
        baseline=Path(found["baseline"]) if found["baseline"] else None,
        full=bool(found["full"]) or bool(found["baseline"]),
        rejudge=Path(found["rejudge"]) if found["rejudge"] else None,
        xfails=Path(found["xfails_file"]) if found["xfails_file"] else None,
        resume=bool(found["resume"]),
        seed=found["seed"],
        batch_size=found["batch_size"],
        project=project,
    )


def _in_range(flag: str, value: int, low: int, high: int) -> None:
    if value < low:
        raise BadInput(f"{flag} must be at least {low}, got {shown(value)}")
    if value > high:
        raise BadInput(f"{flag} must be at most {high}, got {shown(value)}")


def _is_utf8(word: str) -> bool:
    """Whether results.json can hold it: bytes of the command line that are no text come as halves of characters."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_environment(option: Option, text: str) -> Any:
    if option.is_flag:
        return text.lower() not in ("0", "false", "no", "")
    if option.many:
        return [option.convert(part.strip()) for part in text.split(",")]
    return _converted(option, text, option.environment)


def _converted(option: Option, text: str, name: str) -> Any:
    try:
        return option.convert(text)
    except ValueError:
        raise BadInput(f"{name} must be {option.convert.__name__}, got {text!r}") from None
