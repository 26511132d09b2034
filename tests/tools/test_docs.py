"""The documentation names what there is, all of it and nothing else."""

import re

import pytest
import support
from omegaconf import OmegaConf

from vmb_d2.stores import FORMATS

DOCS = sorted([support.ROOT / "README.md", *(support.ROOT / "docs").glob("*.md")])


def options():
    """The keys of tools/extract.py, as ``input.dir``."""
    cfg = OmegaConf.load(support.ROOT / "conf" / "extract.yaml")
    model = OmegaConf.load(support.ROOT / "conf" / "model" / "vmb.yaml")
    keys = {f"model.{key}" for key in model if key != "name"} | {"model.unsafe_load", "model"}
    for key, value in cfg.items():
        if OmegaConf.is_dict(value) and key != "hydra":
            keys |= {f"{key}.{below}" for below in value}
        elif key not in ("hydra", "defaults"):
            keys.add(key)
    return keys


def test_every_option_is_explained():
    text = (support.ROOT / "docs" / "extraction.md").read_text()
    text += (support.ROOT / "docs" / "running.md").read_text()
    text += (support.ROOT / "docs" / "formats.md").read_text()
    assert {key for key in options() if f"`{key}=" not in text} == set()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_options_that_are_named_are_there(path):
    named = set(re.findall(r"\b((?:model|input|boxes|output|extract)\.\w+)=", path.read_text()))
    assert named <= options()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_formats_that_are_named_are_there(path):
    named = set(re.findall(r"(?:\boutput\.format=|--to )([a-z]\w*)", path.read_text()))
    assert named <= FORMATS.keys()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_every_format_is_explained():
    text = (support.ROOT / "docs" / "formats.md").read_text()
    assert [name for name in FORMATS if f"\n## `{name}`\n" not in text] == []
