"""Options, fixtures and wiring: pytest's view of a run; audits/ decides, reports/ shows."""

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from audits import command, options, watcher
from audits.project import find_project
from camcore.errors import BadInput

ROOT = Path(__file__).parent
PLAN = pytest.StashKey[Any]()
LOG = pytest.StashKey[Any]()
CASES = pytest.StashKey[list[tuple[str, str]]]()
STARTED = pytest.StashKey[float]()
STOPPING = pytest.StashKey[Any]()
LIVE = pytest.StashKey[Any]()
UNMATCHED = pytest.StashKey[list[str]]()
UNLIKE = pytest.StashKey[dict[str, str]]()
SESSION = pytest.StashKey[pytest.Session]()
RESULTS = pytest.StashKey[Any]()
UNWRITTEN = pytest.StashKey[str]()
UNFINISHED = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
MODEL = "model"  # in the ids of tests, where the method stands if there is one


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("audits", "audits of a vision model (pytest audits --model SPEC)")
    for option in options.OPTIONS:
        kind: dict[str, Any] = {"action": "store_true"} if option.is_flag else {"metavar": option.metavar}
        if option.many:
            kind["action"] = "append"
        group.addoption(option.flag, dest=option.dest, default=None, help=option.help, **kind)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from audits import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """`--audit-rejudge` runs no audit: the model is not asked again."""
    given = {option.dest: config.getoption(option.dest) for option in options.OPTIONS}
    try:
        if not asks_for_audits(config.args):
            return None
        settings = options.read_settings(given, os.environ, project=find_project(Path.cwd()))
        if settings.rejudge is None:
            watched(config)
            return None
        from audits import plugins

        plugins.load(config)
        return rejudge(settings, settings.rejudge, typed(config))
    except BadInput as problem:
        raise wrong_usage(problem) from None


def watched(config: pytest.Config) -> None:
    """Where pytest was started by name, a fork goes on and this process waits; `camcore audit` has seen to itself."""
    if tuple(config.invocation_params.args) == tuple(sys.argv[1:]) and not hasattr(config, "workerinput"):
        tell = watcher.split()
        config.add_cleanup(lambda: tell(ended(config)))


def ended(config: pytest.Config) -> int | None:
    """The exit code of the run; None where none began, for want of a model that can be loaded, say."""
    if SESSION in config.stash:
        return int(config.stash[SESSION].exitstatus)
    return 0 if config.option.help or config.option.version or config.option.markers else None


def typed(config: pytest.Config) -> str:
    """The command, as results.json can hold it: arguments are any bytes."""
    words = command.as_typed(config.invocation_params.args, ROOT)
    return words.encode("utf-8", "backslashreplace").decode()


def wrong_usage(problem: BadInput) -> pytest.UsageError:
    """As pytest takes it: in one line, whatever the input was called."""
    from reports.terminal import printable

    return pytest.UsageError(printable(str(problem)))


def rejudge(settings: options.Settings, file: Path, said: str) -> int:
    """Judge a finished run again; returns the exit code."""
    from datetime import UTC, datetime

    from audits.judge_again import judge_again
    from audits.policy import load_policy
    from audits.report_folder import make
    from reports import schema, terminal

    folder = settings.report
    if (folder / "results.json").exists():
        raise BadInput(f"{str(folder)!r} holds a results.json already; give another folder with --audit-report")
    try:
        old = schema.load(file)
        policy = load_policy(settings.policy, profile=old.run.profile, under=settings.laid_under)
        today = datetime.now(UTC).date()
        new = schema.Results.model_validate(judge_again(old.model_dump(), policy, command=said, today=today))
        make(folder)
        schema.dump(new, folder / "results.json")
        write_reports(new, folder)
    except schema.BadResults as problem:
        raise BadInput(str(problem)) from None
    except OSError as problem:
        raise BadInput(f"cannot write to {str(folder)!r} ({problem.strerror}); give another --audit-report") from None
    print(terminal.table(new), terminal.printable(f"report: {(folder / 'report.html').resolve()}"), sep="\n")
    return new.exit_code


