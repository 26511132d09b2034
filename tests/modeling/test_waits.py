"""How often the host waits for a GPU in a batch: as often for many images as for one."""

import collections
import contextlib
import warnings

import pytest
import support
import torch
import waits

from reference import goldens
from vmb_d2.data import preprocessing
from vmb_d2.extractor import RegionFeatureExtractor, pad
from vmb_d2.selection.options import RegionOptions
from vmb_d2.selection.read_out import chosen_regions
from vmb_d2.structures import box_geometry

READ_OUTS = [
    ("tiny_vinvl", "vinvl_reg"),
    ("tiny_vinvl", "vinvl_filter0"),
    ("tiny_vinvl", "vinvl_filter0_reg"),
    ("tiny_vinvl", "vinvl_filter2"),
    ("tiny_frcnn_vg", "airsplay_script"),
    ("tiny_frcnn_vg", "airsplay_notebook"),
    (support.TINY_FPN, "adaptive"),
]
MODELS = [support.TINY_FPN, "tiny_r101_c4", *support.TINY_LINEAGES]
VALUES = torch.arange(4.0)

WAITS = {
    "int": lambda: int(VALUES.sum()),
    "if": lambda: 1 if (VALUES > 1).any() else 0,
    "item": lambda: VALUES[0].item(),
    "an index": lambda: [0, 1][torch.zeros((), dtype=torch.int64)],
    "nonzero": lambda: VALUES.nonzero(),
    "where": lambda: torch.where(VALUES > 1),
    "a mask": lambda: VALUES[VALUES > 1],
    "a mask to set": lambda: VALUES.clone().__setitem__(VALUES > 1, 2.0),
    "masked_select": lambda: VALUES.masked_select(VALUES > 1),
    "a list as index": lambda: VALUES[[0, 1]],
    "tolist": lambda: VALUES.tolist(),
    "cpu": lambda: VALUES.cpu(),
    "to": lambda: VALUES.to("cpu"),
    "to, by keyword": lambda: VALUES.to(device=torch.device("cpu")),
    "tensor": lambda: torch.tensor([1], device="cpu"),
    "new_tensor": lambda: VALUES.new_tensor([1]),
    "equal": lambda: torch.equal(VALUES, VALUES),
    "unique": lambda: VALUES.unique(),
    "repeat_interleave": lambda: VALUES.repeat_interleave(VALUES.long()),
    "nms": lambda: box_geometry.VMB.nms(torch.zeros(1, 4), VALUES[:1], 0.5),
}

NO_WAITS = {
    "arithmetic": lambda: (VALUES > 1).sum() + VALUES.argsort()[:2],
    "rows": lambda: [VALUES[VALUES.long()], VALUES.index_select(0, VALUES.long()), *VALUES],
    "to a dtype": lambda: VALUES.to(torch.float64).float(),
    "to, without waiting": lambda: torch.tensor([1]).to("cpu", non_blocking=True),
    "where of three": lambda: torch.where(VALUES > 1, VALUES, 0.0),
    "length": lambda: [len(VALUES), VALUES.shape[0]],
}


@pytest.mark.parametrize("name", [*WAITS, *NO_WAITS])
def test_each_is_seen_once(name):
    """Or the tests that count waits could not fail."""
    with torch.no_grad(), waits.Waits() as counted:
        {**WAITS, **NO_WAITS}[name]()
    assert len(counted.names) == (name in WAITS)


@pytest.mark.parametrize(("name", "read_out"), [*((name, None) for name in MODELS), *READ_OUTS])
def test_as_often_for_four_images_as_for_one(name, read_out, monkeypatch):
    """From the padded batch to the regions on the host, each image being the same."""
    model = support.tiny_model(name)
    waits.as_on_gpu(monkeypatch, model)
    monkeypatch.setattr(model.proposal_generator, "post_nms_topk_per_level", 40)  # faster
    monkeypatch.setitem(model.proposal_generator.pre_nms_topk, False, 300)
    description = support.description(name).with_input({"short_side": 200})
    extractor = RegionFeatureExtractor(
        model, RegionOptions(read_out=read_out), description, layer_by_layer=True
    )
    image = preprocessing.load(goldens.image_path("coffee.png"), extractor.input_step)
    one, four = (waits_of(extractor, [image] * count) for count in (1, 4))
    assert one
    assert collections.Counter(four) == collections.Counter(one)


def waits_of(extractor, images):
    """What makes the host wait in a batch, from the network's input on."""
    model, rule = extractor.model, extractor.read_out_rule
    batch = pad(images, images[0].padded_size)
    with torch.no_grad(), waits.Waits() as counted:
        output = model.regions(batch, extractor.feature_names, box_deltas=rule.regressed)
        chosen_regions(model, output, images, extractor.feature_names, rule, False)
    return counted.names


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MODELS)
def test_as_often_on_a_gpu(name):
    """As PyTorch itself notices it; nothing before the proposals waits."""
    model = support.load_model(support.vmb_checkpoint(name), support.description(name)).cuda()
    extractor = RegionFeatureExtractor(model, description=support.description(name))
    image = preprocessing.load(goldens.image_path("coffee.png"), extractor.input_step)
    counts = []
    for count in (1, 4):
        images = [image] * count
        extractor.extract_batch(images, image.padded_size)  # to warm up
        with sync_debug_mode("error"), torch.inference_mode():
            batch = extractor.to_network(images, image.padded_size)
            maps = model.backbone(batch.tensor)
            rpn = model.proposal_generator
            rpn.rpn_head([maps[name] for name in rpn.in_features])
        with sync_debug_mode("warn"), warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            extractor.extract_batch(images, image.padded_size)
        counts.append(sum("synchronizing" in str(w.message) for w in found))
    assert counts[0] == counts[1] > 0


@contextlib.contextmanager
def sync_debug_mode(mode):
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", sorted(box_geometry.CONVENTIONS))
def test_kept_on_a_gpu(name):
    """As by torchvision's kernel there, set by set. Corners are whole numbers: ties are exact."""
    random = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 600, (6, 2000, 2), generator=random).float()
    boxes = torch.cat(
        [corners, corners + torch.randint(1, 300, corners.shape, generator=random)], 2
    )
    boxes, candidates = boxes.cuda(), (torch.rand(6, 2000, generator=random) < 0.9).cuda()
    convention = box_geometry.CONVENTIONS[name]
    kept = convention.kept(boxes, candidates, 0.7)
    for own, flags, result in zip(boxes, candidates, kept, strict=True):
        rows = flags.nonzero().squeeze(1)
        scores = -torch.arange(len(rows), device="cuda").float()
        assert torch.equal(
            result.nonzero().squeeze(1), rows[convention.nms(own[rows], scores, 0.7)]
        )
