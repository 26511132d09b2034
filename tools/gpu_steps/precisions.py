"""The step "precision": how far each lower precision is from fp32, as in docs/precision.md."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from benchmarking.measuring import EXACT

from reference import goldens
from vmb_d2.comparison.fidelity import nearest_boxes, relative_errors
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.structures.regions import RegionFeatures

from .networks import Networks
from .steps import Result, Step

PHOTOGRAPHS = ("coffee.png", "camera.png", "chelsea.png", "rocket.jpg")
NEAR = 2.0  # original pixels


def precision_step(names: Sequence[str], precisions: Sequence[str], networks: Networks) -> Step:
    """Each model, by its listing, in each of the precisions but fp32."""

    @functools.lru_cache(maxsize=1)  # models come one after the other
    def exact(name: str) -> list[tuple[RegionFeatures, RegionFeatures]]:
        return regions(networks.extractor(name, precision=EXACT), None)

    def price(name: str, precision: str) -> Result:
        reference = exact(name)
        boxes = [own.bbox for own, _ in reference]
        return figures(reference, regions(networks.extractor(name, precision=precision), boxes))

    return Step(
        "precision",
        {
            f"{name} {precision}": functools.partial(price, name, precision)
            for name in names
            for precision in precisions
            if precision != EXACT
        },
        weight=1.5,
    )


def regions(
    own: RegionFeatureExtractor, boxes: Sequence[np.ndarray | None] | None
) -> list[tuple[RegionFeatures, RegionFeatures]]:
    """Of each photograph its regions, and those of given boxes; None: of the regions' own."""
    found = []
    for i, image in enumerate(PHOTOGRAPHS):
        path = goldens.image_path(image)
        chosen = own.extract(path)
        found.append((chosen, own.extract(path, boxes=boxes[i] if boxes else chosen.bbox)))
    return found


def figures(
    reference: Sequence[tuple[RegionFeatures, RegionFeatures]],
    other: Sequence[tuple[RegionFeatures, RegionFeatures]],
) -> Result:
    """Both as :func:`regions` returns them, of one model."""
    near_of, errors, same, given_errors, given_same = [], [], [], [], []
    for (chosen, given), (chosen_other, given_other) in zip(reference, other, strict=True):
        nearest, distances = nearest_boxes(chosen.bbox, chosen_other.bbox)
        near = distances <= NEAR
        near_of.append(near)
        found = chosen_other.features[nearest]
        errors.append(relative_errors(chosen.features, found)[near])
        same.append((chosen.objects == chosen_other.objects[nearest])[near])
        given_errors.append(relative_errors(given.features, given_other.features))
        given_same.append(given.objects == given_other.objects)
    result = {
        "images": len(reference),
        "near": float(np.concatenate(near_of).mean()),
        **_spread("features", errors),
        "same_class": float(np.concatenate(same).mean()),
        **_spread("given_features", given_errors),
        "given_same_class": float(np.concatenate(given_same).mean()),
    }
    summary = (
        f"{result['near']:.0%} of the boxes within {NEAR:g} px; the same boxes given: features "
        f"{result['given_features_median']:.1e}, worst {result['given_features_worst']:.1e}, "
        f"{result['given_same_class']:.1%} of the classes"
    )
    return {"summary": summary, **result}


def _spread(name: str, values: Sequence[np.ndarray]) -> dict[str, float]:
    together = np.concatenate(values)
    median = float(np.median(together)) if len(together) else 0.0
    return {f"{name}_median": median, f"{name}_worst": float(together.max(initial=0))}
