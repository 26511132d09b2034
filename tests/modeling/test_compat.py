"""Detectron2 is prepared where something is missing."""

import importlib.util
import sys

import pytest

from vmb_d2.modeling import compat


def test_missing_detectron2_says_what_to_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="make install"):
        compat.prepare_detectron2()


def test_this_environment_is_prepared():
    import detectron2.layers  # noqa: F401
    import PIL.Image

    assert PIL.Image.LINEAR == PIL.Image.BILINEAR
    compat.prepare_detectron2()


def test_an_extension_that_exists_is_left_alone(monkeypatch, tmp_path):
    import detectron2

    monkeypatch.delitem(sys.modules, "detectron2._C")
    monkeypatch.setattr(detectron2, "__path__", [*detectron2.__path__, str(tmp_path)])
    (tmp_path / "_C.py").write_text("raise ImportError('undefined symbol')")
    compat.prepare_detectron2()
    with pytest.raises(ImportError, match="undefined symbol"):
        importlib.import_module("detectron2._C")
