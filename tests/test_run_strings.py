"""What a model or a file is called can do no harm; and what is only listed is not loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT, Run, environment, factories, photographs, run

pytestmark = pytest.mark.slow

NAMES = ('quote".png', "it's.png", "two\nlines.png", "re\rturn.png", "red\x1b[31m.png", "<img src=x onerror=y>.png")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("hostile")
    names = [f"{label}/{index} {name}" for label in ("0", "1") for index, name in enumerate(NAMES * 2)]
    photos = photographs(folder / "photos", names)
    (photos / "1" / "broken\n\x1b[31m<b>.png").write_bytes(b"\x89PNG")
    pages = ("--html", folder / "page.html", "--self-contained-html", "--junitxml", folder / "junit.xml")
    options = ("--data", photos, "--audit-profile", "smoke", *pages)
    return run(folder / "report", "--model", f"{factories(folder)}convolutional", *options)


def test_hostile_names_are_audited_like_any_other(hostile: Run) -> None:
    assert hostile.code in (1, 6), hostile.output
    assert "Traceback" not in hostile.output
    assert hostile.results["data"][0]["n"] == 24
    units = {unit for claim in hostile.results["claims"] for unit in claim["units"]}
    assert any("\n" in unit for unit in units)
    assert "ERROR" not in hostile.verdicts.values()


def test_hostile_names_cannot_write_on_the_terminal(hostile: Run) -> None:
    assert "broken" in hostile.output
    assert "\x1b[31m" not in hostile.output


def test_hostile_names_are_escaped_in_the_pages(hostile: Run) -> None:
    page = (hostile.report / "report.html").read_text(encoding="utf-8")
    cells = (hostile.report.parent / "page.html").read_text(encoding="utf-8")

    assert "&lt;script&gt;alert(" in page
    for text in (page, cells):
        assert "<script>alert(" not in text
        assert "<img src=x" not in text


LISTING = """
import sys
import pytest

class Loaded:
    def pytest_unconfigure(self):
        loaded = [name for name in ("torchvision", "transformers", "matplotlib") if name in sys.modules]
        print("loaded:", loaded)

code = pytest.main(["audits", "--collect-only", "-q", *sys.argv[1:]], plugins=[Loaded()])
raise SystemExit(code)
"""


def test_listing_the_audits_loads_no_model_and_nothing_heavy(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n", encoding="utf-8")
    arguments = ["--model", "resnet50", "--model", f"py:{model}:build", "--audit-report", str(tmp_path / "report")]

    done = subprocess.run(
        [sys.executable, "-c", LISTING, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "audits/test_wall.py::test_nothing_leaks_through_the_wall[resnet50-hirescam]" in done.stdout
    assert "[model.py-build-hirescam]" in done.stdout
    assert "loaded: []" in done.stdout
    assert not (tmp_path / "imported").exists()
    assert not (tmp_path / "report").exists()
