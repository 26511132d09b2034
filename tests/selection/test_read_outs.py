"""Every read-out against a naive loop."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vmb_d2.config.read_out import READ_OUTS
from vmb_d2.selection.choice import Candidates, choose
from vmb_d2.structures.box_geometry import CONVENTIONS

REGIONS, CLASSES = 25, 6


def candidates(seed, steps=None):
    """Proposals that overlap much, and (REGIONS, CLASSES, 4) boxes of each class.

    ``steps``: how many values scores have, so that many are equal, and many 0.
    """
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(REGIONS, CLASSES + 1, 2, generator=random) * 60
    sides = torch.rand(REGIONS, CLASSES + 1, 2, generator=random) * 40 + 10
    boxes = torch.cat([corners, corners + sides], dim=2)
    scores = (torch.randn(REGIONS, CLASSES + 1, generator=random) * 2).softmax(dim=1)[:, :-1]
    if steps:
        scores = (scores * steps).round() / steps
    return Candidates(boxes[:, 0], scores, 2.0), boxes[:, 1:]


def overlap(a, b, convention):
    one = convention.nms_inclusive
    width = min(a[2], b[2]) - max(a[0], b[0]) + one
    height = min(a[3], b[3]) - max(a[1], b[1]) + one
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + one) * (box[3] - box[1] + one) for box in (a, b)]
    return both / (sum(areas) - both)


def survivors(pairs, boxes, convention, threshold):
    """Of (score, key, ...), the greedy choice by falling score."""
    kept = []
    drops_equal = "cpu" in convention.nms_drops_equal
    for pair in sorted(pairs, key=lambda pair: -pair[0]):
        own = boxes(pair)
        overlaps = [overlap(own, boxes(other), convention) for other in kept]
        if all(o < threshold or (o == threshold and not drops_equal) for o in overlaps):
            kept.append(pair)
    return kept


def naive(image, of_classes, read_out):
    """[(region, class, score)] in the read-out's order."""
    convention = CONVENTIONS[read_out.convention]
    scores = image.scores.tolist()
    scale = image.scales if read_out.original_pixels else 1
    proposals = (image.proposals / scale).tolist()

    def box(pair):
        return of_classes[pair[1], pair[2]].tolist() if read_out.regressed else proposals[pair[1]]

    for threshold in read_out.overlaps:
        if read_out.suppression == "once":
            best = [(max(row), r, row.index(max(row))) for r, row in enumerate(scores)]
            pairs = [p for p in best if p[0] > read_out.threshold / 100]
            kept = survivors(pairs, box, convention, threshold)
        else:
            above = read_out.threshold if read_out.suppression == "pairs" else -1
            while True:
                kept = []
                for c in range(CLASSES):
                    pairs = [(row[c], r, c) for r, row in enumerate(scores) if row[c] > above]
                    kept += survivors(pairs, box, convention, threshold)
                if not read_out.halves_threshold or len(kept) >= read_out.least:
                    break
                above /= 2
        if read_out.suppression == "by_class":
            best = {r: (0.0, r, 0) for r in range(REGIONS)}
            for pair in kept:
                counts = pair[0] > read_out.threshold or not read_out.threshold_excludes
                if counts and pair[0] > best[pair[1]][0]:
                    best[pair[1]] = pair
            kept = list(best.values())
        if len(kept) >= read_out.least:
            break
    if read_out.order == "class":
        best = sorted(kept, key=lambda pair: -pair[0])[: read_out.most]
        return [pair for pair in kept if pair in best]
    kept = sorted(kept, key=lambda pair: -pair[0])
    equal = read_out.equal_counts
    count = sum(p[0] > read_out.threshold or (equal and p[0] == read_out.threshold) for p in kept)
    first = kept[: min(max(count, read_out.least), read_out.most)]
    if read_out.order == "proposal" and len(first) == count:
        return sorted(first, key=lambda pair: pair[1])
    return first


@pytest.mark.parametrize("name", READ_OUTS)
@given(
    seed=st.integers(0, 10**6),
    steps=st.sampled_from([None, 32]),
    least=st.integers(0, 12),
    more=st.integers(0, 20),
    threshold=st.sampled_from([None, 0.25, 0.5]),
)
def test_equal_to_a_naive_loop(name, seed, steps, least, more, threshold):
    threshold = READ_OUTS[name].threshold if threshold is None else threshold
    bounds = {"least": least, "most": max(1, least + more), "threshold": threshold}
    read_out = dataclasses.replace(READ_OUTS[name], **bounds)
    image, of_classes = candidates(seed, steps)
    (choice,) = choose([image], read_out, lambda _, i, c: of_classes[i, c])
    expected = naive(image, of_classes, read_out)
    if not read_out.own_class:
        expected = [(s, r, int(image.scores[r].argmax())) for s, r, _ in expected]
    assert choice.indices.tolist() == [region for _, region, _ in expected]
    assert choice.classes.tolist() == [number for _, _, number in expected]
    assert choice.confidences.tolist() == [score for score, _, _ in expected]
    assert choice.num_boxes == sum(score > 0 for score, _, _ in expected)


@pytest.mark.parametrize("name", READ_OUTS)
@given(
    counts=st.permutations([REGIONS, 0, 14, 20, 5]),
    seed=st.integers(0, 10**6),
    steps=st.sampled_from([None, 32]),
    threshold=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=20)
def test_each_image_gets_what_it_gets_alone(name, counts, seed, steps, threshold):
    """Images of which some need another overlap than others, one without proposals among them."""
    read_out = dataclasses.replace(READ_OUTS[name], least=12, most=15, threshold=threshold)
    images, of_classes = [], []
    for number, count in enumerate(counts):
        image, boxes = candidates(seed + number, steps)
        images.append(Candidates(image.proposals[:count], image.scores[:count], 2.0 + number))
        of_classes.append(boxes)
    of_classes = torch.stack(of_classes)
    together = choose(images, read_out, lambda n, i, c: of_classes[n, i, c])
    assert len({len(choice.indices) for choice in together}) > 1
    for number, (choice, image) in enumerate(zip(together, images, strict=True)):
        own = of_classes[number]
        (alone,) = choose([image], read_out, lambda _, i, c, own=own: own[i, c])
        for found, expected in zip(choice[:3], alone[:3], strict=True):
            assert torch.equal(found, expected)
        assert choice.num_boxes == alone.num_boxes
    assert choose([], read_out) == []
