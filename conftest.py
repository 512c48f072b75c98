"""Options, fixtures and wiring: pytest's view of a run; audits/ decides, reports/ shows."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from audits import command, options
from audits.project import find_project
from camcore.errors import BadInput

ROOT = Path(__file__).parent
PLAN = pytest.StashKey[Any]()
LOG = pytest.StashKey[Any]()
CASES = pytest.StashKey[list[tuple[str, str]]]()
STARTED = pytest.StashKey[float]()
RESULTS = pytest.StashKey[Any]()
MODEL = "model"  # in the ids of tests, where the method stands if there is one


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("audits", "audits of a vision model (pytest audits --model SPEC)")
    for option in options.OPTIONS:
        kind: dict[str, Any] = {"action": "store_true"} if option.is_flag else {"metavar": option.metavar}
        if option.many:
            kind["action"] = "append"
        group.addoption(option.flag, dest=option.dest, default=None, help=option.help, **kind)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """`--audit-rejudge` runs no audit: the model is not asked again."""
    given = {option.dest: config.getoption(option.dest) for option in options.OPTIONS}
    try:
        if not asks_for_audits(config.args):
            return None
        settings = options.read_settings(given, os.environ, project=find_project(Path.cwd()))
        if settings.rejudge is None:
            return None
        return rejudge(settings, settings.rejudge, command.as_typed(config.invocation_params.args, ROOT))
    except BadInput as problem:
        raise pytest.UsageError(str(problem)) from None


def rejudge(settings: options.Settings, file: Path, typed: str) -> int:
    """Judge a finished run again; returns the exit code."""
    from datetime import UTC, datetime

    from audits.judge_again import judge_again
    from audits.policy import load_policy
    from reports import schema, terminal

    folder = settings.report
    if (folder / "results.json").exists():
        raise BadInput(f"{str(folder)!r} holds a results.json already; give another folder with --audit-report")
    try:
        old = schema.load(file)
        policy = load_policy(settings.policy, profile=old.run.profile, under=settings.laid_under)
        today = datetime.now(UTC).date()
        new = schema.Results.model_validate(judge_again(old.model_dump(), policy, command=typed, today=today))
        folder.mkdir(parents=True, exist_ok=True)
        schema.dump(new, folder / "results.json")
        write_reports(new, folder)
    except schema.BadResults as problem:
        raise BadInput(str(problem)) from None
    except OSError as problem:
        raise BadInput(f"cannot write to {str(folder)!r} ({problem.strerror}); give another --audit-report") from None
    print(terminal.table(new), f"report: {(folder / 'report.html').resolve()}", sep="\n")
    return new.exit_code


@pytest.hookimpl(trylast=True)  # xdist decides about workers first
def pytest_configure(config: pytest.Config) -> None:
    config.stash[STARTED] = time.monotonic()
    given = {option.dest: config.getoption(option.dest) for option in options.OPTIONS}
    if not asks_for_audits(config.args):
        if any(value is not None for value in given.values()):
            raise pytest.UsageError("options of the audits were given, but no audits: run pytest audits ...")
        return
    try:
        settings = options.read_settings(given, os.environ, project=find_project(Path.cwd()))
        config.stash[CASES] = cases(settings)
        if not (config.option.collectonly or config.option.help):
            config.stash[PLAN], config.stash[LOG] = make_plan(config, settings)
    except BadInput as problem:
        raise pytest.UsageError(str(problem)) from None


def asks_for_audits(args: Sequence[str]) -> bool:
    """Whether the command line names the audits' folder, something in it, or a folder around it."""
    audits = ROOT / "audits"
    paths = [Path(arg.split("::")[0]).resolve() for arg in args]
    return any(path.is_relative_to(audits) or audits.is_relative_to(path) for path in paths)


def cases(settings: options.Settings) -> list[tuple[str, str]]:
    """(model's id, CAM method): what each audit is asked of. Loads no model."""
    from audits.plan import chosen_cams, subject_ids

    named = zip(settings.models, subject_ids(settings.models), strict=True)
    return [(name, cam) for spec, name in named for cam in chosen_cams(spec, settings.cams) or [""]]


