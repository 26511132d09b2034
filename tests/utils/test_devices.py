"""vmb_d2.utils.devices: which device is taken, and what is said of a GPU that PyTorch can't use.

The GPUs are made up: a program nvidia-smi, the kernel driver's files, and what PyTorch answers.
"""

import logging
import warnings

import pytest
import torch

from vmb_d2.errors import ConfigError
from vmb_d2.utils import devices
from vmb_d2.utils.devices import device_of

GPU = "Tesla V100-SXM2-16GB, driver 470.82.01"
OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
    "Please update your GPU driver by downloading and installing a new version from the URL: ..."
)
INFORMATION = "Model: \t\t Tesla V100-SXM2-16GB\nIRQ:   \t\t 65\n"
VERSIONS = [
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01  Wed Oct 27 21:21:55 UTC 2021\nGCC",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  470.82.01  Release Build  (root@x)",
]


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without a GPU, whose PyTorch could use one: its folder of programs."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def nvidia_smi(machine, output, status=0):
    program = machine / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{output}'\nexit {status}\n")
    program.chmod(0o755)


def kernel_driver(machine, version=VERSIONS[0]):
    folder = machine / "proc" / "gpus" / "0000:00:1e.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text(INFORMATION)
    (machine / "proc" / "version").write_text(version)


def problem(caplog):
    """What is said of the GPU: the same in the error for cuda and in the warning for auto."""
    with pytest.raises(ConfigError) as error:
        device_of("cuda")
    said = str(error.value)
    with caplog.at_level(logging.WARNING):
        assert device_of("auto").type == "cpu"
    (line,) = caplog.messages
    assert line.removeprefix("device=auto: the CPU, since ") == said.removeprefix("device=cuda: ")
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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("program", [None, "Failed to initialize NVML"])
def test_without_nvidias_program_the_kernel_driver_is_asked(machine, caplog, version, program):
    if program:
        nvidia_smi(machine, program, 18)
    kernel_driver(machine, version)
    assert f"{GPU} (it finds no GPU)" in problem(caplog)


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
    kernel_driver(machine)
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
    kernel_driver(machine)
    assert device_of("cpu").type == "cpu"
    assert caplog.messages == []
