"""A converted model is an ordinary Detectron2 detector."""

import cv2
import naive
import numpy as np
import pytest
import support
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.utils.visualizer import Visualizer

from reference import goldens
from vmb_d2 import get_cfg
from weights_conversion.convert import convert_checkpoint


@pytest.fixture(
    scope="module",
    params=["tiny_x152_fpn", pytest.param("tiny_x152_c4", marks=pytest.mark.slow)],
)
def cfg(request, tmp_path_factory):
    """The config of a tiny model whose weights are converted."""
    name = request.param
    weights = tmp_path_factory.mktemp("detector") / f"{name}.pth"
    convert_checkpoint(support.vmb_checkpoint(name), weights, support.description(name))
    cfg = get_cfg(support.yaml_path(name))
    cfg.MODEL.WEIGHTS = str(weights)
    return cfg


@pytest.fixture(scope="module")
def model(cfg):
    model = build_model(cfg)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model.eval()


def read_bgr(name="coffee.png"):
    return cv2.imread(str(goldens.image_path(name)))


def as_input(bgr):
    return {"image": torch.as_tensor(bgr.astype("float32").transpose(2, 0, 1))}


@torch.no_grad()
def test_detections_equal_the_naive_loop(model):
    """Per-class boxes decoded from the proposals, clipped, and suppressed within each class."""
    image = as_input(read_bgr())
    image["height"], image["width"] = 200, 300  # half of what goes in
    (result,) = model([image])
    found = result["instances"]
    assert found.image_size == (200, 300)

    images = model.preprocess_image([image])
    (regions,) = model.regions(images, [model.feature_names[-1]]).regions
    features = regions.get(model.feature_names[-1])
    deltas = model.roi_heads.box_predictor.bbox_pred(features).view(len(regions), -1, 4)
    scores = regions.class_logits.softmax(dim=1)[:, :-1]
    expected = []
    for c in range(scores.shape[1]):
        rows = (scores[:, c] > 0.05).nonzero().flatten().tolist()
        boxes = [
            naive.clip(
                naive.decode(
                    deltas[i, c].tolist(),
                    regions.proposal_boxes.tensor[i].tolist(),
                    (10, 10, 5, 5),
                ),
                images.image_sizes[0],
            )
            for i in rows
        ]
        values = scores[rows, c].tolist()
        expected += [(values[i], c, boxes[i]) for i in naive.nms(boxes, values, 0.5)]
    expected = sorted(expected, key=lambda e: -e[0])[:100]
    assert len(found) == len(expected) > 10
    np.testing.assert_allclose(found.scores.numpy(), [s for s, _, _ in expected], rtol=1e-5)
    assert found.pred_classes.tolist() == [c for _, c, _ in expected]
    # Inclusive to exclusive, then to the size asked for: detectron2's convention.
    exclusive = np.array([[x1, y1, x2 + 1, y2 + 1] for _, _, (x1, y1, x2, y2) in expected])
    np.testing.assert_allclose(found.pred_boxes.tensor.numpy(), exclusive / 2, atol=2e-3)


def test_predictor_and_visualiser(cfg):
    image = read_bgr()
    instances = DefaultPredictor(cfg)(image)["instances"].to("cpu")
    assert len(instances) > 10
    assert instances.image_size == image.shape[:2]
    drawing = Visualizer(image[:, :, ::-1]).draw_instance_predictions(instances).get_image()
    assert drawing.shape == image.shape
    assert not np.array_equal(drawing, image[:, :, ::-1])


def test_training_is_refused(model):
    model.train()
    try:
        with pytest.raises(NotImplementedError, match=r"call model\.eval"):
            model([as_input(read_bgr())])
    finally:
        model.eval()
