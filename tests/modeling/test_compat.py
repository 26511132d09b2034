"""Shims are applied only where something is missing."""

import importlib.util
import sys

import pytest

from vmb_d2.modeling import compat


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes importable packages of given files, forgotten after the test."""
    made = []

    def make(name, **files):
        folder = tmp_path / name
        folder.mkdir()
        for file, text in {"__init__": "", **files}.items():
            (folder / f"{file}.py").write_text(text)
        made.append(name)
        return name

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for module in [m for m in sys.modules if m.split(".")[0] in made]:
        del sys.modules[module]


def test_extension_where_missing(package):
    name = package("without_extension", user="from without_extension import _C")
    assert compat.shim_extension(name)
    __import__(f"{name}.user")
    assert not compat.shim_extension(name)


def test_extension_where_present(package):
    name = package("with_extension", _C="answer = 42")
    assert not compat.shim_extension(name)
    assert __import__(f"{name}._C")._C.answer == 42


def test_broken_extension_is_not_hidden(package):
    name = package("broken_extension", _C="raise ImportError('undefined symbol')")
    assert not compat.shim_extension(name)
    with pytest.raises(ImportError, match="undefined symbol"):
        __import__(f"{name}._C")


def test_missing_detectron2_says_what_to_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="make install"):
        compat.prepare_detectron2()


def test_this_environment_is_prepared():
    import detectron2.layers  # noqa: F401
    import PIL.Image

    assert PIL.Image.LINEAR == PIL.Image.BILINEAR
    compat.prepare_detectron2()
