"""Where nothing is installed yet: what the tools say; and what `make install` installs."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import support

TOOLS = sorted(
    path.stem
    for path in (support.ROOT / "tools").glob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)
# A Python that makes, for -m venv, an environment with itself, and writes down what pip is to do.
PYTHON = """#!/bin/sh
case "$*" in
"-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*"pip "*install*) echo "$@" >> pip.log
    case "$*" in *requirements-dev.txt*) cat .venv/requirements.txt >> pip.log ;; esac ;;
esac
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The Python of an environment without any package."""
    folder = tmp_path_factory.mktemp("bare")
    command = [sys.executable, "-m", "venv", "--without-pip", folder]
    subprocess.run(command, check=True)
    return folder / "bin" / "python"


def run(python, *words, cwd):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python), *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_without_its_environment(bare, tmp_path, tool):
    assert len(TOOLS) >= 7
    done = run(bare, support.ROOT / "tools" / f"{tool}.py", "--help", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    pattern = rf"error: {bare} has no \w+: `make install` in {support.ROOT} makes .*\n"
    assert re.fullmatch(pattern, done.stderr)


def test_the_converter_without_its_environment(bare):
    done = run(bare, "-m", "weights_conversion.convert", "--help", cwd=support.ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: {bare} has no \w+: `make install` installs it\n", done.stderr)


def test_what_is_missing_in_the_program_itself_is_a_traceback(tmp_path):
    code = "import sys; sys.path.insert(0, 'tools'); import environment, vmb_d2.no_such_module"
    done = support.run_tool("-c", code)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "No module named 'vmb_d2.no_such_module'" in done.stderr


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
    lines = requirements.splitlines()
    rest = [line for line in lines if not line.startswith("torch")]
    assert len(rest) == len(lines) - 2
    assert "\n".join(rest) in other
    assert "\ntorch" not in other
    for step in ("requirements-detectron2.txt", "--editable ."):
        assert step in other and step in usual
    # It stays, for make test too, until another one is asked for.
    assert installed(checkout) is None
    assert installed(checkout, f"TORCH={pair}") is None
    os.utime(checkout / "requirements.txt")
    assert installed(checkout) == other
    assert "torch==2.5.0" in installed(checkout, "TORCH=torch==2.5.0 torchvision==0.20.0")
    assert installed(checkout, "TORCH=") == usual
