"""The memory format of each stage: the same results in any, and the choice by measured times."""

import itertools

import pytest
import support
import torch
import waits

from vmb_d2.checkpoint.pretrained import fingerprint
from vmb_d2.comparison.fidelity import distance
from vmb_d2.data import preprocessing
from vmb_d2.extractor import RegionFeatureExtractor, pad
from vmb_d2.modeling import inference_form
from vmb_d2.modeling.memory_format import (
    FORMATS,
    fastest_memory_formats,
    stages,
    with_memory_formats,
)

FPN, C4 = "tiny_x152_fpn", "tiny_r101_c4"
STAGES = {
    FPN: ["stem", "res2", "res3", "res4", "res5", "fpn", "rpn_head"],
    C4: ["stem", "res2", "res3", "res4", "rpn_head", "res5"],
}
EXAMPLES = {
    "contiguous": lambda i: "contiguous",
    "channels_last": lambda i: "channels_last",
    "alternating": lambda i: list(FORMATS)[i % 2],
}
SMALL = 64, 96


@pytest.fixture
def batch():
    pixels = torch.rand(3, *SMALL, generator=torch.Generator().manual_seed(0)) * 255 - 120
    return pad([preprocessing.NetworkImage(pixels, (1.0, 1.0), *SMALL[::-1], SMALL)], SMALL)


def form(name, dtype, monkeypatch):
    """A model as a GPU has it: in float32 as it is, else folded, its weights not packed."""
    model = support.tiny_model(name)
    if dtype == torch.float32:
        return model
    monkeypatch.setattr(inference_form, "can_fuse", lambda dtype: False)
    return model.for_inference(dtype)


@pytest.mark.parametrize("name", [FPN, C4])
def test_the_stages(name):
    assert list(stages(support.tiny_model(name))) == STAGES[name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("name", [FPN, C4])
def test_maps_and_heads_are_the_same_up_to_rounding(name, example, dtype, batch, monkeypatch):
    model = form(name, dtype, monkeypatch)
    before = {key: value.stride() for key, value in model.state_dict().items()}
    formats = {stage: EXAMPLES[example](i) for i, stage in enumerate(STAGES[name])}
    other = with_memory_formats(model, formats)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    with torch.no_grad():
        expected, found = model.backbone(batch.tensor), other.backbone(batch.tensor)
        maps = list(expected.values())
        pairs = list(zip(found.values(), maps, strict=True))
        for own, their in zip(
            *(m.proposal_generator.rpn_head(maps) for m in (other, model)), strict=True
        ):
            pairs += zip(own, their, strict=True)
        if name == C4:
            pairs.append(tuple(m.roi_heads.res5(maps[0]) for m in (other, model)))
    for own, their in pairs:
        assert (own - their).norm() <= tolerance * their.norm()
    last = pairs[0] if name == FPN else pairs[-1]
    wanted = FORMATS[formats["fpn" if name == FPN else "res5"]]
    assert last[0].is_contiguous(memory_format=wanted)
    assert {key: value.stride() for key, value in model.state_dict().items()} == before
    weights = other.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


class Clock:
    """The time that a network takes in which each stage has a cost in each format."""

    def __init__(self, costs, conversion):
        self.costs, self.conversion = costs, conversion
        self.seconds, self.last = 0.0, None

    def __call__(self):
        return self.seconds

    def hook(self, stage, share):
        """To be called when a stage, or a module with a share in it, was run."""

        def add(module, inputs, outputs):
            maps = inputs[0][0] if isinstance(inputs[0], list) else inputs[0]
            is_last = maps.is_contiguous(memory_format=torch.channels_last)
            form = "channels_last" if is_last else "contiguous"
            self.seconds += share * self.costs[stage][form] + self.conversion * (form != self.last)
            self.last = form

        return add


@pytest.mark.parametrize("name", [FPN, C4])
@pytest.mark.parametrize(("conversion", "mixed"), [(0.1, True), (9.0, False)])
def test_the_fastest(name, conversion, mixed, batch, monkeypatch):
    """Of each stage, unless converting in between takes more than that gains."""
    wanted = dict(zip(STAGES[name], itertools.cycle(FORMATS), strict=False))
    costs = {s: {f: 1.0 if f == wanted[s] else 2.0 for f in FORMATS} for s in wanted}
    costs["stem"]["contiguous"] = 0.5
    clock = Clock(costs, conversion)
    model = small_head(name)
    waits.as_on_gpu(monkeypatch, model)  # on the CPU res5 isn't called as a whole
    for stage, modules in stages(model).items():
        for module in modules:
            module.register_forward_hook(clock.hook(stage, 1 / len(modules)))
    found = fastest_memory_formats(model, batch, clock)
    assert found == (wanted if mixed else dict.fromkeys(wanted, "contiguous"))


def small_head(name):
    """A model of few proposals."""
    model = inference_form.shared_copy(support.tiny_model(name))
    model.proposal_generator.post_nms_topk_per_level = 40
    model.proposal_generator.pre_nms_topk[False] = 300
    return model


def test_the_extractor_measures_and_uses_them(batch):
    model = small_head(FPN)
    own = RegionFeatureExtractor(model, layer_by_layer=True)
    size = batch.image_sizes[0]
    image = preprocessing.NetworkImage(batch.tensor[0], (1.0, 1.0), *size[::-1], size)
    (expected,) = own.extract_batch([image], size)
    formats = own.fastest_memory_formats(image, 1)
    assert list(formats) == STAGES[FPN]
    own.use_memory_formats({stage: "channels_last" for stage in formats})
    (found,) = own.extract_batch([image], size)
    assert own.weights_sha256 == fingerprint(model)
    assert distance(expected, found).features < 2e-5
