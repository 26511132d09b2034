"""vmb_d2.utils.devices: which device is taken, and what is said of a GPU that PyTorch can't use.

The GPUs are made up: a program nvidia-smi, and what PyTorch answers.
"""

import logging
import subprocess
import sys

import pytest
import support
import torch

from vmb_d2.errors import ConfigError
from vmb_d2.utils.devices import device_of


@pytest.fixture
def nvidia_smi(monkeypatch, tmp_path):
    """A machine with a GPU that PyTorch doesn't find."""
    (tmp_path / "nvidia-smi").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(("cuda", "text"), [(None, "is built without CUDA"), ("13.0", "; another")])
def test_a_gpu_that_is_not_found_is_said(nvidia_smi, monkeypatch, caplog, cuda, text):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with caplog.at_level(logging.WARNING):
        assert device_of("auto").type == "cpu"
    (line,) = caplog.messages
    assert line.startswith(f"the device is the CPU: PyTorch {torch.__version__} finds no GPU")
    assert text in line
    assert 'make install TORCH="torch==X torchvision==Y"' in line


@pytest.mark.parametrize("visible", ["", "-1", None])
def test_no_gpu_or_hidden_ones(nvidia_smi, monkeypatch, caplog, visible):
    if visible is None:
        monkeypatch.setenv("PATH", "")
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_of("auto").type == device_of("cpu").type == "cpu"
    assert caplog.messages == []
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ConfigError, match=rf"^device={name}: valid here are auto, cpu$"):
            device_of(name)


def test_a_gpu_that_this_pytorch_has_no_operators_for(monkeypatch, caplog):
    def zeros(*size, device):
        raise RuntimeError(f"CUDA error: {what} on the device\nSearch for ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla K80")
    monkeypatch.setattr(torch, "zeros", zeros)
    what = "no kernel image is available for execution"
    with pytest.raises(ConfigError, match=rf"device=cuda: .* Tesla K80 \(CUDA error: {what}"):
        device_of("cuda")
    assert str(device_of("auto")) == "cpu"
    assert "the device is the CPU: " in caplog.text
    what = "busy or unavailable"  # by now: the run will say so
    assert str(device_of("auto")) == "cuda"
    assert str(device_of("cuda:0")) == "cuda:0"


# New pages of this process for ten blocks one after the other, as a network's maps are.
WATCHED = """
import resource, sys, torch
from vmb_d2.utils.devices import keep_freed_memory

def ten_blocks():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for i in range(10):
        torch.ones(2**20 * (40 + i % 3) // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(3):  # until the heap has its final size
    ten_blocks()
print(ten_blocks())
"""


@pytest.mark.slow
def test_freed_memory_is_used_again():
    def new_pages(how):
        return int(subprocess.check_output([sys.executable, "-c", WATCHED, how], cwd=support.ROOT))

    pages = 10 * 40 * 2**20 // 4096
    assert new_pages("keep") < pages / 100
    assert new_pages("leave") > pages / 600  # where a page is of 2 MB
