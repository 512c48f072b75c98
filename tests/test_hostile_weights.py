"""Weights and arrays that lie about their size are refused in one line, before memory is spent on them."""

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from camcore.errors import BadInput
from fixtures.datasets import cifar10
from fixtures.datasets.cifar10 import read_npz
from fixtures.subjects.weights import read_weights
from tests.refusals import refusal


def safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + b"\0" * 16


def one(shape: list[int], stop: int) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, stop]}}).encode()


HEADERS = {
    "longer than the file": safetensors(b"{}", 2**60),
    "a tensor longer than the file": safetensors(one([2**40], 2**42)),
    "a shape that is not its bytes": safetensors(one([2**40], 16)),
    "a shape beyond all bounds": safetensors(one([2**62, 2**62], 16)),
    "no JSON": safetensors(b"\xff" * 8),
    "nested": safetensors(b"[" * 100_000),
    "nothing but a length": struct.pack("<Q", 8),
}


@pytest.mark.parametrize("lie", HEADERS)
def test_safetensors_whose_header_lies_are_refused(lie: str, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(HEADERS[lie])

    assert "is damaged or no safetensors file" in refusal(read_weights, tmp_path / "weights.safetensors")


def test_a_torch_file_that_unpacks_to_more_than_it_is_is_refused_before_torch_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1_000_000)}, file)
    read_weights(file)
    with zipfile.ZipFile(file) as saved, zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in saved.infolist():
            packed.writestr(member.filename, saved.read(member))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch was asked to read it"))

    assert "and unpacks to 4,0" in refusal(read_weights, tmp_path / "bomb.pth")


def test_arrays_that_unpack_to_gigabytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, np.uint8)
    np.savez_compressed(tmp_path / "packed.npz", x_test=images, y_test=labels)
    assert len(read_npz(tmp_path / "packed.npz")[0]) == 4
    monkeypatch.setattr(cifar10, "MOST_BYTES", 10_000)  # a gigabyte takes long to pack

    with pytest.raises(BadInput, match="more than the 10,000 that are read"):
        read_npz(tmp_path / "packed.npz")


def test_arrays_whose_header_lies_or_that_hold_objects_are_refused(tmp_path: Path) -> None:
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.uint8)) | {"shape": (2**60,)}
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as packed, packed.open("x_test.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
    np.savez(tmp_path / "objects.npz", x_test=np.array([{}], dtype=object), y_test=np.zeros(1))

    for name in ("lie.npz", "objects.npz"):
        with pytest.raises(BadInput, match=r"is damaged or no \.npz file"):
            read_npz(tmp_path / name)