@pytest.hookimpl(trylast=True)  # xdist decides about workers first
def pytest_configure(config: pytest.Config) -> None:
    config.stash[STARTED] = time.monotonic()
    given = {option.dest: config.getoption(option.dest) for option in options.OPTIONS}
    if not asks_for_audits(config.args):
        # under --help pytest does not look at what it is asked to run
        if any(value is not None for value in given.values()) and not config.option.help:
            raise pytest.UsageError("options of the audits were given, but no audits: run pytest audits ...")
        return
    from audits import plugins

    try:
        settings = options.read_settings(given, os.environ, project=find_project(Path.cwd()))
        plugins.load(config)
        config.stash[CASES] = cases(settings)
        if not (config.option.collectonly or config.option.help):
            config.stash[PLAN], config.stash[LOG] = make_plan(config, settings)
            if not hasattr(config, "workerinput"):
                watch_over(config)
    except BadInput as problem:
        raise wrong_usage(problem) from None


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
    from audits.journal import Log
    from audits.plan import prepare
    from audits.workers import refuse_modes, settle, unlike

    worker = getattr(config, "workerinput", None)
    if worker is not None:
        settle(worker)
    else:
        refuse_modes(spread(config))
    sizes = worker["batch_sizes"] if worker else {}
    plan = prepare(settings, batch_sizes=sizes, main=worker is None, baseline=read_baseline(settings))
    if worker is not None:
        config.stash[UNLIKE] = unlike(worker, plan)
    name = worker["workerid"] if worker else "master"
    run = worker["run"] if worker else uuid4().hex

    def tell(claim: dict[str, Any]) -> None:
        config.hook.pytest_audit_claim(claim=claim)

    # a worker reads what there is: the one that it replaces may have died of what it had half measured
    resume = settings.resume or worker is not None
    return plan, Log(settings.report, name, run=run, resume=resume, on_claim=tell)


def spread(config: pytest.Config) -> str:
    """The mode of xdist; "no" where one process does it all."""
    return str(getattr(config.option, "dist", "no"))


def watch_over(config: pytest.Config) -> None:
    """What only the main process of a run does: it takes signals, minds its workers and shows how far it is."""
    from audits.live import Live, terminal_of
    from audits.stopping import Stopping
    from audits.workers import Workers

    config.stash[STOPPING] = stopping = Stopping()
    config.add_cleanup(stopping.restore)
    several = spread(config) != "no"
    if several:
        config.pluginmanager.register(Workers(config, config.stash[PLAN], config.stash[LOG]), "audits-workers")
    terminal = terminal_of(config, os.environ)
    if terminal is not None:
        config.stash[LIVE] = Live(terminal, several=several)
        config.pluginmanager.register(config.stash[LIVE], "audits-live")
        config.add_cleanup(terminal.close)


def read_baseline(settings: options.Settings) -> dict[str, Any] | None:
    """What the results.json of an earlier run holds; a run that has none to be compared with must say so at once."""
    file = settings.baseline
    if file is None:
        return None
    from reports import schema

    # the next run would be compared with this one, and so on down
    if settings.report.resolve() in (file.parent.resolve(), file.resolve().parent):
        raise BadInput(
            f"--audit-baseline {str(file)!r} lies in the folder that this run writes its own results.json to; "
            "keep baselines elsewhere, or give another folder with --audit-report"
        )
    try:
        return schema.load(file).model_dump()
    except schema.BadResults as problem:
        raise BadInput(f"--audit-baseline: {problem}") from None


