"""Values of the network that aren't finite: a failure of the image, and nothing of it is stored."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import support
import torch
from fakes import FakeExtractor, small_images
from jobs import failures, manifest, run

from vmb_d2.data.given_boxes import GivenBoxes
from vmb_d2.data.image_list import list_images, name_images
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.selection.options import RegionOptions

pytestmark = pytest.mark.slow

IN_THE_CHOICE = "the proposals' boxes or scores are not finite"


class Spoiling(FakeExtractor):
    """Spoils a value of a field of the second image of all."""

    def __init__(self, field, value, **options):
        super().__init__(**options)
        self.field, self.value, self.count = field, value, 0

    def _regions(self, image):
        regions = super()._regions(image)
        self.count += 1
        if self.count != 2:
            return regions
        if self.field == "further":
            further = {n: values.copy() for n, values in regions.further.items()}
            further["fc7"][0, :3] = self.value
            return dataclasses.replace(regions, further=further)
        values = getattr(regions, self.field).copy()
        values[0, :3] = self.value
        return dataclasses.replace(regions, **{self.field: values})


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("features", math.nan),
        ("features", math.inf),
        ("bbox", math.nan),
        ("cls_prob", math.nan),
        ("further", -math.inf),
    ],
)
def test_one_of_a_batch_fails_and_the_others_are_stored(tmp_path, images, field, value):
    features = ["fc6", "fc7"] if field == "further" else []
    extractor = Spoiling(field, value, feature_names=features)
    report = run(tmp_path / "out", images, extractor, batch_size=4, formats=["npz", "lmdb"])
    assert (report.extracted, report.failed) == (3, 1)
    (failure,) = failures(tmp_path / "out")
    size = {"bbox": 20, "cls_prob": 45}.get(field, 80)
    what = field.replace("further", "fc7")
    assert failure == {
        "path": images[1].path,
        "name": "image_001",
        "reason": f"{what}: 3 of {size} values are not finite",
        "stage": "network",
    }
    assert manifest(tmp_path / "out")["counts"] == {"images": 4, "done": 3, "failed": 1}


def test_float16_of_the_network_is_named(tmp_path, images):
    extractor = Spoiling("features", math.inf)
    extractor.precision = "fp16"
    run(tmp_path / "out", images, extractor)
    (failure,) = failures(tmp_path / "out")
    assert failure["reason"].endswith("finite (fp16 overflows at 65504; precision=fp32 may do)")


@pytest.mark.parametrize("field", ["features", "further"])
def test_features_beyond_the_float16_that_is_stored(tmp_path, images, field):
    features = ["fc6", "fc7"] if field == "further" else []
    extractor = Spoiling(field, 70000, feature_names=features)
    run(tmp_path / "out", images, extractor, dtype="float16", formats=["npz"])
    (failure,) = failures(tmp_path / "out")
    assert "3 of 80 values are beyond float16's 65504" in failure["reason"]
    extractor = Spoiling(field, 70000, feature_names=features)
    assert run(tmp_path / "other", images, extractor, formats=["npz"]).failed == 0


def test_features_beyond_float16_in_formats_with_one_dtype(tmp_path, images):
    values = {"dtype": "float16", "formats": ["lxmert_tsv", "butd_tsv"]}
    assert run(tmp_path / "tsv", images, Spoiling("features", 70000), **values).failed == 0
    assert run(tmp_path / "half", images, Spoiling("features", 70000), formats=["uniter"]).failed


# Of each: the parameter that has a NaN, what is given as the reason, and with given boxes.
BROKEN = {
    "tiny_x152_fpn": [
        ("backbone.bottom_up.stem.conv1.weight", IN_THE_CHOICE, "features: "),
        ("backbone.fpn_output2.weight", IN_THE_CHOICE, "features: "),
        ("proposal_generator.rpn_head.conv.weight", IN_THE_CHOICE, None),
        ("proposal_generator.rpn_head.objectness_logits.weight", IN_THE_CHOICE, None),
        ("proposal_generator.rpn_head.anchor_deltas.weight", IN_THE_CHOICE, None),
        ("roi_heads.box_head.fc1.weight", "features: ", "features: "),
        ("roi_heads.box_predictor.cls_score.weight", "cls_prob: ", "cls_prob: "),
    ],
    "tiny_r101_c4": [
        ("backbone.stem.conv1.weight", IN_THE_CHOICE, "features: "),
        ("roi_heads.res5.0.conv1.weight", "features: ", "features: "),
        ("roi_heads.box_predictor.cls_score.weight", "cls_prob: ", "cls_prob: "),
    ],
}


@pytest.mark.parametrize(
    ("model", "parameter", "reason", "given", "least"),
    [(model, *case, None) for model, cases in BROKEN.items() for case in cases]
    + [(model, *cases[-1], 0) for model, cases in BROKEN.items()],
)
def test_a_network_with_a_nan(tmp_path, model, parameter, reason, given, least):
    """One value of one weight; it never ends the run, and nothing is stored."""
    network = copy.deepcopy(support.tiny_model(model))
    with torch.no_grad():
        network.get_parameter(parameter).view(-1)[0] = math.nan
    images = name_images(list_images(support.links(tmp_path / "in", "coffee.png")))
    extractor = RegionFeatureExtractor(network, RegionOptions(min_features=least))
    report = run(tmp_path / "out", images, extractor, formats=["npz"])
    assert (report.extracted, report.failed) == (0, 1)
    (failure,) = failures(tmp_path / "out")
    assert failure["stage"] == "network"
    # An adaptive number of regions without a score is none at all.
    assert failure["reason"].startswith(IN_THE_CHOICE if least == 0 else reason)
    if least is None:
        boxes = GivenBoxes([("coffee", np.array([[5.0, 5, 90, 99], [3, 3, 9, 9]]))])
        run(tmp_path / "boxes", images, extractor, formats=["npz"], boxes=boxes)
        found = failures(tmp_path / "boxes")
        assert [f["reason"].startswith(given) for f in found] == ([True] if given else [])
    assert not list((tmp_path / "out").glob("*.npz"))
