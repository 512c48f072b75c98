"""What results.json holds, record by record; import the records from `reports.schema`."""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Strict(False)]  # lists are welcome: JSON has no tuples
UNSHOWN = ("FAIL", "INCONCLUSIVE", "ERROR")
Answer = Literal["PASS", "FAIL", "INCONCLUSIVE", "NOT_APPLICABLE", "ERROR"]


class Record(BaseModel):
    """Frozen, strict, closed: an unknown key, a number in quotes, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Family(Record):
    """The claims that are judged together, and the confidence that they share."""

    level: float = Field(ge=0, le=1)
    """Simultaneous confidence over the whole family."""
    per_claim_level: float = Field(ge=0, le=1)
    """Confidence of each interval of the family."""
    claims: int = Field(ge=0)
    """How many claims gate, selected or not."""


class Attacks(Record):
    """How hard a run tried to hijack the model."""

    sizes: Many[int]
    area: float = 0.2  # in runs that do not say so
    steps: int
    restarts: int
    queries: int
    beside: int
    source: str | None = None


class PerImage(Record):
    """How much was done to each image."""

    chance_draws: int
    attacks: Attacks


class Run(Record):
    """How the numbers came about."""

    id: str
    utc: str
    command: str
    git: str | None
    seed: int
    profile: str
    policy_sha256: str
    policy_path: str
    per_image: PerImage | None = None  # not known of runs before 1.2
    device: str
    versions: dict[str, str]
    family: Family
    seconds: float
    interrupted: bool


class Subject(Record):
    """A model that was audited."""

    spec: str
    id: str
    sha256: str
    weights: str
    arch: str
    n_params: int
    kind: str
    target_layer: str | None
    preprocess: str
    unsafe: Many[str]
    """Opt-ins that let the model's files run code."""
    abilities: Many[Literal["classes", "captions", "boxes"]] = ()
    """What it is asked as. Since 1.1."""
    cams: Many[str] = ()
    """The methods whose maps are judged. Since 1.1."""
    data: Many[str] = ()
    """SHA-256 of the data that it was asked about. Since 1.1."""


class Skipped(Record):
    """A file that could not be used."""

    file: str
    reason: str


class Data(Record):
    """The images that were asked about."""

    spec: str
    sha256: str
    n: int
    classes: Many[str]
    skipped: Many[Skipped]


class Estimate(Record):
    """A number is never bare."""

    point: float
    low: float
    high: float
    level: float = Field(ge=0, le=1)
    n: int
    interval: str
    """Method of the interval."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"an interval needs low <= high, got [{self.low}, {self.high}]")
        return self


class Calibration(Record):
    """How often a claim reached the verdict that a control, a model of known truth, calls for, over seeds."""

    control: str
    defect: str | None
    """What was planted; null: a clean twin, where anything but PASS is a false alarm."""
    claim: str
    must: Answer
    verdicts: dict[str, int]
    """Verdict -> seeds."""
    share: Estimate
    """Of the seeds that reached it; `n` are the seeds."""


class Audit(Record):
    """A question, as its docstring documents it."""

    name: str
    version: str
    title: str
    measures: str
    why: str
    limits: str
    caught_by: Many[str]
    references: str
    calibration: Many[Calibration] = ()
    """How often it is right itself, measured when it was made. Since 1.1."""


class Measure(Record):
    """What the numbers of a claim are."""

    name: str
    unit: str
    direction: Literal["above", "within"]
    """The whole interval must lie above the margin, or inside (-margin, margin)."""


class Cost(Record):
    """Images sent through the subject, and the time it took."""

    seconds: float
    forwards: int
    backwards: int


class Overlay(Record):
    """An image, and the saliency map that explains it, if there is one."""

    type: Literal["overlay"]
    unit: str
    role: Literal["worst", "typical", "best"]
    """Best: since 1.1."""
    value: float | None
    caption: str
    image: str
    """JPEG, base64."""
    saliency: str | None
    """8-bit greyscale PNG of the image's size, base64; 255 is 1.0. Null: the image is shown alone."""
    dead_from_row: int | None
    """First pixel row that the model cannot see."""
    outline: str | None = None
    """8-bit greyscale PNG of the image's size, base64: an outline is drawn around what is 255."""


class Curve(Record):
    """Several series over one axis."""

    type: Literal["curve"]
    title: str
    x_label: str
    y_label: str
    x: Many[float]
    series: dict[str, Many[float | None]]

    @model_validator(mode="after")
    def _one_y_for_each_x(self) -> Self:
        for name, ys in self.series.items():
            if len(ys) != len(self.x):
                raise ValueError(f"series {name!r} needs one value per x, got {len(ys)} for {len(self.x)}")
        return self


