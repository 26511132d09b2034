"""Downloads from a real HTTP server on this machine that can misbehave."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vmb_d2.errors import DownloadError
from vmb_d2.utils import downloads


def files_in(folder):
    return sorted(p.name for p in Path(folder).rglob("*") if p.is_file())


def test_downloaded_once(server, tmp_path):
    url = f"{server.url}?version=2"
    path = downloads.fetch(url, tmp_path)
    assert path == downloads.cached_path(url, tmp_path)
    assert path.read_bytes() == server.content
    assert downloads.fetch(url, tmp_path) == path
    assert server.requests == ["/models/x.pth?version=2"]


def test_urls_that_differ_have_files_that_differ(tmp_path):
    urls = [
        "https://host/a/model.pth",
        "https://other/a/model.pth",
        "https://host/get?file=/a/model.pth",
        f"https://host/get?signature={'0' * 400}",
    ]
    paths = [downloads.cached_path(url, tmp_path) for url in urls]
    assert len(set(paths)) == len(urls)
    assert max(len(path.name) for path in paths) < 100


def test_a_mirror_stands_in_for_the_official_server_only(server, tmp_path, monkeypatch):
    monkeypatch.setenv("VMB_D2_MIRROR", f"http://127.0.0.1:{server.server_port}/mirror/")
    path = downloads.fetch(f"{downloads.RELEASES}/a/b.yaml", tmp_path)
    assert path == tmp_path / "downloads" / "dl.fbaipublicfiles.com" / "a" / "b.yaml"
    downloads.fetch(server.url, tmp_path)
    assert server.requests == ["/mirror/a/b.yaml", "/models/x.pth"]


def test_a_web_page_is_no_file(server, tmp_path):
    whole, server.content = server.content, b"\r\n <html lang=en>" + bytes(9999)
    with pytest.raises(DownloadError, match="a web page came in its place"):
        downloads.fetch(server.url, tmp_path)
    assert files_in(tmp_path) == []
    server.content = whole
    assert downloads.fetch(server.url, tmp_path).read_bytes() == whole


@pytest.mark.parametrize("fault", ["break", "stall"])
def test_a_broken_download_is_one_line_and_leaves_no_part(server, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.5)
    server.faults = [fault]
    with pytest.raises(DownloadError) as caught:
        downloads.fetch(server.url, tmp_path)
    assert server.url in str(caught.value)
    assert str(downloads.cached_path(server.url, tmp_path)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "x.pth" not in files_in(tmp_path)
    assert downloads.fetch(server.url, tmp_path).read_bytes() == server.content


def test_no_network_but_a_file_put_there_by_hand(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.pth"
        target = downloads.cached_path(url, tmp_path)
        with pytest.raises(DownloadError, match=f"Connection refused.*put it at {target}"):
            downloads.fetch(url, tmp_path)
        target.write_bytes(b"by hand")
        assert downloads.fetch(url, tmp_path) == target


def test_unwritable_cache(server, tmp_path):
    (tmp_path / "downloads").write_text("a file where a folder should be")
    with pytest.raises(DownloadError, match="can't be downloaded"):
        downloads.fetch(server.url, tmp_path)
    assert server.requests == []


@pytest.mark.slow
def test_processes_download_a_file_once_between_them(server, tmp_path):
    server.faults = ["slow"]
    code = "import sys; from vmb_d2.utils.downloads import *; fetch(sys.argv[1], Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, server.url, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [p.wait(120) for p in processes] == [0, 0, 0]
    assert len(server.requests) == 1
    assert downloads.cached_path(server.url, tmp_path).read_bytes() == server.content


def test_killed_download_is_made_again(server, tmp_path):
    server.faults = ["stall"]
    code = "import sys; from vmb_d2.utils.downloads import *; fetch(sys.argv[1], Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, server.url, str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not server.requests:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert "x.pth" not in files_in(tmp_path)
    assert downloads.fetch(server.url, tmp_path).read_bytes() == server.content
    assert files_in(tmp_path) == ["x.pth"]


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VMB_D2_CACHE", str(tmp_path))
    assert downloads.cache_folder() == tmp_path
    monkeypatch.delenv("VMB_D2_CACHE")
    assert downloads.cache_folder() == Path.home() / ".cache" / "vmb_d2"
