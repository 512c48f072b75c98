import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reports import command, schema
from reports.__main__ import main
from tests.test_reports_example import results


@pytest.fixture
def saved(tmp_path):
    schema.dump(results(), tmp_path / "results.json")
    return tmp_path / "results.json"


def test_a_report_is_rendered_beside_its_results(saved, capsys):
    assert main([str(saved)]) == 0
    assert saved.with_suffix(".html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out.startswith("resnet50 FAILS")


def test_a_report_is_rendered_where_asked(saved, tmp_path):
    assert main([str(saved), "-o", str(tmp_path / "out.html")]) == 0
    assert (tmp_path / "out.html").exists()
    assert not saved.with_suffix(".html").exists()


def test_the_schema_is_printed(capsys):
    assert main(["--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema.json_schema()


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_bad_results_end_in_one_line_and_exit_code_2(tmp_path, capsys, content):
    bad = tmp_path / "bad.json"
    if content is not None:
        bad.write_text(content, encoding="utf-8")

    assert main([str(bad)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "bad.json" in error


def test_an_output_that_cannot_be_written_ends_in_one_line_and_exit_code_2(saved, tmp_path, capsys):
    assert main([str(saved), "-o", str(tmp_path / "absent" / "out.html")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_argument_is_a_usage_error():
    with pytest.raises(SystemExit) as stop:
        main([])

    assert stop.value.code == 2


def test_the_command_renders_and_prints_the_schema_as_the_module_does(saved, capsys):
    assert command.main(["render", str(saved)]) == 0
    assert saved.with_suffix(".html").exists()
    capsys.readouterr()
    assert command.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema.json_schema()


def test_a_word_that_is_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["rendr"])

    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("camcore report: ")
    assert "'rendr'" in told
    assert "render" in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_gets_no_traceback(saved):
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "reports", "diff", str(saved), str(saved)]
    done = subprocess.run(
        words, stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    os.close(write)

    assert (done.returncode, done.stderr) == (0, "")
