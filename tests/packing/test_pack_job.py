"""Packing into an output folder: the store that is meant, its settings, and the manifest."""

import json

import numpy as np
import pytest
import support
from jobs import manifest
from store_files import read, write

from vmb_d2.errors import ConfigError, StoreError
from vmb_d2.packing.job import pack
from vmb_d2.stores import FORMATS
from vmb_d2.structures.class_names import read_class_names


def with_manifest(folder, settings, name="a", **values):
    write(folder, "mmf", {name: support.some_regions(**values)})
    (folder / "manifest.json").write_text(json.dumps({"settings": settings}))
    return folder


def test_the_store_of_an_output_folder_by_its_format(tmp_path):
    source = write(tmp_path / "in", "mmf", {n: support.some_regions() for n in "ab"})
    everything = tmp_path / "all"
    names = read_class_names(str(support.class_names_file(tmp_path)), tmp_path)
    for name in FORMATS:
        pack([source], name, everything, class_names=names)
    assert len(manifest(everything)["stores"]) == len(FORMATS)
    with pytest.raises(StoreError, match="several stores"):
        pack([everything], "mmf", tmp_path / "out")
    for name in FORMATS:
        assert pack([everything], "mmf", tmp_path / "out" / name, source_format=name).packed == 2


def test_settings_go_along(tmp_path):
    settings = {"dtype": "float32", "model": {"depth": 50}, "names": "mmf"}
    one = with_manifest(tmp_path / "one", settings)
    two = with_manifest(tmp_path / "two", settings, "b")
    none = write(tmp_path / "none", "mmf", {"c": support.some_regions()})
    for packed in (3, 0):  # again, although the dtype differs
        assert pack([one, two, none], "mmf", tmp_path / "out", dtype="float16").packed == packed
    found = manifest(tmp_path / "out")
    assert found["settings"] == {**settings, "dtype": "float16"}
    assert len(found["runs"]) == 2


def test_different_settings_are_refused(tmp_path):
    one = with_manifest(tmp_path / "one", {"model": {"depth": 50}})
    two = with_manifest(tmp_path / "two", {"model": {"depth": 101}}, "b")
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"two was .*model\.depth: 50 there, 101 now"):
        pack([one, two], "mmf", out)
    assert not out.exists()
    pack([one], "mmf", out)
    with pytest.raises(ConfigError, match=r"model\.depth"):  # those of the target count, too
        pack([two], "mmf", out)
    pack([one, two], "mmf", out, allow_mismatch=True)
    assert manifest(out)["settings"] == {}
    assert sorted(read(out, "mmf")) == ["a", "b"]


def test_the_manifest_of_one_of_several_features(tmp_path):
    with_manifest(tmp_path, {"names": "mmf"})
    write(tmp_path / "fc7", "mmf", {"a": support.some_regions()})
    pack([tmp_path / "fc7"], "mmf", tmp_path / "out")
    assert manifest(tmp_path / "out")["settings"]["names"] == "mmf"


@pytest.mark.parametrize("background", [True, False])
def test_the_background_is_where_the_sources_settings_say(tmp_path, background):
    """Of a source without probabilities, nothing else tells."""
    settings = {"regions": {"background": background}}
    objects = np.array([0, 1, 2, 0, 8])
    source = with_manifest(tmp_path / "in", settings, cls_prob=None, objects=objects)
    names = read_class_names(str(support.class_names_file(tmp_path)), tmp_path)
    pack([source], "oscar", tmp_path / "out", class_names=names)
    _, line = (tmp_path / "out" / "oscar" / "labels.tsv").read_text().split("\t")
    first = ["background", "thing 0"] if background else ["thing 0", "thing 1"]
    assert [label["class"] for label in json.loads(line)][:2] == first
    source = with_manifest(tmp_path / "whole", settings, classes=10)
    pack([source], "uniter", tmp_path / "out")
    with np.load(tmp_path / "out" / "uniter" / "a.npz") as file:
        assert file["soft_labels"].shape == (5, 10 if background else 11)
