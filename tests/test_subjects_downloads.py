import functools
import hashlib
import http.server
import socket
import threading

import pytest
import torch

from fixtures.downloads import cache_dir, checkpoint
from fixtures.subjects.spec import find_subject
from tests.refusals import refusal

CONTENT = b"weights"
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a server of tmp_path/served on this machine; torch.hub's cache is tmp_path/hub."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_a_checkpoint_is_downloaded_once(tmp_path, server):
    name = f"model-{DIGITS}.pth"
    (tmp_path / "served" / name).write_bytes(CONTENT)
    file = checkpoint(f"{server}/{name}", instead="")
    (tmp_path / "served" / name).unlink()
    assert checkpoint(f"{server}/{name}", instead="") == file
    assert file.read_bytes() == CONTENT


def test_a_download_with_the_wrong_hash_is_refused_and_not_kept(tmp_path, server):
    name = "model-00000000.pth"
    (tmp_path / "served" / name).write_bytes(CONTENT)
    assert "hash" in refusal(checkpoint, f"{server}/{name}", instead="pass --weights FILE")
    assert list((tmp_path / "hub" / "checkpoints").iterdir()) == []


def test_a_file_that_the_server_lacks_is_refused_with_a_way_out(server):
    message = refusal(checkpoint, f"{server}/model-{DIGITS}.pth", instead="pass --weights FILE")
    assert "404" in message
    assert message.endswith("pass --weights FILE")


@pytest.mark.usefixtures("no_network")
def test_without_a_network_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    message = refusal(find_subject, "resnet50@IMAGENET1K_V1")
    assert "resnet50-0676ba61.pth" in message
    assert "--weights FILE or --weights random:0" in message
    assert socket.getdefaulttimeout() is None


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("CAMCORE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("CAMCORE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "camcore"
