"""The choice of regions against the original's loop over classes, and its options."""

import dataclasses

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vmb_d2.config.read_out import MMF_READ_OUT, READ_OUTS
from vmb_d2.errors import ConfigError
from vmb_d2.selection.choice import Candidates, choose
from vmb_d2.selection.options import RegionOptions
from vmb_d2.structures import box_geometry


def select(boxes, scores, num_features, threshold=0.0):
    """The choice of the read-out ``mmf`` in a batch, by boxes in original pixels."""
    options = RegionOptions(num_features=num_features, confidence_threshold=threshold)
    images = [Candidates(*own, 1.0) for own in zip(boxes, scores, strict=True)]
    return choose(images, options.rule(MMF_READ_OUT))


def check(selection, confidence, num_features):
    """The selection against the confidences of all regions."""
    expected = sorted(range(len(confidence)), key=lambda i: -confidence[i])[:num_features]
    assert selection.indices.tolist() == expected
    assert selection.confidences.tolist() == [confidence[i] for i in expected]
    assert selection.num_boxes == sum(confidence[i] > 0 for i in expected)


@given(naive.regions(), st.integers(1, 20), st.sampled_from([0.0, 0.25, 0.5]))
@settings(max_examples=200)
def test_selection_equals_the_naive_loop(example, num_features, threshold):
    boxes, scores = map(torch.tensor, example)
    check_against_loop(boxes, scores, num_features, threshold)


def random_boxes(rng, count, width, sides):
    corners = rng.integers(0, width, (count, 2))
    return np.concatenate([corners, corners + rng.integers(*sides, (count, 2))], axis=1) / 1.0


@given(
    st.integers(0, 2**32),
    st.sampled_from([8, 30, 150]),
    st.sampled_from([2, 5, 1000]),
    st.sampled_from([1, 3, 10, 30]),
)
@settings(max_examples=40)
def test_selection_of_some_more_regions(seed, width, values, num_features):
    """From crowded to loose, from many ties to none, from one step to all of them."""
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 40, width, (10, 20))
    scores = (rng.integers(0, values, (40, 11)) / 1024).tolist()
    check_against_loop(torch.tensor(boxes).float(), torch.tensor(scores), num_features)


REGIONS, CLASSES = 1000, 1600


def peaked(logits):
    logits[np.arange(REGIONS), np.arange(REGIONS) % 37] += 12
    return logits


def one_class_leads(logits):
    logits[:, 7] += 12
    return logits


