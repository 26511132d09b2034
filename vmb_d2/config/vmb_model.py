"""A VMB model as plain values: the part of a VMB yaml that concerns inference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .input_step import MMF_INPUT, InputStep
from .read_out import MMF_READ_OUT, ReadOut

BLOCKS_PER_STAGE = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
FPN_STRIDES = (4, 8, 16, 32, 64)
C4_STRIDE = 16
# The box conventions whose boxes are exclusive, without a need for torch
EXCLUSIVE_BOXES = ("frcnn_vg",)
# The box convention of the models whose classes are those of MMF's file of names
MMF_NAMED = "vmb"


@dataclass(frozen=True)
class VMBModel:
    """One VMB ``GeneralizedRCNN`` box model.

    The defaults are those of VMB's ``config/defaults.py``: ``VMBModel()`` is the model of an empty
    yaml. ``num_classes`` includes the background, as in VMB. Box sides are in network pixels.
    """

    depth: int = 50
    fpn: bool = False
    num_groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = True
    stem_out_channels: int = 64
    res2_out_channels: int = 256
    backbone_out_channels: int = 1024

    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_strides: tuple[int, ...] = (16,)
    rpn_pre_nms_top_n: int = 6000
    rpn_post_nms_top_n: int = 1000  # in each level
    rpn_fpn_post_nms_top_n: int = 2000  # over all levels; without effect where there is no FPN
    rpn_nms_threshold: float = 0.7
    rpn_min_size: float = 0.0

    pooler_resolution: int = 14
    pooler_sampling_ratio: int = 0
    pooler_scales: tuple[float, ...] = (1.0 / 16,)
    mlp_head_dim: int = 1024
    num_classes: int = 81
    class_agnostic_bbox_reg: bool = False
    bbox_reg_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_image: int = 100

    box_convention: str = "vmb"
    stem_pool_padded: bool = True
    res5_dilation: int = 1
    pooler_type: str = "ROIAlign"
    stored_anchors: bool = False
    rpn_channels: int = -1  # as the map that it is given
    clips_to_padded: bool = True
    ranks_by_logits: bool = False
    small_boxes: str = "vmb"
    attributes: str | None = None
    num_attributes: int = 0
    attribute_embedding_dim: int = 0  # 0: an eighth of the features'
    attribute_hidden_dim: int = 0  # 0: a quarter of the features'

    input: InputStep = MMF_INPUT
    read_out: ReadOut = MMF_READ_OUT

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features of this model's head, the default one first."""
        return ("fc6", "fc7") if self.fpn else ("pooled",)

    @property
    def feature_dimension(self) -> int:
        """D of each feature, (R, D)."""
        return self.mlp_head_dim if self.fpn else 8 * self.res2_out_channels

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        """Bottleneck blocks in res2, res3, res4, res5."""
        return BLOCKS_PER_STAGE[self.depth]

    @property
    def is_detectron2(self) -> bool:
        """Whether the original is a Detectron2 model, whose checkpoints have its names."""
        return self.box_convention in ("frcnn_vg", "bua")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored in a converted checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VMBModel:
        """The inverse of :meth:`to_dict`. Fields that are missing have their defaults.

        Raises ConfigError for unknown fields.
        """
        fields = {f.name for f in dataclasses.fields(cls)}
        if unknown := set(values) - fields:
            names = ", ".join(sorted(unknown))
            raise ConfigError(f"the model description has what this version doesn't know: {names}")
        own = _with_tuples(values)
        if "input" in own:
            own["input"] = InputStep(**_with_tuples(own["input"]))
        if "read_out" in own:
            own["read_out"] = ReadOut(**_with_tuples(own["read_out"]))
        return cls(**own)

    def network(self) -> VMBModel:
        """The same network, with the input and the read-out of MMF."""
        return dataclasses.replace(self, input=MMF_INPUT, read_out=MMF_READ_OUT)

    def with_input(self, changes: Mapping[str, Any]) -> VMBModel:
        """The same model with other values of some fields of its input. Raises ConfigError."""
        return dataclasses.replace(self, input=dataclasses.replace(self.input, **changes))

    def without_attributes(self) -> VMBModel:
        """The same model without a head for attributes."""
        return dataclasses.replace(self, attributes=None, num_attributes=0)

    def differences(self, other: VMBModel) -> list[str]:
        """``field: own value, not other's`` for each field in which the two models differ."""
        own, others = self.to_dict(), other.to_dict()
        return [f"{k}: {own[k]}, not {others[k]}" for k in own if own[k] != others[k]]


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
