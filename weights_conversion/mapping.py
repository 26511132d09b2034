"""Every parameter of a model, by its name in the original and its name in Detectron2."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass

from vmb_d2.config import VMBModel

BOX_DIM = 4


class Layout(enum.Enum):
    """How the values of a parameter differ between an original and Detectron2.

    VMB regresses a box for the background too, which is never used. With class-agnostic regression
    it has two "classes", of which the second is used.
    """

    SAME = "same"
    CLASS_ROWS = "background row moved from first to last"
    ATTRIBUTE_ROWS = 'row of "no attribute" moved from first to last'
    BOX_ROWS = "background's four rows dropped"
    OBJECTNESS = "background's logits subtracted from the object's"
    VARIANCE = "epsilon taken off the variance"


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer under both its names."""

    vmb: str
    d2: str
    layout: Layout = Layout.SAME

    def vmb_shape(self, d2_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in the original of what has ``d2_shape`` in Detectron2."""
        if self.layout is Layout.BOX_ROWS:
            return (d2_shape[0] + BOX_DIM, *d2_shape[1:])
        if self.layout is Layout.OBJECTNESS:
            return (2 * d2_shape[0], *d2_shape[1:])
        return d2_shape


# A module that an original has under two names -> the one of the parameters
TWINS = {"attribute.feature_extractor.": "roi_heads.box.feature_extractor."}
STORED_ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"
ANCHORS = re.compile(r"(?:.*\.)?cell_anchors\.(\d+)")

# VMB keys that are ignored -> why
IGNORED = {
    re.compile(r"(?:.*\.)?(cls_embed|attr_linear1|attr_linear2)\..*"): (
        "attribute head; of VMB's models it is not converted"
    ),
    re.compile(r".*\.num_batches_tracked"): "counters of a training",
}


def parameter_map(model: VMBModel) -> list[Parameter]:
    """All parameters and buffers of ``model``, in the order of the original's state dict.

    Anchors are among them only where the model takes those of the checkpoint.
    """
    parameters = [*_backbone(model), *_rpn(), *_box_head(model)]
    if model.attributes is not None:
        parameters += _attribute_head()
    if model.stored_anchors:
        parameters.append(Parameter(STORED_ANCHORS, STORED_ANCHORS))
    adapt = _ADAPTED.get(model.box_convention)
    return parameters if adapt is None else [adapt(parameter) for parameter in parameters]


def _backbone(model: VMBModel) -> Iterator[Parameter]:
    body = "backbone.bottom_up" if model.fpn else "backbone"
    yield from _conv("backbone.body.stem.conv1", f"{body}.stem.conv1")
    yield from _batch_norm("backbone.body.stem.bn1", f"{body}.stem.conv1.norm")
    blocks = model.blocks_per_stage if model.fpn else model.blocks_per_stage[:3]
    for stage, count in enumerate(blocks, start=1):
        yield from _stage(f"backbone.body.layer{stage}", f"{body}.res{stage + 1}", count)
    if model.fpn:
        for stage in range(1, 5):
            for vmb, d2 in (("fpn_inner", "fpn_lateral"), ("fpn_layer", "fpn_output")):
                yield from _linear(f"backbone.fpn.{vmb}{stage}", f"backbone.{d2}{stage + 1}")


def _rpn() -> Iterator[Parameter]:
    for vmb, d2 in (
        ("conv", "conv"),
        ("cls_logits", "objectness_logits"),
        ("bbox_pred", "anchor_deltas"),
    ):
        yield from _linear(f"rpn.head.{vmb}", f"proposal_generator.rpn_head.{d2}")


def _box_head(model: VMBModel) -> Iterator[Parameter]:
    extractor, predictor = "roi_heads.box.feature_extractor", "roi_heads.box.predictor"
    if model.fpn:
        yield from _linear(f"{extractor}.fc6", "roi_heads.box_head.fc1")
        yield from _linear(f"{extractor}.fc7", "roi_heads.box_head.fc2")
    else:
        res5_blocks = model.blocks_per_stage[3]
        yield from _stage(f"{extractor}.head.layer4", "roi_heads.res5", res5_blocks)
    d2 = "roi_heads.box_predictor"
    yield from _linear(f"{predictor}.cls_score", f"{d2}.cls_score", Layout.CLASS_ROWS)
    yield from _linear(f"{predictor}.bbox_pred", f"{d2}.bbox_pred", Layout.BOX_ROWS)


def _attribute_head() -> Iterator[Parameter]:
    vmb, d2 = "attribute.predictor", "roi_heads.attribute_head"
    name = "cls_embedding.weight"
    yield Parameter(f"{vmb}.{name}", f"{d2}.{name}", Layout.CLASS_ROWS)
    yield from _linear(f"{vmb}.fc_attr", f"{d2}.fc_attr")
    yield from _linear(f"{vmb}.attr_score", f"{d2}.attr_score", Layout.ATTRIBUTE_ROWS)


def _of_frcnn_vg(parameter: Parameter) -> Parameter:
    """The parameter in the layout of unc-nlp/frcnn-vg-finetuned, which is Detectron2's."""
    name = parameter.d2.replace("roi_heads.attribute_head", "roi_heads.box_predictor")
    return Parameter(name, parameter.d2)


def _of_bua(parameter: Parameter) -> Parameter:
    """The parameter in the layout of bottom-up-attention.pytorch's caffe models."""
    name = _of_frcnn_vg(parameter).vmb
    for d2, bua in _BUA_NAMES.items():
        name = name.replace(f".{d2}.", f".{bua}.")
    layout = Layout.SAME if parameter.layout is Layout.VARIANCE else parameter.layout
    return Parameter(name, parameter.d2, Layout.OBJECTNESS if "objectness" in name else layout)


_BUA_NAMES = {
    "cls_embedding": "cls_embed",
    "fc_attr": "attr_linear1",
    "attr_score": "attr_linear2",
}
_ADAPTED = {"frcnn_vg": _of_frcnn_vg, "bua": _of_bua}


def _stage(vmb: str, d2: str, blocks: int) -> Iterator[Parameter]:
    for block in range(blocks):
        source, target = f"{vmb}.{block}", f"{d2}.{block}"
        if block == 0:
            yield from _conv(f"{source}.downsample.0", f"{target}.shortcut")
            yield from _batch_norm(f"{source}.downsample.1", f"{target}.shortcut.norm")
        for i in (1, 2, 3):
            yield from _conv(f"{source}.conv{i}", f"{target}.conv{i}")
            yield from _batch_norm(f"{source}.bn{i}", f"{target}.conv{i}.norm")


def _conv(vmb: str, d2: str) -> Iterator[Parameter]:
    yield Parameter(f"{vmb}.weight", f"{d2}.weight")


def _linear(vmb: str, d2: str, layout: Layout = Layout.SAME) -> Iterator[Parameter]:
    for leaf in ("weight", "bias"):
        yield Parameter(f"{vmb}.{leaf}", f"{d2}.{leaf}", layout)


def _batch_norm(vmb: str, d2: str) -> Iterator[Parameter]:
    for leaf in ("weight", "bias", "running_mean"):
        yield Parameter(f"{vmb}.{leaf}", f"{d2}.{leaf}")
    yield Parameter(f"{vmb}.running_var", f"{d2}.running_var", Layout.VARIANCE)