def pytest_report_header(config: pytest.Config) -> list[str]:
    if PLAN not in config.stash:
        return []
    from audits.header import header
    from reports.terminal import printable

    return [printable(line) for line in header(config.stash[PLAN])]


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The folder of audits, with those that plugins add; any other as pytest would."""
    if path != ROOT / "audits" or CASES not in parent.config.stash:
        return None
    from audits.plugins import AuditsFolder

    return AuditsFolder.from_parent(parent, path=path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ask" not in metafunc.fixturenames or metafunc.definition.get_closest_marker("audit") is None:
        return
    cases = metafunc.config.stash[CASES]
    if "cam" in metafunc.fixturenames:
        parameters = [pytest.param(name, cam, id=f"{name}-{cam}") for name, cam in cases if cam]
        metafunc.parametrize(("audited_id", "cam"), parameters)
    else:  # about the model itself, whatever maps are drawn of it
        metafunc.parametrize("audited_id", [pytest.param(name, id=f"{name}-{MODEL}") for name in dict(cases)])


@pytest.hookimpl(tryfirst=True)  # before anything is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    plan = config.stash.get(PLAN, None)
    if plan is not None and plan.xfails:
        from audits.gate import asked, expected_claims

        claims = [name for _, name, _ in expected_claims(plan.policy, asked(plan))]
        known = (*claims, *(item.nodeid for item in items))
        config.stash[UNMATCHED] = [one.name for one in plan.xfails if not one.covers(*known)]
        if hasattr(config, "workerinput"):
            config.workeroutput["unmatched"] = config.stash[UNMATCHED]
    for item in items:
        if item.get_closest_marker("audit") is not None:
            # a warning of the model's own code is no verdict; in our tests it is an error
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture
def ask(request: pytest.FixtureRequest, audited_id: str, record_property: Any) -> Any:
    """Puts a question to the subject and tells pytest the verdict."""
    from audits.plan import asking
    from audits.plugins import repeated
    from audits.pytest_outcome import conclude, expect

    plan = request.config.stash[PLAN]
    if audited_id in request.config.stash.get(UNLIKE, {}):
        pytest.fail(request.config.stash[UNLIKE][audited_id], pytrace=False)
    live = request.config.stash.get(LIVE, None)
    called = command.program(request.config.option.inifilename, ROOT)

    def concluded(verdict: Any, waived: Any, beside: Any) -> None:
        __tracebackhide__ = True
        expect(request.node, verdict, plan.xfails)
        conclude(verdict, waived, beside, record_property)

    return asking(
        plan,
        next(one for one in plan.audited if one.id == audited_id),
        request.module.QUESTIONS[0].needs,  # all questions of an audit need the same
        log=request.config.stash[LOG],
        node_id=request.node.nodeid,
        rerun=repeated(f"{called} {plan.settings.words}", request.node, request.config),
        conclude=concluded,
        watch=None if live is None else partial(live.watch, audited_id),
        progress=None if live is None else partial(live.search, audited_id),
    )


@pytest.hookimpl(tryfirst=True)  # the report first: whoever stopped the run may not grant more than seconds
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    config.stash[SESSION] = session
    plan = config.stash.get(PLAN, None)
    if plan is None or hasattr(config, "workerinput"):
        return
    from audits import junit
    from audits.gate import assemble
    from audits.journal import finished_claims
    from reports import schema

    folder = plan.settings.report
    signalled = config.stash[STOPPING].count > 0
    if exitstatus == pytest.ExitCode.INTERRUPTED and session.shouldfail and not signalled:
        exitstatus = pytest.ExitCode.TESTS_FAILED  # -x, which xdist takes for an interruption
    stopped = signalled or exitstatus in UNFINISHED
    cut_short = int(max(exitstatus, pytest.ExitCode.INTERRUPTED)) if stopped else 0
    results = schema.Results.model_validate(
        assemble(
            plan,
            finished_claims(folder, run=config.stash[LOG].run, interrupted=stopped),
            command=typed(config),
            seconds=time.monotonic() - config.stash[STARTED],
            interrupted=cut_short,
        )
    )
    # tests that are no audits may have failed
    results = results.model_copy(update={"exit_code": results.exit_code or int(exitstatus)})
    config.stash[RESULTS] = results
    session.exitstatus = results.exit_code
    junit.add(config, verdict=results.verdict, exit_code=results.exit_code, not_tested=results.not_tested)
    try:
        schema.dump(results, folder / "results.json")
        write_reports(results, folder)
    except OSError as problem:
        config.stash[UNWRITTEN] = (
            f"cannot write the report to {str(folder)!r} ({problem.strerror or problem}); make room and go on with "
            "--audit-resume, what was measured is kept"
        )
        session.exitstatus = session.exitstatus or 6  # nobody can read what was shown


def write_reports(results: Any, folder: Path) -> None:
    """All that is made from results.json; the summary also goes where a CI service asks for it."""
    from reports import markdown, written

    written.write_reports(results, folder)
    asked = os.environ.get("GITHUB_STEP_SUMMARY")
    if asked:
        try:
            with Path(asked).open("a", encoding="utf-8") as file:
                file.write(markdown.summary(results))
        except OSError as problem:  # a summary that cannot be written must not cost the run
            print(f"cannot append to GITHUB_STEP_SUMMARY {asked!r}: {problem.strerror or problem}", file=sys.stderr)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    results = config.stash.get(RESULTS, None)
    if results is None:
        return
    from reports import terminal

    terminalreporter.section("verdicts")
    terminalreporter.write_line(terminal.table(results))
    plan = config.stash[PLAN]
    if plan.policy.waivers:
        from audits.gate import asked, expected_claims
        from audits.waivers import unmatched

        for line in unmatched(plan.policy, expected_claims(plan.policy, asked(plan))):
            terminalreporter.write_line(terminal.printable(line))
    if plan.xfails:
        from audits.xfails import told

        minder = config.pluginmanager.get_plugin("audits-workers")
        nowhere = minder.unmatched if minder else config.stash.get(UNMATCHED, [])
        passing = [report.nodeid for report in terminalreporter.stats.get("xpassed", [])]
        for line in told(plan.settings.xfails, nowhere, passing):
            terminalreporter.write_line(terminal.printable(line))
    report = (plan.settings.report / "report.html").resolve()
    terminalreporter.write_line(terminal.printable(config.stash.get(UNWRITTEN, f"report: {report}")))


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_table_header(cells: list[str]) -> None:
    from reports.cells import header_cells

    cells[1:1] = header_cells()


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_table_row(report: Any, cells: list[str]) -> None:
    from reports.cells import row_cells

    cells[1:1] = row_cells(dict(report.user_properties))
