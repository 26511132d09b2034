"""The step "parity": every golden on a device in fp32, and batches of any size."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from reference import extractions, goldens, models
from vmb_d2.comparison.fidelity import BOX_TOLERANCE, Distance, distance, relative_errors
from vmb_d2.structures.regions import RegionFeatures

from .networks import Networks
from .steps import Result, Step

FEATURE_TOLERANCE = 2e-5  # relative L2 error, that of the tests
LEAST_MATCHED = 0.999  # of the boxes, as in the tests
LEAST_MATCHED_OF_HORSE = 0.9  # a flat drawing with many ties
BATCH = ("coffee.png", "rocket.jpg", "coffee.png", "camera.png", "coffee.png")
SHUFFLED = (3, 0, 4, 1, 2)


def parity_step(of_goldens: Sequence[str], of_batches: Sequence[str], networks: Networks) -> Step:
    """The goldens of some models, and then the batches of some, by the models' listings."""
    cases = {name: functools.partial(repeat_goldens, name, networks) for name in of_goldens}
    cases |= {f"{name} batches": functools.partial(batches, name, networks) for name in of_batches}
    return Step("parity", cases, weight=3)


def repeat_goldens(name: str, networks: Networks) -> Result:
    """The distance of the extractions of a model to all its goldens.

    But for goldens that were made with other weights than the model's.
    """
    found = []
    for path, tag, image in goldens.find(rf"{name}\.seed0\."):
        if tag in extractions.OTHER_WEIGHTS:
            continue
        own = extractions.extractor(networks(name), models.description(name), name, tag)
        with np.load(path) as file:
            golden = dict(file)
        regions = extractions.regions(own, golden, tag, image)
        found.append({"golden": path.stem, **compare(golden, regions, tag, image)})
    regions, matched, same = (
        sum(g[key] for g in found) for key in ("regions", "matched", "same_class")
    )
    box, features = (max(g[key] for g in found) for key in ("box", "features"))
    good = sum(g["met"] for g in found)
    return {
        "summary": f"{good} of {len(found)} goldens as demanded; {matched} of {regions} boxes, "
        f"{box:.1e} px, features {features:.1e}, {same} of {matched} classes",
        "met": good == len(found),
        "convention": models.description(name).box_convention,
        "goldens": found,
    }


def compare(
    golden: Mapping[str, np.ndarray], found: RegionFeatures, tag: str, image: str
) -> Result:
    """The distance of regions to a golden, whose boxes are matched with those of their class.

    With a threshold (tags ``conf...``), the golden's regions of confidence 0 may be others.
    """
    boxes, features, classes = expected(golden)
    counts = "num_boxes" not in golden or int(golden["num_boxes"]) == found.num_boxes
    counts = counts and len(boxes) == len(found)
    if tag.startswith("conf"):
        confident = int(golden["num_boxes"])
        boxes, features, classes = boxes[:confident], features[:confident], classes[:confident]
    distances = np.abs(boxes[:, None] - found.bbox[None]).max(axis=2)
    # Of several regions with one box, that of the same class.
    others = classes[:, None] != found.objects[None]
    nearest = (distances + others * BOX_TOLERANCE / 10).argmin(axis=1)
    distances = distances[np.arange(len(boxes)), nearest]
    near = distances <= BOX_TOLERANCE
    errors = np.zeros(len(boxes))
    if features is not None:
        errors = relative_errors(features, found.features[nearest])
    result = {
        "regions": len(boxes),
        "matched": int(near.sum()),
        "box": float(distances[near].max(initial=0)),
        "features": float(errors[near].max(initial=0)),
        "same_class": int((classes == found.objects[nearest])[near].sum()),
        "same_count": counts,
    }
    return {**result, "met": is_met(result, image)}


def is_met(result: Result, image: str) -> bool:
    """Whether figures are what the tests demand of an image, on the CPU."""
    share = LEAST_MATCHED_OF_HORSE if image == "horse.png" else LEAST_MATCHED
    return (
        result["matched"] >= share * result["regions"]
        and result["features"] < FEATURE_TOLERANCE
        and result["same_class"] == result["matched"]
        and result.get("same_count", True)
    )


def expected(golden: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """A golden's boxes (R, 4), features (R, D), where it has them, and classes (R,)."""
    if "scores" in golden and "fc6" in golden:  # VMB's of given boxes; the background is first
        return golden["boxes"], golden["fc6"], golden["scores"][:, 1:].argmax(axis=1)
    if "objects" in golden:
        return golden["bbox"], golden["features"], golden["objects"]
    classes = golden["labels"] - 1 if "labels" in golden else golden["obj_ids"]
    return golden["boxes"], golden.get("features"), classes


def sums(each: Sequence[Distance]) -> Result:
    """Of several images: numbers added up, and the largest errors."""
    added = {k: sum(getattr(d, k) for d in each) for k in ("regions", "matched", "same_class")}
    return added | {k: max(getattr(d, k) for d in each) for k in ("box", "features")}


def batches(name: str, networks: Networks) -> Result:
    """The distance of images in batches of 2 and 5, and shuffled, to each of them alone."""
    own = networks.extractor(name)
    alone = {image: own.extract(goldens.image_path(image)) for image in BATCH}
    found = []
    for size, order in ((2, range(len(BATCH))), (5, range(len(BATCH))), (5, SHUFFLED)):
        images = [BATCH[i] for i in order]
        paths = [goldens.image_path(image) for image in images]
        together = own.extract(paths, batch_size=size)
        each = [distance(alone[i], regions) for i, regions in zip(images, together, strict=True)]
        figures = sums(each)
        met = is_met(figures, "")
        found.append({"batch_size": size, "shuffled": order is SHUFFLED, **figures, "met": met})
    worst = max(f["features"] for f in found)
    matched = min(f["matched"] / f["regions"] for f in found)
    return {
        "summary": f"batch sizes 2, 5, and shuffled, against 1: {matched:.1%} of the boxes, "
        f"features {worst:.1e}",
        "met": all(f["met"] for f in found),
        "batches": found,
    }
