import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import camcore.suite
from camcore import cam, record
from camcore.cam import registry
from camcore.explain import command, folder
from camcore.explain.command import main
from fixtures.datasets.folder import decode
from fixtures.datasets.scenes import CLASSES, scenes
from fixtures.subjects.spec import find_subject

MODEL = ("--model", "control:clean")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Three scenes as files in the current folder."""
    monkeypatch.chdir(tmp_path)
    dataset = scenes(3, seed=0)
    files = []
    for number, image_id in enumerate(dataset.ids):
        pixels = (dataset.read(image_id) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(f"scene{number}.png")
        files.append(f"scene{number}.png")
    return files


def explain(*words):
    return main(words)


def manifest(where="explanation"):
    return json.loads(Path(where, "explanation.json").read_text(encoding="utf-8"))


def test_every_image_and_method_has_an_overlay_and_a_raw_map_and_all_share_a_sheet(photos, capsys):
    code = explain(*photos, *MODEL, "--cam", "hirescam", "--cam", "layercam", "-o", "out")

    expected = {
        f"scene{i}.{name}.{kind}" for i in range(3) for name in ("hirescam", "layercam") for kind in ("png", "npy")
    }
    assert code == 0
    assert {path.name for path in Path("out").iterdir()} == expected | {"sheet.png", "explanation.json"}
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told[:3]] == photos
    assert told[3:] == [str(Path("out", "sheet.png"))]


def test_raw_maps_are_the_methods_own_signed_and_at_their_own_resolution(photos):
    explain(*photos, *MODEL, "--cam", "gradcam")

    subject = find_subject("control:clean")
    images = torch.stack([subject.geometry.fit(decode(Path(file).read_bytes())) for file in photos])
    for number, expected in enumerate(cam.gradcam(record(subject, images))):
        saved = np.load(f"explanation/scene{number}.gradcam.npy")
        assert saved.dtype == np.float32
        assert saved.shape == (12, 12)
        assert saved == pytest.approx(expected.numpy(), abs=1e-6)


def test_the_manifest_says_what_was_done_and_with_what(photos):
    explain(*photos, *MODEL, "--class", CLASSES[4].upper(), "--against", "2")

    found = manifest()
    subject = find_subject("control:clean")
    assert found["model"]["spec"] == "control:clean"
    assert found["model"]["sha256"] == subject.sha256
    assert found["model"]["layer"] == subject.target_layer
    assert set(found["versions"]) == {"python", "camcore", "torch", "numpy", "pillow"}
    assert found["sheets"] == ["sheet.png"]
    assert found["failed"] == []
    first = found["images"][0]
    assert first["explained"]["index"] == 4
    assert first["explained"]["name"] == CLASSES[4]
    assert 0 <= first["explained"]["probability"] <= 1
    assert first["against"]["index"] == 2
    assert first["maps"]["hirescam"]["largest"] == pytest.approx(np.load("explanation/scene0.hirescam.npy").max())


def test_results_depend_neither_on_the_company_an_image_is_in_nor_on_how_many_are_taken_at_once(photos, monkeypatch):
    explain(*photos, *MODEL, "-o", "together")
    monkeypatch.setattr(command, "AT_ONCE", 1)
    explain(*photos, *MODEL, "-o", "apart")

    for number in range(3):
        one, other = (np.load(f"{where}/scene{number}.hirescam.npy") for where in ("together", "apart"))
        assert one == pytest.approx(other, abs=1e-6)


def test_many_images_are_told_of_while_they_are_worked_on_and_fill_several_sheets(photos, monkeypatch, capsys):
    monkeypatch.setattr(command, "AT_ONCE", 2)
    monkeypatch.setattr(folder, "ROWS", 2)

    assert explain(*photos, *MODEL) == 0

    assert capsys.readouterr().err.splitlines() == ["images 1 to 2 of 3", "images 3 to 3 of 3"]
    assert manifest()["sheets"] == ["sheet.png", "sheet-2.png"]
    heights = [decode(Path("explanation", name).read_bytes()).shape[1] for name in ("sheet.png", "sheet-2.png")]
    assert heights[0] - heights[1] > 200


def test_files_of_one_name_in_different_folders_do_not_overwrite_one_another(photos):
    for where in ("a", "B"):
        Path(where).mkdir()
    Path(photos[0]).rename("a/same.png")
    Path(photos[1]).rename("B/SAME.png")
    Path(photos[2]).rename("same.ppm.png")

    assert explain("a/same.png", "B/SAME.png", "a/same.png", *MODEL) == 0

    named = [image["maps"]["hirescam"]["raw"] for image in manifest()["images"]]
    assert named == ["same.hirescam.npy", "SAME-2.hirescam.npy"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("x.png", "x-2.png", "x.jpg"), ["x", "x-2", "x-3"]),
        (("a/x.png", "b/x.png", "c/X.png"), ["x", "x-2", "X-3"]),
        (("é" * 100 + ".png",), ["é" * 60]),
    ],
)
def test_no_two_stems_are_alike_and_none_is_too_long(files, expected):
    assert folder.stems(files) == expected


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_finished(photos, capsys):
    Path("torn.png").write_bytes(Path(photos[0]).read_bytes()[:300])
    Path("tiny.png").write_bytes(b"")
    Image.new("RGB", (40, 40)).save("small.png")

    code = explain("no\nsuch.png", "torn.png", "tiny.png", "small.png", ".", photos[1], *MODEL)

    assert code == 1
    told = capsys.readouterr().err.splitlines()
    assert told[1] == "camcore explain: 'no\\nsuch.png': No such file or directory"
    assert told[2].startswith("camcore explain: 'torn.png': cannot be decoded (")
    assert told[3].startswith("camcore explain: 'tiny.png': cannot be decoded (")
    assert told[4].startswith("camcore explain: 'small.png': an image of 40x40 is smaller than the model's 96x96")
    assert told[5] == "images 5 to 6 of 6"
    assert told[6] == "camcore explain: '.': Is a directory"
    assert len(told) == 7
    assert [image["file"] for image in manifest()["images"]] == [photos[1]]
    assert len(manifest()["failed"]) == 5
    assert Path("explanation/sheet.png").is_file()


def test_where_no_image_can_be_read_the_manifest_says_so_and_there_is_no_sheet(photos):
    assert explain("no.png", *MODEL) == 1

    assert manifest()["images"] == manifest()["sheets"] == []
    assert not Path("explanation/sheet.png").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "control:clean"), "name at least one image"),
        (("scene0.png",), "name the model"),
        (("scene0.png", "--model", "control:claen"), "did you mean 'clean'?"),
        (("scene0.png", *MODEL, "--cam", "gradcamm"), "did you mean 'gradcam'?"),
        (("scene0.png", *MODEL, "--class", "leav"), "did you mean 'leaf' ("),
        (("scene0.png", *MODEL, "--class", "10"), "the model has classes 0 to 9"),
        (("scene0.png", *MODEL, "--class", "1", "--against", "1"), "name two classes"),
        (("scene0.png", *MODEL, "--layer", "features.block7"), "no layer 'features.block7'"),
        (("scene0.png", *MODEL, "--device", "toaster"), "pass cpu"),
        (("scene0.png", *MODEL, "--weights", "no.safetensors"), "brings its own weights"),
        (("scene0.png", *MODEL, "-o", "scene1.png"), "pass another -o DIR"),
        (("scene0.png", *MODEL, "--colour", "red"), "unrecognized arguments: --colour red"),
        (("scene0.png", "--model"), "expected one argument"),
    ],
)
def test_what_the_user_gets_wrong_is_one_line_and_nothing_is_written(photos, capsys, words, says):
    assert explain(*words) == 2

    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert told.startswith("camcore explain: ")
    assert not Path("explanation").exists()


def test_all_stands_for_the_methods_that_need_no_further_forwards(photos):
    explain(photos[0], *MODEL, "--cam", "all")

    assert manifest()["methods"] == sorted(registry.RECORDED)


def test_the_methods_can_be_listed_without_an_image_or_a_model(capsys):
    assert explain("--list-cams") == 0

    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == sorted(registry.METHODS)


def planted(monkeypatch, name, method):
    monkeypatch.setitem(registry.METHODS, name, method)


def test_a_method_that_fails_is_named_once_and_the_others_are_finished(photos, monkeypatch, capsys):
    def refuses(rec):
        raise ValueError("needs\nattention, the model has none")

    planted(monkeypatch, "refuses", refuses)
    monkeypatch.setattr(command, "AT_ONCE", 1)

    assert explain(*photos, *MODEL, "--cam", "refuses", "--cam", "hirescam") == 1

    told = capsys.readouterr().err
    assert told.count("camcore explain: 'refuses': needs attention, the model has none\n") == 1
    assert [list(image["maps"]) for image in manifest()["images"]] == [["hirescam"]] * 3


def test_a_method_that_asks_the_model_again_is_told_of_before_it_does(photos, monkeypatch, capsys):
    planted(monkeypatch, "slow", lambda rec: rec.images.mean(1) - 0.5)

    assert explain(photos[0], *MODEL, "--cam", "slow") == 0

    assert "slow asks the model again" in capsys.readouterr().err
    assert np.load("explanation/scene0.slow.npy").shape == (96, 96)


def test_an_image_that_cannot_be_explained_does_not_take_its_batch_with_it(photos, capsys):
    explain(*photos, *MODEL, "-o", "predicted")
    predicted = [image["predicted"]["index"] for image in manifest("predicted")["images"]]
    assert predicted[0] not in predicted[1:]

    code = explain(*photos, *MODEL, "--against", str(predicted[0]))

    assert code == 1
    assert "camcore explain: 'scene0.png': " in capsys.readouterr().err
    assert [image["file"] for image in manifest()["images"]] == photos[1:]


def test_what_was_measured_before_an_interruption_is_written(photos, monkeypatch, capsys):
    seen = []

    def interrupted(rec):
        seen.append(rec)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return cam.hirescam(rec)

    planted(monkeypatch, "interrupted", interrupted)
    monkeypatch.setattr(command, "AT_ONCE", 1)

    assert explain(*photos, *MODEL, "--cam", "interrupted") == 130

    assert [image["file"] for image in manifest()["images"]] == photos[:1]
    assert Path("explanation/sheet.png").is_file()


def test_without_the_suite_one_line_says_that_there_are_no_loaders(photos, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(camcore.suite, "__file__", str(tmp_path / "camcore" / "suite.py"))

    assert explain(photos[0], *MODEL) == 2

    told = capsys.readouterr().err
    assert "install camcore's wheel, or run from its checkout" in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_the_command_runs_as_a_module_in_a_process_of_its_own(photos):
    done = subprocess.run(
        [sys.executable, "-m", "camcore.explain", photos[0], *MODEL, "-o", "out"],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == str(Path("out", "sheet.png"))


@pytest.mark.slow
def test_importing_the_library_imports_neither_the_front_nor_pillow():
    code = "import sys, camcore; print([m for m in ('camcore.explain', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
