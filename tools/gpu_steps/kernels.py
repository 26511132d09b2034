"""The step "kernels": cuDNN's settings and the memory formats, what they gain and what they change.

PyTorch keeps cuDNN's choices of algorithms for each thread. So what is to be repeated runs in a
thread of its own, as in a run of its own.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from reference import goldens
from vmb_d2.comparison.fidelity import distance
from vmb_d2.data.preprocessing import load
from vmb_d2.engine.memory_format import MOST_MEASURED
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import NetworkBatch
from vmb_d2.utils.devices import CUDNN, arithmetic, clock

from .networks import Networks
from .parity import is_met, sums
from .steps import Case, Result, Step

PHOTOGRAPHS = ("coffee.png", "chelsea.png")
REPEATS = 3


def kernels_step(name: str, precisions: Sequence[str], networks: Networks) -> Step:
    """A model in each precision."""

    def run(case: Callable[[RegionFeatureExtractor], Result], precision: str) -> Result:
        return case(networks.extractor(name, precision=precision, layer_by_layer=True))

    cases: dict[str, Case] = {}
    for precision in precisions:
        cases[f"{name} {precision} cuDNN"] = functools.partial(run, cudnn, precision)
        # On a CPU, bf16 has convolutions of its own.
        if networks.device.type != "cpu" or precision == "fp32":
            formats = functools.partial(run, memory_formats, precision)
            cases[f"{name} {precision} memory formats"] = formats
    return Step("kernels", cases)


def cudnn(own: RegionFeatureExtractor) -> Result:
    """With each pair of settings, whether all repeats are equal to the bit, and the time."""
    images = [load(goldens.image_path(name), own.input_step) for name in PHOTOGRAPHS]
    batches = [own.to_network([image], image.padded_size) for image in images]
    found = []
    for benchmark, deterministic in itertools.product((False, True), repeat=2):
        settings = {"benchmark": benchmark, "deterministic": deterministic}
        passes = []
        for _ in range(REPEATS):
            with ThreadPoolExecutor(1) as thread:
                passes.append(thread.submit(_pass, own, batches, settings).result())
        equal = len({digest for digest, _ in passes}) == 1
        seconds = min(seconds for _, seconds in passes) / len(batches)
        found.append({**settings, "equal": equal, "milliseconds": 1000 * seconds})
    texts = (
        f"benchmark {f['benchmark']}, deterministic {f['deterministic']}: "
        f"{'equal' if f['equal'] else 'NOT equal'}, {f['milliseconds']:.1f} ms"
        for f in found
    )
    met = all(f["equal"] for f in found if CUDNN.items() <= f.items())
    return {"summary": "; ".join(texts), "met": met, "settings": found}


def _pass(
    own: RegionFeatureExtractor, batches: Sequence[NetworkBatch], settings: dict[str, bool]
) -> tuple[str, float]:
    """A hash of all that the network gives, and the seconds of a second pass."""
    now, digest = clock(own.model.device), hashlib.sha256()
    with arithmetic(own.precision):
        for name, value in settings.items():
            setattr(torch.backends.cudnn, name, value)  # arithmetic() sets them back
        for batch in batches:
            for regions in own.model.regions(batch, own.feature_names).regions:
                fields = regions.get_fields()
                boxes = fields.pop("proposal_boxes").tensor
                for values in (boxes, *fields.values()):
                    digest.update(values.cpu().numpy().tobytes())
        begin = now()
        for batch in batches:
            own.model.regions(batch, own.feature_names)
        return digest.hexdigest(), now() - begin


def memory_formats(own: RegionFeatureExtractor) -> Result:
    """The fastest of each stage, and the distance of features to those in the usual ones."""
    paths = [goldens.image_path(name) for name in PHOTOGRAPHS]
    usual = own.extract(paths)
    formats = own.fastest_memory_formats(load(paths[0], own.input_step), batch_size=MOST_MEASURED)
    own.use_memory_formats(formats)
    each = [distance(a, b) for a, b in zip(usual, own.extract(paths), strict=True)]
    result = sums(each)
    text = ", ".join(f"{stage} {name}" for stage, name in formats.items())
    share = f"{result['matched']} of {result['regions']} boxes"
    return {
        "summary": f"{text}; {share}, features {result['features']:.1e}",
        "met": own.precision != "fp32" or is_met(result, ""),
        "formats": formats,
        **result,
    }
