"""Slow reference loops, written from the description of the original and not from our code.

Boxes are inclusive (x1, y1, x2, y2) in plain Python numbers. At the end, Hypothesis strategies for
boxes and scores.
"""

import math

from hypothesis import strategies as st


def width(box):
    return box[2] - box[0] + 1


def height(box):
    return box[3] - box[1] + 1


def area(box):
    return width(box) * height(box)


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0]) + 1
    h = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / (area(a) + area(b) - w * h)


def nms(boxes, scores, threshold, at_threshold_goes=True):
    """Indices kept, by falling score; equal scores in the order given."""
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept = []
    for i in order:
        overlaps = [iou(boxes[i], boxes[j]) for j in kept]
        if all(o < threshold or (o == threshold and not at_threshold_goes) for o in overlaps):
            kept.append(i)
    return kept


def nms_of_overlaps(overlaps, scores, threshold):
    """Indices kept, by falling score; equal scores in the order given.

    ``overlaps[i][j]``: of box i and box j; the lower one goes where it is at least ``threshold``.
    """
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept = []
    for i in order:
        if all(overlaps[i][j] < threshold for j in kept):
            kept.append(i)
    return kept


def clip(box, size):
    h, w = size
    x1, y1, x2, y2 = box
    return [
        min(max(x1, 0), w - 1),
        min(max(y1, 0), h - 1),
        min(max(x2, 0), w - 1),
        min(max(y2, 0), h - 1),
    ]


def decode(deltas, box, weights=(1, 1, 1, 1)):
    dx, dy, dw, dh = (d / w for d, w in zip(deltas, weights, strict=True))
    most = math.log(1000 / 16)
    w, h = width(box), height(box)
    centre_x = box[0] + 0.5 * w + dx * w
    centre_y = box[1] + 0.5 * h + dy * h
    w *= math.exp(min(dw, most))
    h *= math.exp(min(dh, most))
    return [
        centre_x - 0.5 * w,
        centre_y - 0.5 * h,
        centre_x + 0.5 * w - 1,
        centre_y + 0.5 * h - 1,
    ]


def fpn_level(box, lowest=2, highest=5):
    level = math.floor(4 + math.log2(math.sqrt(area(box)) / 224 + 1e-6))
    return min(max(level, lowest), highest)


def cell_anchors(stride, sizes, ratios):
    """Ratio slowest, size fastest."""
    centre = (stride - 1) / 2
    anchors = []
    for ratio in ratios:
        base_width = round(math.sqrt(stride * stride / ratio))
        base_height = round(base_width * ratio)
        for size in sizes:
            w, h = base_width * size / stride, base_height * size / stride
            anchors.append(
                [
                    centre - (w - 1) / 2,
                    centre - (h - 1) / 2,
                    centre + (w - 1) / 2,
                    centre + (h - 1) / 2,
                ]
            )
    return anchors


def grid_anchors(cell, stride, rows, columns):
    """Row by row, column by column, anchor by anchor."""
    return [
        [x1 + column * stride, y1 + row * stride, x2 + column * stride, y2 + row * stride]
        for row in range(rows)
        for column in range(columns)
        for x1, y1, x2, y2 in cell
    ]


def confidences(boxes, scores, threshold, at_threshold_goes=True):
    """``scores[i][c]`` of the classes that take part -> the confidence of each box."""
    result = [0.0] * len(boxes)
    for c in range(len(scores[0]) if scores else 0):
        column = [row[c] for row in scores]
        for i in nms(boxes, column, 0.5, at_threshold_goes):
            if column[i] > threshold and column[i] > result[i]:
                result[i] = column[i]
    return result


def confidences_of_many(overlapping, scores, threshold):
    """As ``confidences``, fast enough for 1000 boxes and 1600 classes.

    ``overlapping[i][j]``: whether box i and box j can't both be kept.
    """
    neighbours = [sum(1 << j for j, flag in enumerate(row) if flag) for row in overlapping]
    result = [0.0] * len(neighbours)
    for column in zip(*scores, strict=True):
        kept = 0  # bit i for box i
        for i in sorted(range(len(column)), key=column.__getitem__, reverse=True):  # stable
            if not neighbours[i] & kept:
                kept |= 1 << i
                if column[i] > threshold and column[i] > result[i]:
                    result[i] = column[i]
    return result


def propose(levels, size, pre_nms, per_level, over_all, threshold, min_size=0):
    """RPN post-processing.

    ``levels`` holds, for each level, a list of (anchor, logit, deltas). Returns (box, objectness)
    in falling order of objectness.
    """
    kept = []
    for level in levels:
        candidates = [(anchor, 1 / (1 + math.exp(-x)), deltas) for anchor, x, deltas in level]
        candidates.sort(key=lambda c: -c[1])
        decoded = [(clip(decode(d, a), size), s) for a, s, d in candidates[:pre_nms]]
        decoded = [(b, s) for b, s in decoded if width(b) >= min_size and height(b) >= min_size]
        boxes, scores = [b for b, _ in decoded], [s for _, s in decoded]
        kept += [(boxes[i], scores[i]) for i in nms(boxes, scores, threshold)[:per_level]]
    if len(levels) > 1:
        kept = sorted(kept, key=lambda k: -k[1])[:over_all]
    return kept


def attributes(logits, none_counts):
    """(probability, id) of each attribute, the most probable first.

    ``logits``: the last one is that of "no attribute".
    """
    counted = logits if none_counts else logits[:-1]
    total = sum(math.exp(x) for x in counted)
    probabilities = [(math.exp(x) / total, i) for i, x in enumerate(logits[:-1])]
    return sorted(probabilities, key=lambda p: -p[0])


# Quarter pixels are exact in float32, and so are sums of them: equal overlaps stay equal.
quarters = st.integers(0, 240).map(lambda n: n / 4)
_sides = st.integers(0, 120).map(lambda n: n / 4)
any_box = st.tuples(quarters, quarters, _sides, _sides).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
# Near one place, so that most of them overlap.
crowded_box = st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(40, 80)] * 2).map(
    lambda b: [b[0] / 4, b[1] / 4, (b[0] + b[2]) / 4, (b[1] + b[3]) / 4]
)


@st.composite
def regions(draw):
    """Boxes and class scores with many equal values."""
    kind = draw(st.sampled_from([any_box, crowded_box, st.one_of(any_box, crowded_box)]))
    boxes = draw(st.lists(kind, min_size=1, max_size=14))
    classes = draw(st.integers(1, 5))
    score = st.integers(0, 6).map(lambda n: n / 8)
    row = st.lists(score, min_size=classes, max_size=classes)
    return boxes, draw(st.lists(row, min_size=len(boxes), max_size=len(boxes)))