class Table(Record):
    """Numbers that stand beside the verdict and do not decide it."""

    type: Literal["table"]
    title: str
    columns: Many[str]
    rows: Many[Many[str | int | float | None]]

    @model_validator(mode="after")
    def _one_cell_for_each_column(self) -> Self:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"each row needs {len(self.columns)} cells, got {len(row)}: {row!r}")
        return self


Evidence = Annotated[Overlay | Curve | Table, Field(discriminator="type")]


class Waiver(Record):
    """That someone answers for a claim which does not pass."""

    holds: bool
    """False: it has expired, or the interval does not keep to its bound; then it waives nothing."""
    said: str
    bound: float
    """What stands in for the margin."""
    reason: str
    owner: str
    expires: str
    """The last day, YYYY-MM-DD."""


class Beside(Record):
    """A claim beside an earlier run, on the units that both measured."""

    run: str
    subject: str
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    """PASS: shown to be no worse."""
    said: str
    worse: float
    """By less than this, in the measure's unit, it is no worse."""
    estimate: Estimate | None
    """Of the mean of new less old, signed so that more supports the claim."""
    mcnemar: float | None
    """Exact two-sided p, where the values are outcomes."""


class Claim(Record):
    """One sentence, its answer, and what the answer rests on."""

    id: str
    """<audit>/<claim>[<parameters>], for example wall/leakage[hirescam]."""
    node_id: str
    subject: str
    audit: str
    audit_version: str
    kind: Literal["MFT", "INV", "DIR"]
    """Minimum functionality test, invariance, directional expectation (CheckList, Ribeiro et al. 2020)."""
    sentence: str
    severity: Literal["gate", "warn", "info"]
    gates: bool
    verdict: Answer
    reason: str
    measure: Measure
    estimate: Estimate | None
    bounds: Annotated[tuple[float, float], Strict(False)]
    """Range that the values have by definition."""
    margin: float
    margin_source: str
    p: float | None
    p_holm: float | None
    n_needed: int | None
    """Images it would take to decide, when INCONCLUSIVE."""
    cost: Cost
    values: Many[float | None]
    """One number per unit (image, scene pair), null where there was none."""
    units: Many[str]
    """The ids of the units, in the order of values."""
    evidence: Many[Evidence]
    controls: Many[str]
    """Models with a planted defect that must fail this claim."""
    rerun: str
    waiver: Waiver | None = None
    """Who answers for it, if it does not pass and the policy has a waiver for it. Since 1.1."""

    baseline: Beside | None = None
    """What it comes to beside the run given as baseline. Since 1.1."""

    @property
    def counts(self) -> Answer:
        """Its verdict as the run's takes it: waived is PASS, and what is not shown to be no worse is not."""
        own: Answer = "PASS" if self.waived else self.verdict
        if self.baseline is None or own in ("FAIL", "ERROR") or self.baseline.verdict == "PASS":
            return own
        return self.baseline.verdict

    @property
    def shown(self) -> Answer:
        """The verdict that a reader is told: the one that counts, but of a waived claim the one that is waived."""
        return self.verdict if self.waived and self.verdict != "PASS" else self.counts

    @property
    def holds_back(self) -> bool:
        """Whether a release waits for it."""
        return self.gates and self.counts in UNSHOWN

    @property
    def waived(self) -> bool:
        """Whether it keeps nobody back although it does not pass."""
        return self.waiver is not None and self.waiver.holds

    @model_validator(mode="after")
    def _one_value_for_each_unit(self) -> Self:
        if len(self.values) != len(self.units):
            raise ValueError(f"needs one unit per value, got {len(self.units)} units for {len(self.values)} values")
        return self


class Results(Record):
    """A run: everything a report is made from."""

    schema_version: Literal["1.0", "1.1", "1.2"]
    run: Run
    subjects: Many[Subject]
    data: Many[Data]
    audits: Many[Audit]
    claims: Many[Claim]
    not_tested: Many[str]
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    exit_code: int

    @model_validator(mode="after")
    def _pass_only_what_was_shown(self) -> Self:
        if self.exit_code == 0 and self.verdict != "PASS":
            raise ValueError(f"exit code 0 needs the verdict PASS, got {self.verdict}")
        if self.verdict == "PASS":
            self._shown_of_each_model()
        return self

    def _shown_of_each_model(self) -> None:
        counted: dict[str, set[str]] = {}
        for claim in self.claims:
            if claim.holds_back:
                raise ValueError(f"the verdict PASS needs every gating claim to hold, {claim.id!r} does not")
            if claim.gates:
                counted.setdefault(claim.subject, set()).add(claim.counts)
        if not counted:
            raise ValueError("the verdict PASS needs a gating claim that holds, got none that gates")
        for subject, found in counted.items():
            if "PASS" not in found:
                raise ValueError(f"the verdict PASS needs a gating claim that holds, got none of {subject!r}")
