"""docs/consumers.md: what it shows runs, on the stores that it says are to be made."""

import dataclasses
import json
import os
import pickle
import re
from pathlib import Path

import lmdb
import numpy as np
import pytest
import support
import torch
import yaml
from PIL import Image

from vmb_d2.data.image_list import list_images
from vmb_d2.stores.mmf import MMFWriter

PAGE = (support.ROOT / "docs" / "consumers.md").read_text()
WIDTH, HEIGHT = 640, 427  # of support.some_regions


def section(heading):
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]


def blocks(heading, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", section(heading), re.DOTALL)


def run_block(heading):
    """Run the section's only example; return the names that it leaves."""
    (code,) = blocks(heading)
    names = {}
    exec(code, names)
    return names


@pytest.fixture
def pack(monkeypatch, capsys):
    """Runs tools/pack.py in this process."""
    run = support.in_this_process(support.ROOT / "tools" / "pack.py", monkeypatch, capsys)

    def pack(*arguments):
        status, _, messages = run(*arguments)
        assert status == 0, messages

    return pack


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """The examples' paths are relative to the present folder."""
    monkeypatch.chdir(tmp_path)


def write(folder, **images):
    writer = MMFWriter(Path(folder))
    for name, regions in images.items():
        writer.write(name, regions)
    writer.close()


def past_the_edge(seed=0):
    """Regions of which the first box reaches past the edges of the image."""
    regions = support.some_regions(seed, count=36, dimension=2048)
    regions.bbox[0] = [-3, 5, WIDTH + 7, HEIGHT + 9]
    return regions


def in_pixels(regions):
    return regions.bbox


def as_shares(regions):
    return (regions.bbox / np.float32([WIDTH, HEIGHT, WIDTH, HEIGHT])).clip(0, 1)


# The consumer, the format in its section, the image that it asks for, and the boxes that it gets.
READERS = [
    ("LXMERT", "lxmert_tsv", "name", as_shares),
    ("VL-T5", "hdf5", "name", as_shares),
    ("Bottom-up attention's TSV", "butd_tsv", "9", in_pixels),
    ("OpenVQA and MCAN", "openvqa", "name", in_pixels),
    ("ViLBERT", "vilbert", "name", in_pixels),
]


@pytest.mark.parametrize(("consumer", "kind", "name", "boxes"), READERS, ids=lambda value: value)
def test_what_a_consumer_reads(pack, consumer, kind, name, boxes):
    assert f"output.format={kind}" in section(consumer)
    regions = past_the_edge()
    write("mmf", **{"7": past_the_edge(1), name: regions})
    pack("mmf", "--to", kind, "--output", "features")
    found = run_block(consumer)
    assert np.array_equal(found["features"], regions.features)
    assert np.allclose(found["boxes"], boxes(regions), rtol=1e-6, atol=0)


def with_sides(regions):
    """The corners, the width and the height as shares of the image's."""
    x1, y1, x2, y2 = regions.bbox.T
    corners = np.stack([x1, y1, x2, y2, x2 - x1, y2 - y1], axis=1)
    return corners / np.float32([WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT])


@pytest.mark.parametrize(("above", "taken"), [(20, 20), (5, 10), (36, 36)])
def test_uniter(pack, above, taken):
    confidence = np.where(np.arange(36) < above, 0.9, 0.1).astype(np.float32)
    regions = dataclasses.replace(past_the_edge(), objects_conf=confidence, num_boxes=36)
    write("mmf", name=regions)
    pack("mmf", "--to", "uniter", "--output", "features")
    found = run_block("UNITER")
    expected = regions.features[:taken]
    assert (found["features"].shape, found["boxes"].shape) == (expected.shape, (taken, 7))
    assert np.allclose(found["features"], expected, atol=1e-3)
    sides = with_sides(regions)[:taken]
    assert np.allclose(found["boxes"][:, :6], sides, atol=1e-3)
    assert np.allclose(found["boxes"][:, 6], sides[:, 4] * sides[:, 5], atol=2e-3)


def test_oscar(pack):
    regions = past_the_edge()
    names = [f"kind {i}" for i in range(regions.cls_prob.shape[1])]
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    Path("names.json").write_text(json.dumps({"categories": categories}))
    write("mmf", name=regions)
    pack("mmf", "--to", "oscar", "--output", "features", "--class-names", "names.json")
    found = run_block("Oscar")
    assert found["name"] == "name"
    assert np.array_equal(found["features"], regions.features)
    assert np.allclose(found["boxes"], with_sides(regions), rtol=1e-6, atol=1e-6)
    assert found["words"] == " ".join(names[i] for i in regions.objects)


def as_mmf_reads(base, path, rows):
    """MMF's feature readers: the features, filled up with zeros, and the rest."""
    if base.endswith(".lmdb"):
        with lmdb.open(base, readonly=True, lock=False) as store, store.begin() as transaction:
            keys = pickle.loads(transaction.get(b"keys"))
            number = path.removesuffix(".npy").split("_")[-1]
            key = str(int(number)).encode() if number.isdigit() else None
            item = pickle.loads(transaction.get(key if key in keys else path[:-4].encode()))
        features = item.pop("features")
    else:
        features = np.load(os.path.join(base, path))
        info = os.path.join(base, path.removesuffix(".npy") + "_info.npy")
        item = np.load(info, allow_pickle=True).item()
    filled = np.zeros((rows, features.shape[1]), np.float32)
    filled[: len(features)] = features[:rows]
    return filled, {**item, "max_features": len(features)}


@pytest.fixture
def images():
    return {f"COCO_train2014_{i:012}": support.some_regions(i) for i in (9, 25)}


@pytest.mark.parametrize("kind", ["mmf", "lmdb"])
def test_mmf(pack, images, kind):
    write("mmf", **images)
    pack("mmf", "--to", kind, "--output", "features")
    configuration, processors = map(yaml.safe_load, blocks("MMF", "yaml"))
    (config,) = configuration["dataset_config"].values()
    (processor,) = processors["processors"].values()
    assert config["use_features"]
    for (base,) in config["features"].values():
        base = os.path.relpath(base, "/data")
        base = base if kind == "lmdb" else os.path.dirname(base)
        for name, regions in images.items():
            features, info = as_mmf_reads(base, f"{name}.npy", config["max_features"])
            assert np.array_equal(features[:5], regions.features)
            assert not features[5:].any()
            assert info["max_features"] == 5
            keys = ("bbox_key", "image_width_key", "image_height_key")
            boxes, width, height = (info[processor["params"][key]] for key in keys)
            assert np.array_equal(boxes, regions.bbox)  # not filled up
            assert (width, height) == (WIDTH, HEIGHT)


def test_m4c(pack, images):
    words = support.some_regions(count=0)
    write("mmf0", **images, name=support.some_regions(2))
    write("mmf1", **dict.fromkeys(images, words))
    for source, output in (("mmf0", "objects"), ("mmf1", "ocr")):
        pack(source, "--to", "lmdb", "--output", output)
    (configuration,) = map(yaml.safe_load, blocks("M4C", "yaml"))
    (config,) = configuration["dataset_config"].values()
    for (paths,) in config["features"].values():
        objects, ocr = (os.path.relpath(path, "/data") for path in paths.split(","))
        for name, regions in images.items():
            rows = config["max_features"]
            features, _ = as_mmf_reads(objects, f"{name}.npy", rows)
            assert np.array_equal(features[:5], regions.features)
            features, info = as_mmf_reads(ocr, f"{name}.npy", rows)
            assert (features.shape, features.any(), info["max_features"]) == ((rows, 16), False, 0)
    found = run_block("M4C")["obj_normalized_boxes"]
    assert found.dtype == np.float32
    assert np.allclose(found, as_shares(support.some_regions(2)))


def test_links_by_number():
    Path("photos").mkdir()
    for i in (9, 25):
        Image.new("RGB", (8, 8)).save(f"photos/COCO_train2014_{i:012}.jpg")
    run_block("What many of them have in common")
    found = {Path(path).name: Path(path).resolve().name for path in list_images("by_id")}
    assert found == {f"{i}.jpg": f"COCO_train2014_{i:012}.jpg" for i in (9, 25)}


@pytest.fixture
def photographs():
    """A store of the photographs that the examples name."""
    images = {name: past_the_edge(seed) for seed, name in enumerate(("chelsea", "coffee"))}
    write("features", **images)
    return images


SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def hub():
    """Keeps a tokenizer or a small random model in a folder, by the name that the hub knows."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "animal", "in", "cup"]
    Path("vocabulary").write_text("\n".join(words))
    torch.manual_seed(0)
    import transformers  # which takes seconds

    def keep(name, kind=None):
        if kind is None:
            transformers.BertTokenizer("vocabulary").save_pretrained(name)
            return
        configuration = getattr(transformers, f"{kind}Config")
        model = getattr(transformers, f"{kind}Model")
        layers = {"num_hidden_layers": 1, "l_layers": 1, "x_layers": 1, "r_layers": 1}
        sizes = {"vocab_size": len(words), "visual_embedding_dim": 2048, "visual_feat_dim": 2048}
        model(configuration(**SMALL, **layers, **sizes)).save_pretrained(name)

    return keep


@pytest.mark.slow
def test_visual_bert(hub, photographs):
    hub("google-bert/bert-base-uncased")
    hub("uclanlp/visualbert-vqa-coco-pre", "VisualBert")
    found = run_block("Hugging Face's VisualBERT")
    state = found["output"].last_hidden_state
    assert state.shape == (2, 8 + 36, 16)
    assert state.isfinite().all()
    for row, regions in zip(found["features"], photographs.values(), strict=True):
        assert np.array_equal(row, regions.features)


@pytest.mark.slow
def test_lxmert_of_hugging_face(hub, photographs):
    hub("unc-nlp/lxmert-base-uncased")
    hub("unc-nlp/lxmert-base-uncased", "Lxmert")
    found = run_block("Hugging Face's LXMERT")
    assert found["output"].vision_output.shape == (2, 36, 16)
    assert found["output"].language_output.isfinite().all()
    for row, regions in zip(found["boxes"], photographs.values(), strict=True):
        assert np.allclose(row, as_shares(regions))
