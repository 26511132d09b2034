"""Weights for measuring where there are no others."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.modeling import build_model
from torch import nn

from vmb_d2.config import VMBModel, to_detectron2
from weights_conversion import checkpoint_file

# Without these, the activations of a deep network with frozen batch norm grow beyond bounds.
_LAST_NORM, _STEM_NORM = 0.1, 0.01
_LOGITS = 0.05  # standard deviation of the RPN's weights: objectness that orders the anchors


def write_random_weights(model: VMBModel, path: str | Path, seed: int = 0) -> None:
    """Write a checkpoint, in Detectron2's layout, of random weights with finite activations.

    They are Detectron2's initial ones but for the scale of some. Class scores are all nearly the
    same, which no trained model's are. Raises CheckpointError where it can't be written.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_model(to_detectron2(model))
        nn.init.normal_(network.proposal_generator.rpn_head.objectness_logits.weight, std=_LOGITS)
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("conv3.norm.weight"):
            value.fill_(_LAST_NORM)
        elif name.endswith("stem.conv1.norm.weight"):
            value.fill_(_STEM_NORM)
    origin = {"source_config": model.to_dict()}
    content = {"model": state, checkpoint_file.ORIGIN_KEY: origin}
    checkpoint_file.write_checkpoint(content, path)
