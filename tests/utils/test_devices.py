"""vmb_d2.utils.devices: which device is taken, and what is said of a GPU that PyTorch can't use.

The GPUs are made up: a program nvidia-smi, and what PyTorch answers.
"""

import logging
import subprocess
import sys
import warnings

import pytest
import support
import torch

from vmb_d2.errors import ConfigError
from vmb_d2.utils.devices import device_of

GPU = "Tesla V100-SXM2-16GB, driver 470.82.01"
OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
    "Please update your GPU driver by downloading and installing a new version from the URL: ..."
)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without a GPU, whose PyTorch could use one: its folder of programs."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def nvidia_smi(machine, output, status=0):
    program = machine / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{output}'\nexit {status}\n")
    program.chmod(0o755)


def problem(caplog):
    """What is said of the GPU: the same in the error for cuda and in the warning for auto."""
    with pytest.raises(ConfigError) as error:
        device_of("cuda")
    said = str(error.value)
    with caplog.at_level(logging.WARNING):
        assert device_of("auto").type == "cpu"
    (line,) = caplog.messages
    assert line.removeprefix("the device is the CPU, since ") == said.removeprefix("device=cuda: ")
    assert "\n" not in said
    assert 'make install TORCH="torch==X torchvision==Y"' in said
    assert f"PyTorch {torch.__version__} can't use" in said
    return said


def test_a_pytorch_without_cuda(machine, monkeypatch, caplog):
    nvidia_smi(machine, "Tesla V100-SXM2-16GB, 470.82.01\nTesla V100-SXM2-16GB, 470.82.01")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert f"{GPU} (it is built without CUDA)" in problem(caplog)


def test_a_driver_that_is_too_old(machine, monkeypatch, caplog):
    def is_available():
        warnings.warn(OLD_DRIVER, stacklevel=1)
        return False

    nvidia_smi(machine, "Tesla V100-SXM2-16GB, 470.82.01")
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    reason = "(The NVIDIA driver on your system is too old (found version 11040))"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what PyTorch warns of is in our line
        assert f"{GPU} {reason}" in problem(caplog)


def test_a_gpu_that_this_pytorch_has_no_operators_for(machine, monkeypatch, caplog):
    def zeros(*size, device):
        raise RuntimeError(f"CUDA error: {what} on the device\nSearch for ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla K80")
    monkeypatch.setattr(torch, "zeros", zeros)
    what = "no kernel image is available for execution"
    assert f"Tesla K80 (CUDA error: {what} on the device)" in problem(caplog)
    what = "busy or unavailable"  # by now: the run will say so
    assert str(device_of("auto")) == "cuda"
    assert str(device_of("cuda:0")) == "cuda:0"


def test_a_choice_of_gpus_that_leaves_none_is_said(machine, monkeypatch, caplog):
    nvidia_smi(machine, "Tesla V100-SXM2-16GB, 470.82.01")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert f"{GPU} (CUDA_VISIBLE_DEVICES=7)" in problem(caplog)


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_hidden_gpus_are_not_missed(machine, monkeypatch, caplog, visible):
    nvidia_smi(machine, "Tesla V100-SXM2-16GB, 470.82.01")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_of("auto").type == "cpu"
    assert caplog.messages == []
    with pytest.raises(ConfigError, match=r"^device=cuda: valid here are auto, cpu$"):
        device_of("cuda")


@pytest.mark.parametrize("program", [None, "No devices were found"])
def test_without_a_gpu_nothing_is_said(machine, caplog, program):
    if program:
        nvidia_smi(machine, program, 6)
    assert device_of("auto").type == "cpu"
    assert device_of("cpu").type == "cpu"
    assert caplog.messages == []
    with pytest.raises(ConfigError, match=r"^device=cuda:1: valid here are auto, cpu$"):
        device_of("cuda:1")


def test_cpu_is_not_warned_of(machine, caplog):
    nvidia_smi(machine, "Tesla V100-SXM2-16GB, 470.82.01")
    assert device_of("cpu").type == "cpu"
    assert caplog.messages == []


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
