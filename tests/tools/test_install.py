"""`make install`, and the wheel with its commands."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest
import support

# A Python that makes, for -m venv, an environment with itself, and writes down what pip is to do.
PYTHON = """#!/bin/sh
case "$*" in
"-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*"pip "*install*) echo "$@" >> pip.log
    case "$*" in *requirements-dev.txt*) cat .venv/requirements.txt >> pip.log ;; esac ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """What `make install` needs, with a Python that only writes down what it is asked for."""
    for path in support.ROOT.glob("requirements*.txt"):
        shutil.copy(path, tmp_path)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(support.ROOT / name, tmp_path)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def test_the_converter_without_its_environment(tmp_path):
    command = [sys.executable, "-m", "venv", "--without-pip", tmp_path]
    subprocess.run(command, check=True)
    bare = [tmp_path / "bin" / "python", "-m", "weights_conversion.convert", "--help"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        bare, cwd=support.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: {bare[0]} has no \w+: `make install` installs it\n", done.stderr)


def installed(checkout, *words):
    """What pip was asked for; None if it wasn't asked."""
    log = checkout / "pip.log"
    log.unlink(missing_ok=True)
    words = ["make", "install", "PYTHON=./python", *words]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    subprocess.run(words, cwd=checkout, env=environment, check=True, capture_output=True)
    return log.read_text() if log.exists() else None


def test_make_install_takes_another_torch(checkout):
    requirements = (checkout / "requirements.txt").read_text()
    usual = installed(checkout)
    assert requirements in usual
    assert installed(checkout) is None
    pair = "torch==2.4.0 torchvision==0.19.0"
    other = installed(checkout, f"TORCH={pair}")
    assert f"requirements-dev.txt {pair}\n" in other
    assert "\ntorch" not in other
    # It stays, for make test too, until another one is asked for.
    assert installed(checkout) is None
    os.utime(checkout / "requirements.txt")
    assert installed(checkout) == other
    assert "torch==2.5.0" in installed(checkout, "TORCH=torch==2.5.0 torchvision==0.20.0")
    assert installed(checkout, "TORCH=") == usual


@pytest.fixture(scope="module")
def wheel_environment(tmp_path_factory):
    """The folder of the commands in an environment with the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    parts = ("vmb_d2", "weights_conversion", "tools", "conf")
    for name in parts:  # a build leaves files beside its sources
        shutil.copytree(
            support.ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("*.pyc")
        )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(support.ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-index"]
    build = ["wheel", *alone, "--no-build-isolation", "-w", folder, folder / "source"]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", *alone, wheel], check=True)
    # A folder in a .pth is searched, but its own .pth files, as of the checkout, are not.
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python.parent


@pytest.mark.slow
def test_the_commands_of_the_wheel(wheel_environment, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["VMB_D2_CACHE"] = str(tmp_path / "cache")

    def run(command, *arguments, status=0):
        words = [wheel_environment / f"vmb-d2-{command}", *arguments]
        done = subprocess.run(
            [*map(str, words)], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        return done.stdout

    for command in ("pack", "compare", "visualize", "status", "convert"):
        assert f"usage: vmb-d2-{command}" in run(command, "--help")
    assert "model= is one of" in run("extract", "--help")
    weights, config = support.vmb_checkpoint(support.TINY_FPN), support.yaml_path(support.TINY_FPN)
    run("convert", weights, "converted.pth", "--config", config)
    source = support.links(tmp_path / "in", "coffee.png", "rocket.jpg")
    model = ["model=vmb", "model.weights=converted.pth", "output.format=lmdb"]
    assert "2 extracted" in run("extract", *model, f"input.dir={source}", "output.dir=out")
    sweep = ["-m", "hydra/launcher=local_gpus", "shard.count=2", "shard.index=range(0,2)"]
    run("extract", *sweep, *model, f"input.dir={source}", "output.dir=shards")
    assert "2 of 2 done (100 %)" in run("status", "shards")
    assert "2 packed" in run("pack", "shards", "--to=npz", "--output=packed")
    assert "boxes" in run("compare", "out", "packed")
    names = support.class_names_file(tmp_path, 100)
    run("visualize", "packed", source, "--output=drawn", f"--classes={names}")
    assert (tmp_path / "drawn" / "index.html").exists()
    where = subprocess.run(
        [wheel_environment / "python", "-c", "import vmb_d2; print(vmb_d2.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(wheel_environment.parent))
