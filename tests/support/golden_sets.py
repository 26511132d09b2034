"""The goldens of the tiny models, and what extracts them again."""

import numpy as np
import support
import torch

from reference import extractions, goldens, models

CASES = [
    (model, path, tag, image)
    for model in models.TINY
    for path, tag, image in goldens.find(rf"{model}\.seed0\.")
]


def load(path):
    with np.load(path) as golden:
        return dict(golden)


def extractor(model, tag, **input_changes):
    return extractions.extractor(
        support.tiny_model(model), support.description(model), model, tag, **input_changes
    )


def app_options(model, tag):
    """The options of tools/extract.py for the regions of a golden."""
    names = {"feature_names": "extract.feature_name", "read_out": "read_out"}
    names |= {name: f"input.{name}" for name in extractions.INPUT}
    options = extractions.OPTIONS[model][tag].items()
    return [f"{names.get(name, f'extract.{name}')}={value}" for name, value in options]


def plus_four_for_the_background(model, monkeypatch):
    """The change of the weights for ``max36.background_plus4``."""
    predictor = support.tiny_model(model).roi_heads.box_predictor
    bias = predictor.cls_score.bias.clone()
    bias[-1] += 4
    monkeypatch.setitem(predictor.cls_score._parameters, "bias", torch.nn.Parameter(bias))