def one_region_leads(logits):
    logits[REGIONS // 2] += np.where(np.arange(CLASSES + 1) < CLASSES, 5, 0)
    return logits / 1000


# How logits, which are normally distributed at first, become those of a kind of model. The last
# one is the background's.
DISTRIBUTIONS = {
    "flat": lambda logits: logits / 1000,
    "flat, the background varies": lambda logits: logits * ([1e-3] * CLASSES + [2]),
    "peaked": peaked,
    "one class leads": one_class_leads,
    "one region leads": one_region_leads,
    "equal": lambda logits: logits * 0,
}


@pytest.mark.slow
@pytest.mark.parametrize("sides", [(20, 200), (600, 700)], ids=["loose", "all overlap"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_selection_at_the_size_of_a_model(distribution, sides):
    rng = np.random.default_rng(0)
    boxes = torch.tensor(random_boxes(rng, REGIONS, 1000 if sides[0] < 100 else 60, sides)).float()
    logits = DISTRIBUTIONS[distribution](rng.standard_normal((REGIONS, CLASSES + 1)))
    scores = torch.tensor(logits, dtype=torch.float32).softmax(dim=1)[:, :CLASSES]
    overlapping = box_geometry.VMB.overlapping(boxes, 0.5)
    assert overlapping.all(dim=1).sum() == 0
    assert (overlapping.sum() == REGIONS * (REGIONS - 1)) == (sides[0] > 100)
    confidence = naive.confidences_of_many(overlapping.tolist(), scores.tolist(), 0.0)
    check(select([boxes], [scores], 100)[0], confidence, 100)


def check_against_loop(boxes, scores, num_features, threshold=0.0):
    (found,) = select([boxes], [scores], num_features, threshold)
    check(found, naive.confidences(boxes.tolist(), scores.tolist(), threshold), num_features)


APART = torch.arange(40.0)[:, None] * 20 + torch.tensor([0.0, 0.0, 9.0, 9.0])
FALLING = torch.linspace(0.9, 0.1, 40)[:, None]


@pytest.mark.parametrize("in_one_place", [0, 3, 20, 40])
@pytest.mark.parametrize("num_features", [2, 4, 6, 25])
@pytest.mark.parametrize("threshold", [0.0, 0.49])
def test_many_regions_that_are_suppressed(in_one_place, num_features, threshold):
    """Then the scores of more regions have to be taken than there are regions to keep."""
    boxes = APART.clone()
    boxes[:in_one_place] = boxes[0]
    check_against_loop(boxes, FALLING, num_features, threshold)


def test_a_region_that_is_confident_by_a_low_score():
    """Region 2 is confident by a score below the best of all regions."""
    in_one_place = torch.tensor([[0.0, 0.0, 9.0, 9.0]] * 4)
    scores = torch.tensor([[0.9, 0.05], [0.8, 0.05], [0.7, 0.1], [0.6, 0.05]])
    check_against_loop(in_one_place, scores, 2)


@pytest.mark.parametrize("boxes", [APART, APART[torch.arange(40) // 2]], ids=["apart", "pairs"])
def test_equal_scores(boxes):
    check_against_loop(boxes, torch.full((40, 3), 0.25), 5)


def test_ties_with_regions_that_are_left_out():
    """Region 3 is among the first, and so would be its tie with region 2, which isn't."""
    x = torch.tensor([0.0, 0.0, 6.0, 3.0, 0.0])  # 2 overlaps 3 alone, the others overlap 3
    boxes = torch.stack([x, x * 0, x + 9, x * 0 + 9], dim=1)
    scores = [[0.9, 0.0, 0.6], [0.0, 0.0, 0.5], [0.0, 0.5, 0.0], [0.8, 0.5, 0.0], [0.7, 0.0, 0.0]]
    check_against_loop(boxes, torch.tensor(scores), 2)


def test_as_many_regions_as_are_taken_at_first_beside_an_image_with_more():
    """All scores of the four regions count: the last one is confident by its lowest."""
    few = torch.tensor([[0.0, 0.0, 9.0, 9.0]] * 4)
    scores = torch.tensor([[0.9, 0.05], [0.8, 0.05], [0.7, 0.05], [0.6, 0.1]])
    found = select([few, APART], [scores, FALLING.expand(-1, 2)], 2)
    assert found[0].indices.tolist() == [0, 3]


def test_scores_that_are_no_numbers_are_nobodys_confidence():
    """Neither is the region that they are of confident, nor do they touch any other."""
    boxes, scores = APART[:12], FALLING[:12]
    broken = scores.clone()
    broken[[2, 5]] = torch.nan
    first, second = select([boxes, boxes], [broken, scores], 3)
    assert first.indices.tolist() == [0, 1, 3]
    assert second.indices.tolist() == [0, 1, 2]
    (nothing,) = select([boxes], [torch.full_like(scores, torch.nan)], 3)
    assert (nothing.indices.tolist(), nothing.num_boxes) == ([0, 1, 2], 0)


def test_bounds_of_an_adaptive_number():
    def bounds(**options):
        rule = RegionOptions(**options).rule(MMF_READ_OUT)
        return rule.name, rule.least, rule.most

    assert bounds() == ("mmf", 100, 100)
    assert bounds(num_features=7) == ("mmf", 7, 7)
    assert bounds(max_features=50) == ("adaptive", 10, 50)
    assert bounds(min_features=3) == ("adaptive", 3, 100)
    assert bounds(num_features=7, max_features=50) == ("adaptive", 10, 50)
    assert bounds(read_out="vinvl") == ("vinvl", 10, 100)
    assert bounds(read_out="frcnn_vg", num_features=50) == ("frcnn_vg", 50, 50)


def test_the_models_own_read_out_has_its_own_numbers():
    own = dataclasses.replace(READ_OUTS["frcnn_vg"], least=10, most=100)
    assert RegionOptions().rule(own) == own
    assert RegionOptions(read_out="frcnn_vg").rule(own) == own
    assert RegionOptions(read_out="bua").rule(own) == READ_OUTS["bua"]
    assert RegionOptions(confidence_threshold=0.4).rule(own).threshold == 0.4


def test_the_background_takes_part_in_mmfs_read_outs_only():
    RegionOptions(background=True, min_features=5).rule(MMF_READ_OUT)
    with pytest.raises(ConfigError, match=r"background=true: can't take part in read_out=bua"):
        RegionOptions(background=True).rule(READ_OUTS["bua"])


@pytest.mark.parametrize(
    "options",
    [
        {"num_features": 0},
        {"read_out": "none"},
        {"confidence_threshold": 1.0},
        {"confidence_threshold": -0.1},
        {"min_features": -1},
        {"max_features": 0, "min_features": 0},
        {"max_features": 9},
        {"min_features": 101},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        RegionOptions(**options)


def test_options_choose_features():
    valid = ("fc6", "fc7")
    assert RegionOptions().choose_features(valid) == ("fc6",)
    assert RegionOptions(["fc7", "fc6", "fc7"]).choose_features(valid) == ("fc7", "fc6")
    with pytest.raises(ConfigError, match=r"^feature_name=fc8: this model has fc6, fc7"):
        RegionOptions(["fc6", "fc8"]).choose_features(valid)
