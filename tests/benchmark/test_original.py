"""The original's loop, emulated, gives what the extraction gives."""

import naive
import numpy as np
import pytest
import support
import torch
from benchmarked import strips
from benchmarking import original
from benchmarking.original import LAYERS, as_the_original, confidences, original_stages
from benchmarking.stages import STAGES
from hypothesis import given, settings
from hypothesis import strategies as st
from support import assert_same_regions

from vmb_d2.data.preprocessing import load
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.selection.options import RegionOptions
from vmb_d2.stores.mmf import MMFReader
from vmb_d2.structures.input_image import InputImage

pytestmark = pytest.mark.slow


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100)
def test_confidences_equal_the_naive_loop(seed):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 20, (12, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 20, (12, 2))], axis=1)
    boxes = boxes.astype(float).tolist()
    scores = (rng.integers(0, 5, (12, 3)) / 4).tolist()
    for threshold in (0.0, 0.25, 0.5):
        result, _ = confidences(torch.tensor(boxes), torch.tensor(scores), threshold)
        assert result.tolist() == naive.confidences(boxes, scores, threshold)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        *((model, {}) for model in support.TINY_MODELS),
        (support.TINY_FPN, {"num_features": 7, "background": True}),
        (
            support.TINY_FPN,
            {"num_features": 1000, "confidence_threshold": 0.12},
        ),  # the rest fills up
    ],
    ids=str,
)
def test_the_same_regions_as_ours(tmp_path, model, options):
    extractor = RegionFeatureExtractor(support.tiny_model(model), RegionOptions(**options))
    counted = 0
    for image in strips(tmp_path, 2):
        loaded = [load(image.path)]
        found = extractor.network(extractor.to_network(loaded, loaded[0].padded_size))
        (expected,) = extractor.read_out(found, loaded)
        (result,) = original.mmf_read_out(extractor, found, loaded)
        assert_same_regions(result, expected, but=["confidence"])
        counted += expected.num_boxes
        if "confidence_threshold" in options:
            assert expected.num_boxes < len(expected)
    assert counted > 0


def test_the_same_regions_as_ours_of_vinvl(tmp_path):
    """With attributes of res5's second pass, which ours leaves out."""
    extractor = RegionFeatureExtractor(
        support.tiny_model("tiny_vinvl"), None, support.description("tiny_vinvl")
    )
    for image in strips(tmp_path, 2):
        loaded = [load(image.path, extractor.input_step)]
        found = extractor.network(extractor.to_network(loaded, loaded[0].padded_size))
        (expected,) = extractor.read_out(found, loaded)
        (result,) = original.vinvl_read_out(extractor, found, loaded)
        for name in ("features", "bbox", "num_boxes", "objects", "objects_conf", "attrs_id"):
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
        np.testing.assert_allclose(result.attrs_conf, expected.attrs_conf, rtol=1e-4)
        assert len(expected) > 1


def test_layers_are_the_originals_for_as_long(tmp_path):
    extractor = RegionFeatureExtractor(support.tiny_model(support.TINY_FPN), layer_by_layer=True)
    ours = [type(module) for module in extractor.model.modules()]
    image = load(strips(tmp_path)[0].path)
    batch = extractor.to_network([image], image.padded_size)
    (expected,) = extractor.network(batch).regions
    with pytest.raises(ZeroDivisionError), as_the_original(extractor.model):
        changed = [type(module) for module in extractor.model.modules()]
        assert changed == [LAYERS.get(own, own) for own in ours]
        assert set(LAYERS.values()) <= set(changed)
        (found,) = extractor.network(batch).regions
        raise ZeroDivisionError
    assert [type(module) for module in extractor.model.modules()] == ours
    for name in (*extractor.feature_names, "class_logits"):
        assert not torch.equal(found.get(name), expected.get(name)), name
        torch.testing.assert_close(found.get(name), expected.get(name), rtol=1e-4, atol=1e-4)


def test_the_files_are_mmfs(tmp_path):
    images = [InputImage("a.png", "a"), InputImage("b.png", "b")]
    written = [support.some_regions(seed) for seed in range(2)]
    original.write(tmp_path, images, written)
    for image, expected in zip(images, written, strict=True):
        assert_same_regions(MMFReader(tmp_path).read(image.name), expected)
    info = np.load(tmp_path / "a_info.npy", allow_pickle=True).item()
    assert set(info) == {
        "bbox", "num_boxes", "objects", "cls_prob", "image_width", "image_height",
    }  # fmt: skip


def test_the_loop(tmp_path):
    extractor = RegionFeatureExtractor(support.tiny_model(support.TINY_FPN))
    seconds = original_stages(extractor, strips(tmp_path))
    assert tuple(seconds) == STAGES
    assert min(seconds.values()) > 0
