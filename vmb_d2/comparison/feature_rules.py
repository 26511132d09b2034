"""Opinions on features that differ where the boxes match, and on other weights."""

from __future__ import annotations

from .box_rules import wholesale
from .compare import Comparison
from .diagnosis import ALL, FEW, STORES, Opinion, features_unrelated

_FEATURES = frozenset({"features"})
# Format, whether a store's values all are of it, half a unit in its last place.
_FORMATS = (
    ("float16", lambda store: store.float16, 2.0**-11),
    ("bfloat16", lambda store: store.bfloat16, 2.0**-8),
)
_LOWER_PRECISION = (1e-4, 3e-2)


def _differ(c: Comparison) -> bool:
    """Whether the features of ten matched regions or more are beyond the tolerance."""
    errors = c.features.errors
    return len(errors) >= FEW and errors.quantile(0.5) > c.settings.tolerance


def relu(c: Comparison) -> Opinion | None:
    """The features of one store are those of the other with the negative ones set to 0."""
    if not _differ(c) or c.stores[0].negative == c.stores[1].negative:
        return None
    if c.features.rectified_errors.quantile(0.9) > c.settings.tolerance:
        return None
    before, after = STORES if c.stores[0].negative else reversed(STORES)
    return Opinion(
        "relu",
        _FEATURES,
        f"{before} has negative features and {after} none; with them set to 0 the median error is "
        f"{c.features.rectified_errors.quantile(0.5):.1e}: {before} was taken before the ReLU, "
        f"{after} after it. Take max(x, 0) of {before}'s.",
    )


def layer(c: Comparison) -> Opinion | None:
    """The same regions, but the features of another layer."""
    if c.by_row or c.counts.matched < FEW or c.counts.agreement < 0.9:
        return None
    if c.features.incomparable:
        explains = frozenset({"dimension"})
        dimensions = [" and ".join(map(str, store.dimensions)) for store in c.stores]
        evidence = f"features have {dimensions[0]} numbers in A and {dimensions[1]} in B"
    elif features_unrelated(c):
        explains = _FEATURES
        cosine = 1 - c.features.angles.quantile(0.5)
        zeros = [f"{store.sparsity:.0%}" for store in c.stores]
        evidence = f"features have a median cosine of {cosine:.2f} and {zeros[0]} and {zeros[1]} 0s"
        negative = [s for s, store in zip(STORES, c.stores, strict=True) if store.negative]
        if len(negative) == 1:
            evidence += f", negative numbers in {negative[0]} only"
    else:
        return None
    agreement = f"{c.counts.agreement:.1%} of the boxes match"
    same = max(c.classes.same, *c.classes.one_more)
    if c.classes.compared < FEW:
        return Opinion(
            "layer",
            explains,
            f"{agreement} but the {evidence}: another layer, or other weights behind the proposals "
            "(without classes it can't be told). Compare feature_name and the weights.",
        )
    classes = f"{same} of {c.classes.compared} classes"
    if same >= 0.9 * c.classes.compared:
        return Opinion(
            "layer",
            explains,
            f"{agreement} and {classes} agree, but the {evidence}: another layer of the same "
            "network, fc6 and fc7 for example. Extract both with one feature_name.",
        )
    return Opinion(
        "weights",
        explains | {"classes", "cls_prob"},
        f"{agreement}, but only {classes} agree and the {evidence}: the same boxes given to "
        "another model, or other weights behind the proposals. Compare the checkpoints.",
    )


def scaled_features(c: Comparison) -> Opinion | None:
    """The features of one store are those of the other at another length."""
    if not _differ(c):
        return None
    error, angle = c.features.errors.quantile(0.5), c.features.angles.quantile(0.5)
    if angle > 0.01 * error**2 / 2:
        return None
    unit = [
        s for s, store in zip(STORES, c.stores, strict=True) if max(_off_unit(store.norms)) < 1e-2
    ]
    cause = f"{unit[0]}'s are normalised to length 1" if len(unit) == 1 else "one was scaled"
    return Opinion(
        "scaled_features",
        _FEATURES,
        f"Features point the same way (1 - cosine is {angle:.1e}) but differ in length (median "
        f"error {error:.1e}): {cause}. Undo it.",
    )


def _off_unit(norms: tuple[float, float]) -> tuple[float, float]:
    return abs(norms[0] - 1), abs(norms[1] - 1)


def rounding(c: Comparison) -> Opinion | None:
    """The features of one store were kept in a format of fewer bits."""
    errors = c.features.errors
    if len(errors) < FEW:
        return None
    for name, is_of, unit in _FORMATS:
        rounded = [s for s, store in zip(STORES, c.stores, strict=True) if is_of(store)]
        fits = unit / 8 <= errors.quantile(0.5) and errors.quantile(0.9) <= 1.05 * unit
        if len(rounded) == 1 and fits:
            return Opinion(
                "rounding",
                _FEATURES,
                f"All of {rounded[0]}'s features are {name} numbers, and the median error, "
                f"{errors.quantile(0.5):.1e}, is what rounding to {name} makes: {rounded[0]} was "
                f"stored in {name}. That is harmless for most uses.",
            )
    return None


def precision(c: Comparison) -> Opinion | None:
    """All features are slightly off. Only for want of a more precise opinion."""
    errors = c.features.errors
    if len(errors) < FEW or c.counts.agreement < 0.8:
        return None
    low, error = errors.quantile(0.1), errors.quantile(0.5)
    undirected = c.features.angles.quantile(0.5) >= 0.1 * error**2 / 2
    if not _LOWER_PRECISION[0] <= error <= _LOWER_PRECISION[1] or low < error / 10:
        return None
    if not undirected:
        return None
    return Opinion(
        "precision",
        ALL,
        f"Nearly all features are off by about {error:.1e} (a tenth by less than {low:.1e}): "
        "arithmetic of lower precision (TF32, float16 and bfloat16 give 1e-4 to 1e-2; float32 "
        "below 1e-4), or slightly other pixels, of another JPEG decoder or resizing. Extract both "
        "in float32 with TF32 off.",
    )


def weights(c: Comparison) -> Opinion | None:
    """Boxes differ wholesale, and so do features. Only where the images are the same."""
    angles = c.features.angles
    if not wholesale(c) or not (len(angles) < FEW or features_unrelated(c)):
        return None
    rule = "" if c.names.rule == "the whole name" else f", paired by {c.names.rule}"
    return Opinion(
        "weights",
        ALL | {"dimension"},
        f"Only {c.counts.agreement:.1%} of the boxes match, in whatever convention, and features "
        f"with them: other weights or another model, or other images under the names{rule}. "
        "Compare the checkpoints, and one image's boxes by eye.",
    )
