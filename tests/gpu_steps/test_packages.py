"""What is said of missing packages, and wheels that lie beside the tree."""

import os
import subprocess
import sys
import zipfile

import pytest
import support
from gpu_steps import packages

TOOL = support.ROOT / "tools" / "gpu.py"


def lacking(monkeypatch, *modules):
    find = packages.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda m: None if m in modules else find(m))


def test_nothing_is_missing():
    assert packages.missing(["parity", "tests"]) is None


def test_every_missing_package_is_named(monkeypatch):
    lacking(monkeypatch, "cv2", "yacs", "pytest")
    line = packages.missing(["parity", "tests"])
    assert line.startswith(f"{sys.executable} lacks ")
    assert "yacs, opencv-python-headless (every step); pytest (tests): install them" in line
    assert "GPU_STEPS" not in line


def test_what_goes_without_is_named(monkeypatch):
    lacking(monkeypatch, "hypothesis")
    line = packages.missing(["parity", "speed", "tests"])
    assert "hypothesis (tests)" in line
    assert line.endswith("; without them: GPU_STEPS=parity,speed")
    assert packages.missing(["parity", "speed"]) is None
    assert "GPU_STEPS" not in packages.missing(["tests"])


def test_the_program_says_it_before_any_work(tmp_path):
    """In a Python with nothing but the standard library."""
    command = [sys.executable, "-E", "-S", TOOL, "--output", tmp_path / "out", "--device", "cpu"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {sys.executable} lacks torch, torchvision, detectron2, ")
    assert "pytest, hypothesis, hydra-core (tests)" in line


def wheel(folder, name, version="1.0"):
    """A wheel of one module, whose value is the wheel's version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VALUE = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.mark.slow
def test_wheels_for_what_is_missing_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "before")
    wheels, target = tmp_path / "wheels", tmp_path / "target"
    packages.add_wheels(wheels, target)
    assert not target.exists()
    wheels.mkdir()
    for name in ("vmb_d2_test_module", "yaml"):  # yaml is there
        wheel(wheels, name)
    for _ in range(2):
        packages.add_wheels(wheels, target)
        assert sorted(path.name for path in target.glob("*.py")) == ["vmb_d2_test_module.py"]
    assert os.environ["PYTHONPATH"].split(os.pathsep)[:2] == ["before", str(target)]
    import vmb_d2_test_module

    assert vmb_d2_test_module.VALUE == "1.0"
