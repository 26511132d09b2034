"""Which image of one store is which of the other: by name, or by what names have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass


def _file_name(name: str) -> str:
    return name.rpartition("/")[2].split(".")[0]


def _number(name: str) -> str | None:
    digits = _file_name(name).rpartition("_")[2]
    return str(int(digits)) if digits.isascii() and digits.isdigit() else None


EXACT = "the whole name"
# What of a name counts, by falling strictness. None: the name has no such part.
RULES: dict[str, Callable[[str], str | None]] = {
    EXACT: lambda name: name,
    "the name up to its first dot": lambda name: name.rpartition("/")[0] + "/" + _file_name(name),
    "the file name without folders, up to its first dot": _file_name,
    "the integer after the last underscore": _number,
}


@dataclass(frozen=True)
class NamePairs:
    """The images of two stores, paired.

    Attributes:
        rule: the key of ``RULES`` by which they were paired.
        pairs: (name in A, name in B), in A's order.
        only_a, only_b: the names that have no partner, in their order.
    """

    rule: str
    pairs: list[tuple[str, str]]
    only_a: list[str]
    only_b: list[str]


def pair_names(names_a: Iterable[str], names_b: Iterable[str]) -> NamePairs:
    """Pair the names by the first rule that pairs half of the smaller store's.

    Where none does, by the one that pairs the most, the strictest of equals. One rule holds for
    all names: what the whole name leaves over is missing in the other store, and must not be
    paired by a laxer rule.
    """
    names_a, names_b = list(names_a), list(names_b)
    enough = min(len(names_a), len(names_b)) / 2
    best = _pair(EXACT, names_a, names_b)
    for rule in list(RULES)[1:]:
        if best.pairs and len(best.pairs) >= enough:
            break
        best = max(best, _pair(rule, names_a, names_b), key=lambda paired: len(paired.pairs))
    return best


def _pair(rule: str, names_a: list[str], names_b: list[str]) -> NamePairs:
    unique_a, unique_b = _by_key(rule, names_a), _by_key(rule, names_b)
    partner = {name: unique_b[key] for key, name in unique_a.items() if key in unique_b}
    taken = set(partner.values())
    return NamePairs(
        rule=rule,
        pairs=[(name, partner[name]) for name in names_a if name in partner],
        only_a=[name for name in names_a if name not in partner],
        only_b=[name for name in names_b if name not in taken],
    )


def _by_key(rule: str, names: list[str]) -> dict[str, str]:
    """Names by the key that only they have."""
    keys = [RULES[rule](name) for name in names]
    counts = Counter(keys)
    return {k: name for k, name in zip(keys, names, strict=True) if k and counts[k] == 1}


def spread(pairs: list[tuple[str, str]], limit: int | None) -> list[tuple[str, str]]:
    """``limit`` of the pairs, evenly spread over A's sorted names, in the order given; or all."""
    if limit is None or limit >= len(pairs):
        return pairs
    ordered = sorted(pairs)
    chosen = {ordered[i * len(ordered) // limit] for i in range(limit)}
    return [pair for pair in pairs if pair in chosen]
