"""What the hardware gives at most: a large product of matrices in the network's precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from .stages import clock

# What each name of a precision stands for in a product of matrices.
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_SIDES = {"cpu": 2048, "cuda": 8192}
_PRODUCTS = 5


@torch.no_grad()
def peak_macs_per_second(
    precision: str, device: torch.device, side: int | None = None, products: int = _PRODUCTS
) -> float:
    """Multiply-accumulates a second of the fastest of several products.

    Args:
        precision: of :data:`DTYPES`; the product of fp32 is without TF32.
        device: where.
        side: of the square matrices; None for one that is large for the device.
        products: how many, after one to warm up.
    """
    side = side or _SIDES[device.type]
    a, b = (torch.rand(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    now, fastest = clock(device), float("inf")
    with _tf32(precision == "tf32"):
        torch.matmul(a, b)
        for _ in range(products):
            begin = now()
            torch.matmul(a, b)
            fastest = min(fastest, now() - begin)
    return side**3 / fastest


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, allowed
    try:
        yield
    finally:
        products.allow_tf32 = before
