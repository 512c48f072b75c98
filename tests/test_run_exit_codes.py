"""0: all that gates passes; 1: something fails; 6: something was not shown. Closed by default."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from audits.policy import load_policy
from tests.running import ROOT, Run, command, environment, factories, in_the_way, only_gate, overlay, run

pytestmark = pytest.mark.slow

# one claim that gates, and that nothing could fail
ONE_GATES = only_gate("deletion/beats_random") + '[claims."deletion/beats_random"]\nmargin = -0.9\n'
CLAIMS = len(load_policy(None, profile="smoke").claims)
FEW_IMAGES = "[profiles.smoke]\nimages = 8\n"


def show(found: Run) -> str:
    return found.output[-4000:]


def test_a_gating_failure_exits_1_and_its_twin_passes_and_the_pictures_say_why(tmp_path: Path) -> None:
    options = ("--audit-profile", "smoke", "-k", "test_binding.py", "-p", "no:html")

    found = run(tmp_path, "--model", "control:clip-bag-of-words", "--model", "control:clip-oracle", *options)

    assert found.code == 1, show(found)
    assert found.results["exit_code"] == 1
    assert found.results["verdict"] == "FAIL"
    assert "Traceback" not in found.output
    for (model, claim), verdict in found.verdicts.items():
        assert verdict == {"clip-bag-of-words": "FAIL", "clip-oracle": "PASS"}[model], claim
    shown = {
        claim["subject"]: [one["caption"] for one in claim["evidence"] if one["type"] == "overlay"]
        for claim in found.results["claims"]
        if claim["id"] == "binding/interaction"
    }
    assert len(shown["clip-bag-of-words"]) >= 2
    assert all(caption.endswith("preferred: level") for caption in shown["clip-bag-of-words"])
    assert all(caption.endswith("preferred: the true one") for caption in shown["clip-oracle"])


def test_a_failure_that_only_warns_is_xfailed_and_does_not_move_the_exit_code(tmp_path: Path) -> None:
    options = ("--audit-profile", "smoke", "--audit-policy", overlay(tmp_path, ONE_GATES))
    asked = ("-k", "(leaks_through_the_wall and not toy) or (beats_random and not inpainted)")

    found = run(tmp_path / "report", "--model", "control:edge_map", *options, *asked)

    assert found.verdicts["edge_map", "wall/leakage"] == "FAIL"
    assert found.verdicts["edge_map", "deletion/beats_random"] == "PASS"
    assert found.code == 0, show(found)
    assert "1 passed" in found.output
    assert "1 xfailed" in found.output


def test_claims_that_were_deselected_are_named_and_do_not_pass(tmp_path: Path) -> None:
    found = run(tmp_path, "--model", "control:clean", "-k", "leaks_through_the_wall and not toy")

    assert found.code == 6, show(found)
    assert found.verdicts == {("clean", "wall/leakage"): "PASS"}
    assert found.results["verdict"] == "INCONCLUSIVE"
    missing = [line.partition("[")[0] for line in found.results["not_tested"]]
    assert {"deletion/beats_random", "wall/convolution"} < {*missing}
    assert len(missing) == CLAIMS - 1


def test_a_run_in_which_everything_was_deselected_does_not_pass(tmp_path: Path) -> None:
    found = run(tmp_path, "--model", "control:clean", "-k", "no_such_audit")

    assert found.code == 6, show(found)
    assert len(found.results["not_tested"]) == CLAIMS


def test_too_few_images_decide_nothing_and_every_model_is_judged_for_itself(tmp_path: Path) -> None:
    policy = overlay(tmp_path, FEW_IMAGES)
    models = ("--model", "control:clean", "--model", "control:clean", "--model", f"{factories(tmp_path)}dense")

    few = ("-k", "test_wall.py or test_deletion.py")
    found = run(tmp_path / "report", *models, "--audit-profile", "smoke", "--audit-policy", policy, *few)

    assert found.code == 6, show(found)
    assert [subject["id"] for subject in found.results["subjects"]] == ["clean", "clean.2", "models.py-dense"]
    for claim in found.results["claims"]:
        applies = claim["subject"] != "models.py-dense"
        assert claim["verdict"] == ("INCONCLUSIVE" if applies else "NOT_APPLICABLE")
        assert len(claim["values"]) == (8 if applies else 0)
        assert not applies or "too few images: 8 images" in claim["reason"]


def test_a_model_twice_in_a_run_is_measured_once(tmp_path: Path) -> None:
    policy = overlay(tmp_path, FEW_IMAGES)
    models = ("--model", "control:clean", "--model", "control:clean")
    asked = ("-k", "leaks_through_the_wall and not toy")

    found = run(tmp_path / "report", *models, "--audit-profile", "smoke", "--audit-policy", policy, *asked)

    assert found.verdicts == {("clean", "wall/leakage"): "INCONCLUSIVE", ("clean.2", "wall/leakage"): "INCONCLUSIVE"}
    assert len(found.rows) == 8


def test_a_model_without_maps_is_judged_by_what_needs_none(tmp_path: Path) -> None:
    found = run(tmp_path / "report", "--model", f"{factories(tmp_path)}dense", "--audit-profile", "smoke")

    names = ("bias/pull", "bias/decides", "shuffling/structure", "shuffling/no_rise")
    needs_no_map = {("models.py-dense", name) for name in names}
    assert {name for name, verdict in found.verdicts.items() if verdict != "NOT_APPLICABLE"} == needs_no_map
    assert f"{CLAIMS - len(needs_no_map)} skipped" in found.output
    assert found.verdicts["models.py-dense", "bias/pull"] == "PASS"
    assert found.code == 0, show(found)  # all that gates and applies


def test_a_model_to_which_nothing_that_gates_applies_does_not_pass(tmp_path: Path) -> None:
    warns = (f'[claims."bias/{name}"]\nseverity = "warn"\n' for name in ("pull", "decides"))
    policy = overlay(tmp_path, "".join(warns))
    options = ("--audit-profile", "smoke", "--audit-policy", policy)
    found = run(tmp_path / "report", "--model", f"{factories(tmp_path)}dense", *options)

    assert found.code == 6, show(found)


def test_a_model_that_breaks_is_an_error_with_its_message_and_no_traceback(tmp_path: Path) -> None:
    spec = factories(tmp_path)
    models = ("--model", f"{spec}breaks", "--model", f"{spec}breaks_oddly")

    asked = ("-k", "test_wall.py or test_deletion.py or test_sanity.py")
    found = run(tmp_path / "report", *models, "--data", "scenes", "--audit-profile", "smoke", *asked)

    assert found.code == 6, show(found)
    assert set(found.verdicts.values()) == {"ERROR"}
    assert {claim["reason"] for claim in found.results["claims"]} == {
        "RuntimeError: the forward broke in the middle",
        "LookupError: no such thing",
    }
    assert "Traceback" not in found.output
    assert "raise self.error" not in found.output


def test_a_warning_of_the_models_own_code_is_no_error(tmp_path: Path) -> None:
    policy = overlay(tmp_path, "[profiles.smoke]\nimages = 16\n")
    options = ("--audit-profile", "smoke", "--audit-policy", policy, "-k", "test_wall.py")

    found = run(tmp_path / "report", "--model", f"{factories(tmp_path)}warns", *options)

    assert "ERROR" not in found.verdicts.values()
    assert len(found.results["claims"][0]["values"]) == 16


def test_an_audit_that_passes_does_not_hide_a_failing_test(tmp_path: Path) -> None:
    failing = tmp_path / "test_failing.py"
    failing.write_text("def test_fails():\n    assert 1 == 2\n", encoding="utf-8")
    policy = overlay(tmp_path, only_gate("wall/leakage"))
    options = ("--model", "control:clean", "--audit-profile", "smoke", "--audit-policy", policy)

    found = run(tmp_path / "report", failing, *options, "-k", "(leaks_through_the_wall and not toy) or test_fails")

    assert found.results["verdict"] == "PASS"
    assert found.code == found.results["exit_code"] == 1, show(found)


def test_what_cannot_be_read_afterwards_does_not_pass(tmp_path: Path) -> None:
    report = tmp_path / "report"
    policy = overlay(tmp_path, only_gate("wall/leakage"))
    obstacle, extra = in_the_way(tmp_path, report / "summary.md")

    options = ("--model", "control:clean", "--audit-profile", "smoke", "--audit-policy", policy, *obstacle)
    found = run(report, *options, "-k", "leaks_through_the_wall and not toy", extra=extra)

    assert found.results["exit_code"] == 0
    assert found.code == 6, show(found)
    assert "cannot write the report" in found.output
    assert "Traceback" not in found.output


WAIVED = """
[[waivers]]
claim = "wall/leakage[*]"
bound = 0.99
reason = "shown to nobody"
owner = "A. Name"
expires = 2999-12-31
"""
ONE_OF_EACH = ("--model", "control:edge_map", "--model", "control:clean", "--audit-profile", "smoke")
ASKED = ("-k", "leaks_through_the_wall and not toy")


def on_a_terminal(report: Path, *arguments: str | Path) -> tuple[int, str]:
    """A run that somebody watches: its exit code, and all that the terminal was sent."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 160, 0, 0))
    watched = {name: value for name, value in environment({"TERM": "xterm"}).items() if name != "CI"}
    process = subprocess.Popen(
        command(report, *arguments), cwd=ROOT, env=watched, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    sent = b""
    with suppress(OSError):  # how a terminal ends
        while part := os.read(main, 65536):
            sent += part
    os.close(main)
    return process.wait(timeout=600), sent.decode(errors="replace")


def test_what_minus_x_and_last_failed_leave_out_does_not_pass(tmp_path: Path) -> None:
    policy = ("--audit-policy", overlay(tmp_path, only_gate("wall/leakage")), "-o", f"cache_dir={tmp_path / 'cache'}")
    code, sent = on_a_terminal(tmp_path / "first", *ONE_OF_EACH, *policy, *ASKED, "-x")
    first = Run(code=code, output=sent, report=tmp_path / "first")

    assert first.code == 1, sent
    assert first.verdicts == {("edge_map", "wall/leakage"): "FAIL"}
    assert not first.results["run"]["interrupted"]
    assert "wall/leakage[hirescam] on clean: no verdict" in first.results["not_tested"]
    told = re.findall(r"claim 1/2 wall/leakage\[edge_detector\] of edge_map: (\d+) of up to 192 images", sent)
    assert [*map(int, told)] == sorted(map(int, told)) != []
    assert "tends to FAIL" in sent

    (tmp_path / "waived").mkdir()
    waived = overlay(tmp_path / "waived", WAIVED + only_gate("wall/leakage"))
    second = run(tmp_path / "second", *ONE_OF_EACH, *policy, *ASKED, "--lf", "--audit-policy", waived)

    assert second.verdicts == first.verdicts  # what failed is asked again, and waived by now
    assert second.code == 6, show(second)  # the other was not
    assert "claim 1/" not in second.output  # nobody watches


def test_minus_x_stops_workers_as_it_stops_one_process(tmp_path: Path) -> None:
    policy = overlay(tmp_path, only_gate("wall/leakage"))

    found = run(tmp_path / "report", *ONE_OF_EACH, "--audit-policy", policy, *ASKED, "-x", "-n", "1")

    assert found.code == found.results["exit_code"] == 1, show(found)
    assert found.verdicts == {("edge_map", "wall/leakage"): "FAIL"}
    assert not found.results["run"]["interrupted"]
