import functools
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.datasets import CIFAR10, Imagenette

from camcore.images import Geometry
from camcore.subject import Classifier
from fixtures.datasets.cifar10 import CLASSES as CIFAR_CLASSES
from fixtures.datasets.find import default_data, find_dataset
from fixtures.datasets.scenes import CLASSES as SCENE_CLASSES
from tests.refusals import refusal

CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10_lossless.npz"
IMAGENET = tuple(f"class {index}" for index in range(1000))


def model(classes, **geometry):
    geometry = Geometry(**{"crop": (32, 32), "resize": 32} | geometry)
    return Classifier(name="tiny", spec="tiny", module=nn.Identity(), geometry=geometry, classes=tuple(classes))


def refused(spec, classes):
    return refusal(find_dataset, spec, subject=model(classes))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAMCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """The address and the MD5 of an archive of two photographs, on a server on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    file = tmp_path / "served" / "imagenette2-320.tgz"
    with tarfile.open(file, "w:gz") as opened:
        for wnid in ("n01440764", "n03888257"):
            content = io.BytesIO()
            Image.new("RGB", (40, 32)).save(content, "JPEG")
            member = tarfile.TarInfo(f"imagenette2-320/val/{wnid}/a.JPEG")
            member.size = content.tell()
            content.seek(0)
            opened.addfile(member, content)
    handler = functools.partial(Quiet, directory=str(file.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        md5 = hashlib.md5(file.read_bytes()).hexdigest()
        yield f"http://127.0.0.1:{serving.server_port}/{file.name}", md5
        serving.shutdown()
        thread.join()


def test_imagenette_is_downloaded_once_and_labelled_as_imagenet(cache, archive, monkeypatch):
    monkeypatch.setitem(Imagenette._ARCHIVES, "320px", archive)
    data = find_dataset("imagenette", subject=model(IMAGENET))
    assert (data.ids, data.labels) == (("n01440764/a.JPEG", "n03888257/a.JPEG"), (0, 701))
    assert [entry.name for entry in cache.iterdir()] == ["imagenette2-320"]
    monkeypatch.setitem(Imagenette._ARCHIVES, "320px", ("http://127.0.0.1:1/gone.tgz", archive[1]))
    assert find_dataset("imagenette", subject=model(IMAGENET)).sha256 == data.sha256


def test_imagenette_with_the_wrong_hash_is_refused_and_not_kept(cache, archive, monkeypatch):
    monkeypatch.setitem(Imagenette._ARCHIVES, "320px", (archive[0], "0" * 32))
    assert "corrupted" in refused("imagenette", IMAGENET)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(("spec", "classes"), [("imagenette", IMAGENET), ("cifar10", CIFAR_CLASSES)])
def test_without_a_network_the_way_out_is_named(cache, no_network, spec, classes):
    message = refused(spec, classes)
    assert f"cannot download {spec}" in message
    assert "--data" in message


def test_imagenette_is_refused_for_a_model_of_other_classes(cache):
    message = refused("imagenette", ("cat", "dog"))
    assert "imagenette" in message
    assert "2 others" in message


def arrays(tmp_path, *, images=None, labels=None):
    images = np.arange(3 * 32 * 32 * 3).astype(np.uint8).reshape(3, 32, 32, 3) if images is None else images
    labels = np.array([3, 9, 0]) if labels is None else labels
    np.savez(tmp_path / "cifar.npz", x_test=images, y_test=labels)
    return f"cifar10:{tmp_path / 'cifar.npz'}"


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_cifar_is_read_from_an_npz(tmp_path, shape):
    spec = arrays(tmp_path, labels=np.array([3, 9, 0]).reshape(shape))
    data = find_dataset(spec, subject=model(f"class {index}" for index in range(10)))
    assert (data.spec, data.ids, data.labels) == (spec, ("00000", "00001", "00002"), (3, 9, 0))
    assert data.read("00000")[:, 0, 1].tolist() == pytest.approx([3 / 255, 4 / 255, 5 / 255])


def test_cifar_is_read_from_an_npz_of_jpegs(tmp_path):
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    files = []
    for picture in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    coded = np.frombuffer(b"".join(files), np.uint8)
    starts = np.array([0, len(files[0]), len(coded)], np.uint32)
    np.savez(tmp_path / "cifar.npz", jpeg_test=coded, off_test=starts, y_test=np.array([1, 9]))

    data = find_dataset(f"cifar10:{tmp_path / 'cifar.npz'}", subject=model(CIFAR_CLASSES))

    assert data.labels == (1, 9)
    assert data.read("00000")[:, 16, 16].tolist() == pytest.approx([1, 0, 0], abs=0.02)
    assert data.read("00001")[:, 16, 16].tolist() == pytest.approx([0, 0, 1], abs=0.02)


def test_a_damaged_jpeg_in_an_npz_is_refused(tmp_path):
    coded, starts = np.arange(50, dtype=np.uint8), np.array([0, 50], np.uint32)
    np.savez(tmp_path / "cifar.npz", jpeg_test=coded, off_test=starts, y_test=np.array([1]))

    assert "damaged" in refused(f"cifar10:{tmp_path / 'cifar.npz'}", CIFAR_CLASSES)


def test_a_single_cifar_image_is_read(tmp_path):
    spec = arrays(tmp_path, images=np.zeros((1, 32, 32, 3), np.uint8), labels=np.array([4]))
    assert find_dataset(spec, subject=model(CIFAR_CLASSES)).labels == (4,)


def test_cifars_labels_are_in_the_order_of_the_models_names(tmp_path):
    assert find_dataset(arrays(tmp_path), subject=model(reversed(CIFAR_CLASSES))).labels == (6, 0, 9)


def test_cifars_hash_sees_images_and_labels(tmp_path):
    subject = model(CIFAR_CLASSES)
    first, again = (find_dataset(arrays(tmp_path), subject=subject).sha256 for _ in range(2))
    other = find_dataset(arrays(tmp_path, labels=np.array([3, 9, 1])), subject=subject).sha256
    images = find_dataset(arrays(tmp_path, images=np.zeros((3, 32, 32, 3), np.uint8)), subject=subject).sha256
    assert first == again
    assert len({first, other, images}) == 3


@pytest.mark.parametrize("classes", [IMAGENET, ("cat", "dog"), (*CIFAR_CLASSES[:9], "lorry")])
def test_cifar_is_refused_for_a_model_of_other_classes(tmp_path, classes):
    message = refused(arrays(tmp_path), classes)
    assert "airplane" in message
    assert str(len(classes)) in message


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"images": np.zeros((3, 32, 32, 3), np.float32)}, "float32"),
        ({"images": np.zeros((3, 3, 32, 32), np.uint8)}, "(3, 3, 32, 32)"),
        ({"images": np.zeros((0, 32, 32, 3), np.uint8), "labels": np.zeros(0, int)}, "(0, 32, 32, 3)"),
        ({"labels": np.zeros(4, int)}, "(4,)"),
        ({"labels": np.array([0, 1, 10])}, "from 0 to 10"),
        ({"labels": np.array([0.0, 0.5, 1.0])}, "whole numbers"),
    ],
)
def test_an_npz_with_other_arrays_is_refused(tmp_path, changed, words):
    assert words in refused(arrays(tmp_path, **changed), CIFAR_CLASSES)


def test_an_npz_that_is_missing_damaged_or_lacks_an_array_is_refused(tmp_path):
    file = tmp_path / "cifar.npz"
    assert "there is no file" in refused(f"cifar10:{file}", CIFAR_CLASSES)
    for content in (b"", b"not a zip", pickle.dumps([1])):
        file.write_bytes(content)
        assert "damaged" in refused(f"cifar10:{file}", CIFAR_CLASSES)
    np.savez(file, x_train=np.zeros(3))
    assert "expected x_test and y_test" in refused(f"cifar10:{file}", CIFAR_CLASSES)
    np.savez(file, x_test=np.array([{}], dtype=object), y_test=np.zeros(1))
    assert "damaged" in refused(f"cifar10:{file}", CIFAR_CLASSES)


def test_cifar_is_read_from_torchvisions_folder_with_its_hashes_checked(tmp_path, monkeypatch):
    base = tmp_path / CIFAR10.base_folder
    base.mkdir()
    pixels = np.zeros((1, 3, 32, 32), np.uint8)
    pixels[0, 1] = 255
    (base / "test_batch").write_bytes(pickle.dumps({"data": pixels.reshape(1, -1), "labels": [7]}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR_CLASSES)}))
    md5 = {name: hashlib.md5((base / name).read_bytes()).hexdigest() for name in ("test_batch", "batches.meta")}
    monkeypatch.setattr(CIFAR10, "train_list", [])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    data = find_dataset(f"cifar10:{tmp_path}", subject=model(CIFAR_CLASSES))
    assert data.labels == (7,)
    assert data.read("00000")[:, 0, 0].tolist() == [0, 1, 0]
    (base / "test_batch").write_bytes(b"swapped")
    assert "no intact cifar-10-batches-py" in refused(f"cifar10:{tmp_path}", CIFAR_CLASSES)


def test_a_folder_without_cifar_is_refused(tmp_path):
    assert str(tmp_path) in refused(f"cifar10:{tmp_path}", CIFAR_CLASSES)


@pytest.mark.skipif(not CIFAR.exists(), reason="the shared folder with CIFAR-10 is not here")
def test_the_real_test_images_of_cifar_are_read():
    data = find_dataset(f"cifar10:{CIFAR}", subject=model(CIFAR_CLASSES))
    assert len(data) == 1000
    assert set(data.labels) == set(range(10))


def test_scenes_are_as_many_as_asked_for_and_depend_on_the_seed():
    first, again, other = (find_dataset("scenes", subject=model(SCENE_CLASSES), n=5, seed=s) for s in (1, 1, 2))
    assert len(first) == 5
    assert first.sha256 == again.sha256 != other.sha256
    assert len(find_dataset("scenes", subject=model(SCENE_CLASSES))) == 512


def test_scenes_have_the_size_of_a_model_that_takes_images_as_they_are():
    data = find_dataset("scenes", subject=model(SCENE_CLASSES, crop=(64, 64), resize=None), n=1)
    assert data.read(data.ids[0]).shape == (3, 64, 64)


def test_scenes_labels_are_in_the_order_of_the_models_names():
    forward, backward = (
        find_dataset("scenes", subject=model(classes), n=20) for classes in (SCENE_CLASSES, SCENE_CLASSES[::-1])
    )
    assert backward.labels == tuple(len(SCENE_CLASSES) - 1 - label for label in forward.labels)
    assert torch.equal(backward.read(backward.ids[3]), forward.read(forward.ids[3]))


def test_scenes_are_refused_for_a_model_of_fewer_classes():
    message = refused("scenes", ("cat", "dog"))
    assert "2 classes" in message
    assert "--data FOLDER" in message


def test_an_unknown_set_is_refused_with_the_nearest():
    assert "did you mean 'imagenette'?" in refused("imagenete", IMAGENET)
    assert "'no/such/folder'" in refused("no/such/folder", IMAGENET)


@pytest.mark.parametrize(
    ("spec", "weights", "data"),
    [
        ("resnet50", None, "imagenette"),
        ("torchvision:resnet50@IMAGENET1K_V1", None, "imagenette"),
        ("resnet50", "own.pth", "imagenette"),
        ("resnet50", "random.pth", "imagenette"),
        ("resnet50", "random:0", "scenes"),
        ("control:clean", None, "scenes"),
        ("py:file.py:make", "own.pth", "scenes"),
    ],
)
def test_the_data_of_a_model_that_was_given_none(spec, weights, data):
    assert default_data(spec, weights) == data
