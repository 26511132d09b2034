"""How regions are chosen among a network's proposals: the closed set of read-outs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_OFTEN = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

_IN_ORIGINAL: dict[str, Any] = {"original_pixels": True, "own_class": False}
_FILTER0: dict[str, Any] = {"order": "class", "halves_threshold": True}


@dataclass(frozen=True)
class ReadOut:
    """How regions are chosen.

    Attributes:
        name: in :data:`READ_OUTS`.
        convention: the name of the :class:`vmb_d2.structures.box_geometry.BoxConvention` by which
            non-maximum suppression goes.
        suppression: ``"by_class"``: in every class over all proposals; a region's confidence is its
            highest score among the classes in which it survives. ``"pairs"``: in every class over
            those whose score exceeds the threshold; a proposal occurs once for each class in which
            it survives. ``"once"``: over all proposals by their highest score.
        overlaps: above which regions are suppressed: the first of them that leaves
            ``least`` regions is taken, else the last.
        least, most: numbers of regions.
        threshold: which confidences count, between ``least`` and ``most``; for ``"once"`` none
            does.
        regressed: whether boxes are regressed for the region's class, in suppression too; else
            they are the proposals.
        original_pixels: whether suppression goes by boxes in original pixels; else in network
            pixels.
        order: of the regions: ``"confidence"``: falling. ``"class"``: by class, then by falling
            confidence. ``"proposal"``: that of the proposals, where ``threshold`` decides on their
            number.
        equal_counts: whether a confidence that equals the threshold counts.
        own_class: whether a region's class is the one of its confidence; else the most probable.
        threshold_excludes: whether a score up to the threshold gives no confidence at all.
        halves_threshold: whether the threshold is halved, up to ten times, while fewer than
            ``least`` regions exceed it.
    """

    name: str
    convention: str
    suppression: str
    overlaps: tuple[float, ...]
    least: int
    most: int
    threshold: float
    regressed: bool = False
    original_pixels: bool = False
    order: str = "confidence"
    equal_counts: bool = True
    own_class: bool = True
    threshold_excludes: bool = False
    halves_threshold: bool = False


def _mmf(name: str, least: int, **more: Any) -> ReadOut:
    return ReadOut(name, "vmb", "by_class", (0.5,), least, 100, 0.0, **_IN_ORIGINAL, **more)


def _vinvl(name: str, suppression: str, overlap: float, **more: Any) -> ReadOut:
    return ReadOut(name, "vinvl", suppression, (overlap,), 10, 100, 0.2, **more)


def _frcnn(name: str, suppression: str, overlaps: tuple[float, ...], threshold: float) -> ReadOut:
    return ReadOut(name, "frcnn_vg", suppression, overlaps, 36, 36, threshold, regressed=True)


MMF_READ_OUT = _mmf("mmf", 100, threshold_excludes=True)
READ_OUTS = {
    read_out.name: read_out
    for read_out in (
        MMF_READ_OUT,
        _mmf("adaptive", 10, equal_counts=False),
        _vinvl("vinvl", "by_class", 0.3),
        _vinvl("vinvl_reg", "by_class", 0.3, regressed=True),
        _vinvl("vinvl_filter0", "pairs", 0.5, **_FILTER0),
        _vinvl("vinvl_filter0_reg", "pairs", 0.5, regressed=True, **_FILTER0),
        _vinvl("vinvl_filter2", "once", 0.5),
        _frcnn("frcnn_vg", "once", (0.5, 0.6, 0.7), 0.0),
        _frcnn("airsplay_script", "once", _OFTEN, 0.0),
        _frcnn("airsplay_notebook", "pairs", _OFTEN[2:], 0.2),
        ReadOut("bua", "bua", "by_class", (0.3,), 10, 100, 0.2, order="proposal", **_IN_ORIGINAL),
    )
}
