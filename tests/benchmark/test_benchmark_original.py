"""The original's loop, emulated, gives what the extraction gives."""

import naive
import numpy as np
import pytest
import support
import torch
from benchmarked import strips
from benchmarking.original import (
    OriginalLoop,
    OriginalReadOut,
    OriginalWrite,
    confidences,
    torchvisions_pooling,
)
from detectron2.layers import ROIAlign
from hypothesis import given, settings
from hypothesis import strategies as st
from support import assert_same_regions

from vmb_d2.data.preprocessing import load
from vmb_d2.errors import ImageReadError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling.poolers import BagROIAlign
from vmb_d2.selection.options import RegionOptions
from vmb_d2.stores.mmf import MMFReader
from vmb_d2.structures.input_image import InputImage


@given(naive.regions(), st.sampled_from([0.0, 0.25, 0.5]))
@settings(max_examples=100)
def test_confidences_equal_the_naive_loop(example, threshold):
    boxes, scores = example
    result = confidences(torch.tensor(boxes), torch.tensor(scores), threshold)
    assert result.tolist() == naive.confidences(boxes, scores, threshold)


@pytest.mark.parametrize("model", support.TINY_MODELS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_features": 7, "background": True},
        {"num_features": 1000, "confidence_threshold": 0.12},  # the rest fills up
    ],
    ids=str,
)
def test_the_same_regions_as_ours(tmp_path, model, options):
    extractor = RegionFeatureExtractor(support.tiny_model(model), RegionOptions(**options))
    read_out = OriginalReadOut(extractor.feature_names[0], extractor.options)
    counted = 0
    for image in strips(tmp_path):
        loaded = [load(image.path)]
        found = extractor.network(extractor.to_network(loaded, loaded[0].padded_size))
        (expected,) = extractor.read_out(found, loaded)
        (result,) = read_out(found, loaded)
        assert_same_regions(result, expected, but=["confidence"])
        assert expected.bbox.max() > 100
        counted += expected.num_boxes
        if "confidence_threshold" in options:
            assert expected.num_boxes < len(expected)
    assert counted > 0


def pooling_of(model):
    return {type(module) for module in model.modules() if isinstance(module, ROIAlign)}


@pytest.mark.parametrize("model", [support.TINY_FPN, "tiny_r101_c4"])
def test_pooling_is_torchvisions_for_as_long(tmp_path, model):
    extractor = RegionFeatureExtractor(support.tiny_model(model))
    image = load(strips(tmp_path)[0].path)
    batch = extractor.to_network([image], image.padded_size)
    (expected,) = extractor.network(batch)
    with torchvisions_pooling(extractor.model):
        assert pooling_of(extractor.model) == {ROIAlign}
        (found,) = extractor.network(batch)
    assert pooling_of(extractor.model) == {BagROIAlign}
    for name in (*extractor.feature_names, "class_logits"):
        assert not torch.equal(found.get(name), expected.get(name)), name
        torch.testing.assert_close(found.get(name), expected.get(name), rtol=1e-4, atol=1e-4)
    with pytest.raises(ZeroDivisionError), torchvisions_pooling(extractor.model):
        raise ZeroDivisionError
    assert pooling_of(extractor.model) == {BagROIAlign}


def test_the_files_are_mmfs(tmp_path):
    images = [InputImage("a.png", "a"), InputImage("b.png", "b")]
    written = [support.some_regions(seed) for seed in range(2)]
    OriginalWrite(tmp_path)(images, written)
    for image, expected in zip(images, written, strict=True):
        assert_same_regions(MMFReader(tmp_path).read(image.name), expected)
    info = np.load(tmp_path / "a_info.npy", allow_pickle=True).item()
    assert set(info) == {
        "bbox", "num_boxes", "objects", "cls_prob", "image_width", "image_height",
    }  # fmt: skip


def test_the_figures_are_an_images(tmp_path, monkeypatch):
    images = strips(tmp_path / "in")
    (tmp_path / "work").mkdir()
    extractor = RegionFeatureExtractor(support.tiny_model(support.TINY_FPN))
    batches = []
    network = extractor.network

    def watched(batch):
        assert pooling_of(extractor.model) == {ROIAlign}
        batches.append(len(batch))
        return network(batch)

    monkeypatch.setattr(extractor, "network", watched)
    loop = OriginalLoop(extractor, images, tmp_path / "work")
    loop.warm_up()
    for _ in range(2):
        loop.measure()
    assert batches == [1] * 9
    assert list((tmp_path / "work").iterdir()) == []
    loop._stages = [dict.fromkeys(laps, 3.0 * n) for n, laps in enumerate(loop._stages, 1)]
    figures = loop.as_dict()
    assert figures["stages"]["rpn"]["seconds"] == {
        "median": 1.5, "least": 1.0, "most": 2.0, "repeats": 2,
    }  # fmt: skip
    assert figures["seconds"]["median"] == 12
    assert figures["images_per_second"] == 1 / 12


def test_an_image_that_cant_be_read(tmp_path):
    extractor = RegionFeatureExtractor(support.tiny_model(support.TINY_FPN))
    loop = OriginalLoop(extractor, [InputImage(str(tmp_path / "no.png"), "no")], tmp_path)
    with pytest.raises(ImageReadError, match=r"no\.png"):
        loop.measure()
