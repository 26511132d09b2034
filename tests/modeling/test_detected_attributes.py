"""The attributes in the detector form, of the models that predict them."""

import dataclasses

import naive
import numpy as np
import pytest
import support
import torch
from detectron2.engine import DefaultPredictor

from reference import goldens
from vmb_d2 import get_cfg
from vmb_d2.config import to_detectron2
from vmb_d2.data import preprocessing
from vmb_d2.modeling import VMBRCNN
from weights_conversion.convert import convert_checkpoint

MOST = 16


def network_input(description, name="coffee.png"):
    """The image as the model's input step resizes it, as Detectron2's detectors take it."""
    image = preprocessing.load(goldens.image_path(name), description.input)
    mean = torch.tensor(description.input.mean)[:, None, None]
    return {"image": image.tensor + mean, "width": image.width, "height": image.height}


def detections(model, image):
    """In network pixels."""
    with torch.no_grad():
        return model.inference([image], do_postprocess=False)[0]


def test_vinvls_golden():
    """Attributes of the regressed boxes, which the original pools again.

    The golden's read-out is Detectron2's with a threshold of 0.2.
    """
    name = "tiny_vinvl"
    ((path, _, _),) = goldens.find(rf"{name}\.seed0\.filter0\.coffee")
    golden = np.load(path)
    description = dataclasses.replace(support.description(name), score_threshold=0.2)
    model = VMBRCNN(to_detectron2(description)).eval()
    model.load_state_dict(support.tiny_model(name).state_dict())
    found = detections(model, network_input(description))
    boxes = found.pred_boxes.tensor.numpy() - [0, 0, 1, 1]
    unlike = np.abs(golden["boxes_net"] - boxes[:, None]).max(axis=2)
    unlike += 1000 * (golden["labels"] - 1 != found.pred_classes.numpy()[:, None])
    rows = unlike.argmin(axis=1)
    assert unlike.min(axis=1).max() < 0.01
    assert len(set(rows)) == len(rows) == len(found) == 84
    scores, ids = (found.get(f"attribute_{of}").numpy() for of in ("scores", "ids"))
    expected, labels = golden["attr_scores"][rows], golden["attr_labels"][rows]
    known = expected > 0
    assert known.any()
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    np.testing.assert_array_equal(ids[known], labels[known] - 1)


@pytest.mark.parametrize(
    "name", ["tiny_frcnn_vg", pytest.param("tiny_bua_caffe", marks=pytest.mark.slow)]
)
@torch.no_grad()
def test_attributes_equal_the_naive_loop(name):
    """Of the proposal of each detection, from its most probable class, the background too."""
    model, image = support.tiny_model(name), network_input(support.description(name))
    found = detections(model, image)
    assert len(found) > 10

    images = model.preprocess_image([image])
    (regions,) = model.regions(images, model.feature_names, box_deltas=True).regions
    logits = regions.class_logits
    width_of_inclusive = 1 if name == "tiny_bua_caffe" else 0
    rows, numbers = torch.arange(len(regions)), torch.arange(model.num_classes)[:, None]
    every_class = model.regression([regions])(torch.tensor(0), rows, numbers)
    head = model.roi_heads.attribute_head
    for i in range(len(found)):
        box, c = found.pred_boxes.tensor[i].clone(), int(found.pred_classes[i])
        box[2:] -= width_of_inclusive
        box = model.box_convention.clip(box[None], images.image_sizes[0])
        own = logits.softmax(dim=1)[:, c]
        same = (every_class[c] - box).abs().amax(dim=1) + 1000 * (own - found.scores[i]).abs()
        row = int(same.argmin())
        assert same[row] < 0.01
        joined = torch.cat([regions.pooled[row], head.cls_embedding.weight[logits[row].argmax()]])
        last = head.attr_score(head.fc_attr(joined).clamp(min=0)).tolist()
        expected = naive.attributes(last, none_counts=name == "tiny_bua_caffe")
        np.testing.assert_allclose(
            found.attribute_scores[i].numpy(), [s for s, _ in expected[:MOST]], atol=1e-6
        )
        assert found.attribute_ids[i].tolist() == [number for _, number in expected[:MOST]]


@pytest.mark.slow
@pytest.mark.parametrize("name", support.TINY_LINEAGES)
def test_the_predictor_gives_them(tmp_path, name):
    weights = tmp_path / "converted.pth"
    convert_checkpoint(support.vmb_checkpoint(name), weights, support.description(name))
    cfg = get_cfg(support.yaml_path(name))
    cfg.MODEL.WEIGHTS = str(weights)
    image = preprocessing.read_image(goldens.image_path("chelsea.png"))
    found = DefaultPredictor(cfg)(image[:, :, ::-1])["instances"]
    assert len(found) > 0
    assert found.attribute_ids.shape == found.attribute_scores.shape == (len(found), MOST)
    assert (found.attribute_ids.dtype, found.attribute_scores.dtype) == (
        torch.int64,
        torch.float32,
    )


def test_a_model_without_the_head_gives_none():
    description = support.description("tiny_vinvl").without_attributes()
    model = VMBRCNN(to_detectron2(description)).eval()
    model.load_state_dict(support.tiny_model("tiny_vinvl").state_dict(), strict=False)
    found = detections(model, network_input(description))
    assert sorted(found.get_fields()) == ["pred_boxes", "pred_classes", "scores"]
