"""RPN post-processing against a naive loop, on random levels and on cases with ties."""

import naive
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes

from vmb_d2.config import VMBModel, to_detectron2
from vmb_d2.modeling import VMBRPN, ConventionBox2BoxTransform
from vmb_d2.modeling.rpn import Limits
from vmb_d2.structures import batched_nms, box_geometry
from vmb_d2.structures.box_geometry import VMB

SIZE = (64, 96)


def make_rpn(pre_nms=30, per_level=12, over_all=20, threshold=0.7, min_size=0.0, small_boxes="vmb"):
    return VMBRPN(
        in_features=[],
        head=torch.nn.Identity(),
        anchor_generator=torch.nn.Identity(),
        anchor_matcher=None,
        box2box_transform=ConventionBox2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=1,
        positive_fraction=0.5,
        pre_nms_topk=(0, pre_nms),
        post_nms_topk=(0, over_all),
        post_nms_topk_per_level=per_level,
        nms_thresh=threshold,
        min_box_size=min_size,
        convention=VMB,
        clips_to_padded=True,
        ranks_by_logits=False,
        small_boxes=small_boxes,
    ).eval()


def random_levels(counts, images=2, seed=0):
    """Anchors, logits and deltas of each level; some boxes reach out of the image."""
    rng = np.random.default_rng(seed)
    levels = []
    for count in counts:
        corners = rng.integers(-20, 90, (count, 2))
        anchors = np.concatenate([corners, corners + rng.integers(0, 40, (count, 2))], axis=1)
        logits = rng.normal(0, 2, (images, count))
        deltas = rng.normal(0, 0.4, (images, count, 4))
        levels.append([torch.tensor(a, dtype=torch.float32) for a in (anchors, logits, deltas)])
    return levels


def propose(rpn, levels, size=SIZE):
    anchors, logits, deltas = zip(*levels, strict=True)
    limits = [Limits(size, rpn.min_box_size)] * len(logits[0])
    return rpn.predict_proposals([Boxes(a) for a in anchors], list(logits), list(deltas), limits)


@pytest.mark.parametrize("counts", [(80,), (80, 40, 15, 1)])
@pytest.mark.parametrize("options", [{}, {"threshold": 0.3}, {"min_size": 12.0}])
def test_equals_the_naive_loop(counts, options):
    levels = random_levels(counts)
    results = propose(make_rpn(**options), levels)
    for image, result in enumerate(results):
        expected = naive.propose(
            [
                list(zip(a.tolist(), x[image].tolist(), d[image].tolist(), strict=True))
                for a, x, d in levels
            ],
            SIZE,
            pre_nms=30,
            per_level=12,
            over_all=20,
            threshold=options.get("threshold", 0.7),
            min_size=options.get("min_size", 0),
        )
        boxes = result.proposal_boxes.tensor.numpy()
        np.testing.assert_allclose(boxes, [b for b, _ in expected], atol=1e-3)
        np.testing.assert_allclose(result.objectness.numpy(), [s for _, s in expected], rtol=1e-5)
        assert torch.equal(result.objectness, result.objectness_logits.sigmoid())


@pytest.mark.parametrize("small_boxes", ["vmb", "detectron2", "caffe"])
@pytest.mark.parametrize("at_once", [False, True])
def test_each_image_of_a_batch_gets_what_it_gets_alone(small_boxes, at_once, monkeypatch):
    """Within its own limits, with NMS as on the CPU and as on a GPU."""
    levels = random_levels((80, 40, 15, 1), images=3)
    limits = [Limits((64, 96), 5.0), Limits((50, 40), 12.0), Limits((64, 30), 0.0)]
    rpn = make_rpn(small_boxes=small_boxes)
    anchors, logits, deltas = zip(*levels, strict=True)
    anchors = [Boxes(a) for a in anchors]
    alone = [
        rpn.predict_proposals(
            anchors, [x[i : i + 1] for x in logits], [d[i : i + 1] for d in deltas], [limits[i]]
        )[0]
        for i in range(3)
    ]
    if at_once:
        monkeypatch.setattr(box_geometry, "kept_in_turn", batched_nms.kept_at_once)
    together = rpn.predict_proposals(anchors, list(logits), list(deltas), limits)
    assert len({len(found) for found in together}) > 1
    for found, expected in zip(together, alone, strict=True):
        assert found.image_size == expected.image_size
        assert torch.equal(found.proposal_boxes.tensor, expected.proposal_boxes.tensor)
        assert torch.equal(found.objectness, expected.objectness)
        assert torch.equal(found.objectness_logits, expected.objectness_logits)


def test_what_is_not_finite_makes_the_objectness_of_its_image_unknown():
    levels = random_levels((80, 40), images=2)
    levels[0][2][1, 7] = torch.nan
    levels[0][1][1, 7] = 10.0  # among the candidates
    first, second = propose(make_rpn(), levels)
    assert first.objectness.isfinite().all()
    assert len(second) and second.objectness.isnan().all()
    assert second.proposal_boxes.tensor.isfinite().all()


def test_equal_objectness_keeps_the_order_of_anchors():
    """Logits that differ, but not as float32 sigmoids, are a tie in the original."""
    anchors = torch.tensor([[i * 9.0, 0.0, i * 9.0 + 5, 5.0] for i in range(6)])
    logits = torch.tensor([[30.0, 31.0, 30.0, 40.0, 2.0, 30.0]])
    (result,) = propose(make_rpn(pre_nms=5), [[anchors, logits, torch.zeros(1, 6, 4)]])
    assert result.proposal_boxes.tensor[:, 0].tolist() == [0, 9, 18, 27, 45]


def test_without_several_levels_the_limit_over_all_has_no_effect():
    level = random_levels((80,), images=1)
    assert len(propose(make_rpn(per_level=12, over_all=3, threshold=0.9), level)[0]) == 12


def test_boxes_outside_shrink_to_a_pixel_at_the_border_and_stay():
    anchors = torch.tensor([[-50.0, -50.0, -30.0, -30.0], [200.0, 10.0, 220.0, 20.0]])
    level = [anchors, torch.tensor([[1.0, 0.5]]), torch.zeros(1, 2, 4)]
    (result,) = propose(make_rpn(), [level])
    assert result.proposal_boxes.tensor.tolist() == [[0, 0, 0, 0], [95, 10, 95, 20]]


def test_numbers_come_from_the_config():
    cfg = to_detectron2(
        VMBModel(
            fpn=True,
            anchor_strides=(4, 8, 16, 32, 64),
            pooler_scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32),
            rpn_pre_nms_top_n=7,
            rpn_post_nms_top_n=5,
            rpn_fpn_post_nms_top_n=3,
            rpn_nms_threshold=0.6,
            rpn_min_size=2.0,
        )
    )
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        rpn = build_model(cfg).proposal_generator
    assert rpn.pre_nms_topk[False] == 7
    assert rpn.post_nms_topk_per_level == 5
    assert rpn.post_nms_topk[False] == 3
    assert (rpn.nms_thresh, rpn.min_box_size) == (0.6, 2.0)
