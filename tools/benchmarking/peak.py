"""What the hardware gives at most: a large product of matrices in the network's precision."""

from __future__ import annotations

import torch

from vmb_d2.utils.devices import arithmetic, dtype_of

from .stages import clock

_SIDES = {"cpu": 2048, "cuda": 8192}
_PRODUCTS = 5


@torch.no_grad()
def peak_macs_per_second(
    precision: str, device: torch.device, side: int | None = None, products: int = _PRODUCTS
) -> float:
    """Multiply-accumulates a second of the fastest of several products.

    Args:
        precision: of ``PRECISIONS``; the product of fp32 is without TF32.
        device: where.
        side: of the square matrices; None for one that is large for the device.
        products: how many, after one to warm up.
    """
    side = side or _SIDES[device.type]
    a, b = (torch.rand(side, side, device=device).to(dtype_of(precision)) for _ in range(2))
    now, fastest = clock(device), float("inf")
    with arithmetic(precision):
        torch.matmul(a, b)
        for _ in range(products):
            begin = now()
            torch.matmul(a, b)
            fastest = min(fastest, now() - begin)
    return side**3 / fastest
