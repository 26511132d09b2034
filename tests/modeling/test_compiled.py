"""Backbone and RPN head compiled, or in place of CUDA graphs what stands in for them on the CPU."""

import shutil

import pytest
import support
import torch

from vmb_d2.checkpoint.pretrained import fingerprint
from vmb_d2.data import preprocessing
from vmb_d2.errors import ConfigError
from vmb_d2.extractor import RegionFeatureExtractor, pad
from vmb_d2.modeling.compiled import MOST_SHAPES, Replayed, compiled
from vmb_d2.utils.devices import check_compile

MODELS = [support.TINY_FPN, "tiny_r101_c4"]


def batch(height, width, count=1):
    """Noise as a network gets it."""
    random = torch.Generator().manual_seed(height + width)
    pixels = torch.rand(3, height, width, generator=random) * 255 - 120
    image = preprocessing.NetworkImage(pixels, (1.0, 1.0), width, height, (height, width))
    return pad([image] * count, (height, width))


def values(model, images):
    """Everything that a model gives for a batch, image by image."""
    for regions in model.regions(images, model.feature_names).regions:
        fields = dict(regions.get_fields())
        yield from (fields | {"proposal_boxes": fields["proposal_boxes"].tensor}).values()


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_what_dynamo_traces_gives_the_same(name):
    """``torch.compile`` without Inductor: its graphs, run operator by operator."""
    torch._dynamo.reset()
    model = support.tiny_model(name)
    digest = fingerprint(model)
    result = compiled(model, "inductor", backend="eager")
    for shape in [(64, 96), (96, 64), (64, 96, 2)]:
        assert_same(values(result, batch(*shape)), values(model, batch(*shape)))
    assert fingerprint(model) == digest
    for own, shared in zip(result.parameters(), model.parameters(), strict=True):
        assert own.data_ptr() == shared.data_ptr()


def test_backbone_and_head_are_one_graph_each():
    """Nothing in them makes the compiler give up in the middle."""
    model = support.tiny_model(support.TINY_FPN)
    torch._dynamo.reset()
    images = batch(64, 96).tensor
    with torch.no_grad():
        maps = list(model.backbone(images).values())
        for module, inputs in (
            (model.backbone, images),
            (model.proposal_generator.rpn_head, maps),
        ):
            assert torch._dynamo.explain(module)(inputs).graph_count == 1


@pytest.mark.parametrize("name", MODELS)
def test_replayed_modules_give_the_same(name, monkeypatch):
    """With a capture that does as a CUDA graph: a run overwrites what the one before returned."""

    def capture(module, inputs, pool):
        outputs = module(inputs)
        captured.append(module)

        def run(inputs):
            for target, source in zip(flat(outputs), flat(module(inputs)), strict=True):
                target.copy_(source)
            return outputs

        return run

    model = support.tiny_model(name)
    captured = []
    monkeypatch.setattr("vmb_d2.modeling.compiled.captured", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    replayed = compiled(model, "graphs")
    images = [batch(64, 96), batch(96, 64), batch(64, 96), batch(64, 96), batch(96, 64)]
    for own in images:
        assert_same(values(replayed, own), values(model, own))
    assert len(captured) == 4  # two modules, two shapes
    assert not isinstance(model.backbone, Replayed)


def flat(outputs):
    """The tensors of a module's outputs."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for part in parts for tensor in flat(part)]


def test_shapes_are_captured_at_their_second_time_and_the_oldest_dropped():
    captured = []

    def capture(module, inputs):
        captured.append(tuple(inputs.shape))
        return lambda inputs: ("replayed", module(inputs))

    replayed = Replayed(torch.nn.Identity(), capture, most=2)

    def is_replayed(length):
        return isinstance(replayed(torch.zeros(length)), tuple)

    assert [is_replayed(n) for n in (1, 1, 1, 2, 2)] == [False, True, True, False, True]
    assert captured == [(1,), (2,)]
    assert is_replayed(1)  # used later than 2
    assert not is_replayed(3)  # which takes the place of 2
    assert is_replayed(1)
    assert not is_replayed(2)
    assert captured == [(1,), (2,)]


def test_a_module_of_several_tensors_goes_by_all_their_shapes():
    captured = []

    def capture(module, inputs):
        captured.append([len(tensor) for tensor in inputs])
        return module

    replayed = Replayed(torch.nn.Identity(), capture)
    for lengths in ([1, 2], [2, 1], [1, 2], [1, 3]):
        assert len(replayed([torch.zeros(n) for n in lengths])) == 2
    assert captured == [[1, 2]]


@pytest.mark.parametrize(
    ("mode", "device", "precision", "words"),
    [
        ("fast", None, "fp32", "compile=fast: valid are off, graphs, inductor"),
        (
            "graphs",
            "cpu",
            "fp32",
            "compile=graphs: CUDA graphs need .* GPU; valid are off",
        ),
        ("inductor", "cpu", "bf16", "compile=inductor: on the CPU not with precision=bf16"),
    ],
)
def test_modes_that_are_refused(mode, device, precision, words):
    with pytest.raises(ConfigError, match=words):
        check_compile(mode, device and torch.device(device), precision)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_inductor_needs_a_compiler(device, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"compile=inductor: needs a compiler, and \w"):
        check_compile("inductor", torch.device(device))


def test_the_extractor_refuses_before_it_loads():
    with pytest.raises(ConfigError, match="compile=graphs"):
        RegionFeatureExtractor.from_pretrained("x152", device="cpu", compile="graphs")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_inductor_on_the_cpu(monkeypatch):
    """Compiled indeed, the maps are the same up to rounding."""
    monkeypatch.setenv("CXX", "g++")
    torch._dynamo.reset()
    model = support.tiny_model(support.TINY_FPN)
    extractor = RegionFeatureExtractor(model, compile="inductor")
    assert extractor.weights_sha256 == fingerprint(model)
    images = batch(64, 96).tensor
    with torch.no_grad():
        found, expected = extractor.model.backbone(images), model.backbone(images)
    for level, own in expected.items():
        assert (found[level] - own).norm() < 1e-5 * own.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_cuda_graphs(name, precision):
    """More shapes than are remembered, each several times."""
    weights = support.vmb_checkpoint(name)
    model = support.load_model(weights, support.description(name)).cuda()
    plain = RegionFeatureExtractor(model, precision=precision)
    graphs = RegionFeatureExtractor(model, precision=precision, compile="graphs")
    sizes = [(64, 96), (96, 64)] + [(64, 64 + 32 * i) for i in range(MOST_SHAPES)]
    for size in [*sizes, *sizes, *sizes[:3], *sizes[:3]]:
        images = batch(*size).to("cuda")
        found, expected = (values(e.model, images) for e in (graphs, plain))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