def make_plan(config: pytest.Config, settings: options.Settings) -> tuple[Any, Any]:
    """The plan and the log of this process."""
    import torch

    from audits.journal import Log
    from audits.plan import prepare

    worker = getattr(config, "workerinput", None)
    if worker is not None:
        torch.set_num_threads(max(1, torch.get_num_threads() // worker["workercount"]))
    sizes = worker["batch_sizes"] if worker else {}
    plan = prepare(settings, batch_sizes=sizes, main=worker is None, baseline=read_baseline(settings.baseline))
    name = worker["workerid"] if worker else "master"
    run = worker["run"] if worker else uuid4().hex
    return plan, Log(settings.report, name, run=run, resume=settings.resume)


def read_baseline(file: Path | None) -> dict[str, Any] | None:
    """What the results.json of an earlier run holds; a run that has none to be compared with must say so at once."""
    if file is None:
        return None
    from reports import schema

    try:
        return schema.load(file).model_dump()
    except schema.BadResults as problem:
        raise BadInput(f"--audit-baseline: {problem}") from None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Workers belong to the main process's run, and take the batch sizes that it measured."""
    plan = node.config.stash.get(PLAN, None)
    node.workerinput["run"] = node.config.stash[LOG].run if plan else ""
    node.workerinput["batch_sizes"] = plan.batch_sizes if plan else {}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if PLAN not in config.stash or config.option.dist != "load":
        return None
    from audits.scheduling import OneWorkerPerMeasurement

    return OneWorkerPerMeasurement(config, log)


def pytest_report_header(config: pytest.Config) -> list[str]:
    plan = config.stash.get(PLAN, None)
    if plan is None:
        return []
    from reports.terminal import printable

    settings, policy = plan.settings, plan.policy
    lines = [
        f"audits: profile {settings.profile}, seed {settings.seed}, device {plan.device}, "
        f"policy {policy.path} ({policy.sha256[:12]}), at most {policy.images} images"
    ]
    if settings.project is not None:
        said = ", ".join([*settings.project.options, *settings.project.policy])
        lines.append(f"audits: {settings.project.where} says {said or 'nothing'}")
    for audited in plan.audited:
        for role in audited.roles.values():
            subject, dataset = role.subject, role.dataset
            lines.append(
                f"audited: {subject.spec} ({subject.weights}, sha256 {subject.sha256[:12]}), "
                f"layer {subject.target_layer}, on {dataset.spec} ({len(dataset)} images, "
                f"sha256 {dataset.sha256[:12]}), batches of {role.terms.batch_size}"
            )
            for shown in role.shown:
                lines += [f"skipped: {file}: {reason}" for file, reason in shown.skipped[:10]]
                if len(shown.skipped) > 10:
                    lines.append(f"skipped: and {len(shown.skipped) - 10} more files of {shown.spec}")
        lines += [f"warning: {audited.subject.spec}: {opt_in}" for opt_in in audited.subject.unsafe]
    return [printable(line) for line in lines]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ask" not in metafunc.fixturenames or metafunc.definition.get_closest_marker("audit") is None:
        return
    cases = metafunc.config.stash[CASES]
    if "cam" in metafunc.fixturenames:
        parameters = [pytest.param(name, cam, id=f"{name}-{cam}") for name, cam in cases if cam]
        metafunc.parametrize(("audited_id", "cam"), parameters)
    else:  # about the model itself, whatever maps are drawn of it
        metafunc.parametrize("audited_id", [pytest.param(name, id=f"{name}-{MODEL}") for name in dict(cases)])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("audit") is not None:
            # a warning of the model's own code is no verdict; in our tests it is an error
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture
def ask(request: pytest.FixtureRequest, audited_id: str, record_property: Any) -> Any:
    """Puts a question to the subject and tells pytest the verdict."""
    from audits.ask import Ask
    from audits.pytest_outcome import conclude

    plan = request.config.stash[PLAN]
    audited = next(one for one in plan.audited if one.id == audited_id)
    needs = request.module.QUESTIONS[0].needs  # all questions of an audit need the same
    ability = needs if needs in audited.roles else next(iter(audited.roles))
    role = audited.roles[ability]
    return Ask(
        subject=role.subject,
        ability=ability,
        dataset=role.dataset,
        cams=audited.cams,
        undefined=role.undefined,
        policy=plan.policy,
        terms=role.terms,
        log=request.config.stash[LOG],
        profile=plan.settings.profile,
        rerun=f"{command.program(request.config.option.inifilename, ROOT)} {plan.settings.words}",
        node_id=request.node.nodeid,
        conclude=lambda verdict, waived, beside: conclude(verdict, waived, beside, record_property),
        premises=role.premises,
        artefacts=plan.artefacts,
        conflicts=role.conflicts,
        bindings=role.bindings,
        captions=role.captions,
        scenes=role.scenes,
        progress=progress if sys.stderr.isatty() else None,
        until=plan.until,
        baseline=audited.baseline,
        full=plan.settings.full,
    )


def progress(done: int, planned: int) -> None:
    """One line, rewritten in place, on a terminal only."""
    end = "\r" if done < planned else "\r\033[K"
    print(f"  {done} of up to {planned} images", end=end, file=sys.__stderr__, flush=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    plan = config.stash.get(PLAN, None)
    if plan is None or hasattr(config, "workerinput"):
        return
    from audits.gate import assemble
    from audits.journal import finished_claims
    from reports import schema

    folder = plan.settings.report
    results = schema.Results.model_validate(
        assemble(
            plan,
            finished_claims(folder, run=config.stash[LOG].run),
            command=command.as_typed(config.invocation_params.args, ROOT),
            seconds=time.monotonic() - config.stash[STARTED],
            interrupted=exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR),
        )
    )
    schema.dump(results, folder / "results.json")
    write_reports(results, folder)
    config.stash[RESULTS] = results
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = results.exit_code or exitstatus  # tests that are no audits may have failed


def write_reports(results: Any, folder: Path) -> None:
    """All that is made from results.json; the summary also goes where a CI service asks for it."""
    from reports import html, markdown, model_card, schema

    summary = markdown.summary(results)
    html.write(results, folder / "report.html")
    schema.write_atomically(summary, folder / "summary.md")
    schema.write_atomically(model_card.model_index(results), folder / "model-index.yaml")
    asked = os.environ.get("GITHUB_STEP_SUMMARY")
    if asked:
        try:
            with Path(asked).open("a", encoding="utf-8") as file:
                file.write(summary)
        except OSError as problem:  # a summary that cannot be written must not cost the run
            print(f"cannot append to GITHUB_STEP_SUMMARY {asked!r}: {problem.strerror or problem}", file=sys.stderr)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    results = config.stash.get(RESULTS, None)
    if results is None:
        return
    from reports import terminal

    terminalreporter.section("verdicts")
    terminalreporter.write_line(terminal.table(results))
    report = (config.stash[PLAN].settings.report / "report.html").resolve()
    terminalreporter.write_line(f"report: {report}")


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_table_header(cells: list[str]) -> None:
    from reports.cells import header_cells

    cells[1:1] = header_cells()


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_table_row(report: Any, cells: list[str]) -> None:
    from reports.cells import row_cells

    cells[1:1] = row_cells(dict(report.user_properties))
