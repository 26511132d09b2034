"""Winograd's minimal filtering for 3x3 convolutions on a CPU, in float32.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015: F(4x4, 3x3). A tile of
4 x 4 outputs takes 36 multiplications for each pair of channels instead of 144. The sums before and
after them don't pay with few channels.

The paper's interpolation points are 0, 1, -1, 2, -2 and infinity. With the points below the
matrices of tiles and products are still exact in float32, and the error is less than half as large:
with 512 channels 1.0e-6 (relative L2) where the paper's points give 2.4e-6, F(2x2, 3x3) 3.6e-7 and
the convolution itself 1.9e-7.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

from .inference_form import shared_copy

POINTS = (0, 3 / 2, -3 / 2, 5 / 8, -5 / 8)  # and infinity
OUT, IN = 4, 6  # sides of a tile of outputs, and of the inputs that it depends on
# Where it pays: with so many channels in and out, on a map that takes a hundredth of an image's
# time, or on one of two by two tiles, as regions have, many of which share a product. It depends on
# nothing but the shape of a map, so that the features of an image don't depend on its batch mates.
MIN_CHANNELS = 512
MIN_MULTIPLICATIONS = 10**10  # of the convolution
OF_REGIONS = (2, 2)
TILES_AT_ONCE = 256  # of 36 values in each channel, about


def with_winograd(model: nn.Module) -> Any:
    """A copy of a model for inference, with dense 3x3 convolutions by Winograd's minimal filtering.

    It shares the weights, and its state dict is the same. Convolutions of stride 1, dilated or not,
    whose maps keep their size, are replaced if they have at least 512 channels in and out. Features
    change as by rounding.

    Args:
        model: in evaluation mode, on the CPU, in float32. It is not changed.
    """
    result = shared_copy(model)
    for module in result.modules():
        if isinstance(module, Conv2d) and _fits(module):
            module.register_buffer("filters", transformed(module.weight), persistent=False)
            module.__class__ = WinogradConv2d  # the same object, since plain lists refer to it
    return result


def _fits(convolution: Conv2d) -> bool:
    return (
        convolution.kernel_size == (3, 3)
        and convolution.stride == (1, 1)
        and convolution.padding == convolution.dilation
        and convolution.dilation[0] == convolution.dilation[1]
        and convolution.groups == 1
        and min(convolution.in_channels, convolution.out_channels) >= MIN_CHANNELS
    )


class WinogradConv2d(Conv2d):
    """Detectron2's ``Conv2d``, 3x3, of stride 1, computed from ``filters`` where that pays."""

    filters: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`detectron2.layers.Conv2d`."""
        step = self.dilation[0]
        height, width = x.shape[-2:]
        tiles = tuple(-(-side // (step * OUT)) for side in (height, width))
        multiplications = height * width * self.weight.numel()
        if not len(x) or (tiles != OF_REGIONS and multiplications < MIN_MULTIPLICATIONS):
            return super().forward(x)
        # A dilated convolution is an ordinary one of every step-th row and column.
        parts = x if step == 1 else _every(x, step)
        y = minimal_filtering(parts, self.filters, self.bias)
        if step > 1:
            y = _interleaved(y, step)[..., :height, :width].contiguous()
        if self.norm is not None:
            y = self.norm(y)
        return y if self.activation is None else self.activation(y)


def _every(x: Tensor, step: int) -> Tensor:
    """(N, C, H, W) -> (N step step, C, H / step, W / step): rows and columns step apart."""
    count, channels, height, width = x.shape
    x = F.pad(x, (0, -width % step, 0, -height % step))
    x = x.view(count, channels, x.shape[2] // step, step, x.shape[3] // step, step)
    return x.permute(0, 3, 5, 1, 2, 4).flatten(0, 2)


def _interleaved(x: Tensor, step: int) -> Tensor:
    """What :func:`_every` took apart, with the rows and columns that it added."""
    return x.unflatten(0, (-1, step, step)).permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


@functools.cache
def matrices() -> tuple[Tensor, Tensor, Tensor]:
    """The transforms of tiles (36, 36), of filters (36, 9) and of products (16, 36), in float64.

    A tile, a filter and the products are vectors, row after row. Toom's and Cook's algorithm: the
    products are those of two polynomials' values at the points, transposed.
    """
    points = torch.tensor(POINTS, dtype=torch.float64)
    others = [torch.cat([points[:i], points[i + 1 :]]) for i in range(len(points))]
    tile = torch.zeros(IN, IN, dtype=torch.float64)
    filters = torch.zeros(IN, 3, dtype=torch.float64)
    products = torch.zeros(OUT, IN, dtype=torch.float64)
    for i, (point, rest) in enumerate(zip(points, others, strict=True)):
        tile[i, :-1] = _polynomial(rest)
        filters[i] = point ** torch.arange(3) / (point - rest).prod()
        products[:, i] = point ** torch.arange(OUT)
    tile[-1] = _polynomial(points)
    filters[-1, -1] = products[-1, -1] = 1
    return torch.kron(tile, tile), torch.kron(filters, filters), torch.kron(products, products)


def _polynomial(roots: Tensor) -> Tensor:
    """The coefficients of the polynomial with these roots, that of the highest power last, 1."""
    result = roots.new_ones(1)
    for root in roots:
        result = F.pad(result, (1, 0)) - root * F.pad(result, (0, 1))
    return result


def transformed(weight: Tensor) -> Tensor:
    """Filters (K, C, 3, 3) -> (36, C, K), computed in float64, in the dtype of ``weight``."""
    _, filters, _ = matrices()
    flat = weight.detach().permute(2, 3, 1, 0).flatten(0, 1)
    return (filters @ flat.flatten(1).double()).to(weight.dtype).view(IN * IN, *flat.shape[1:])


def minimal_filtering(x: Tensor, filters: Tensor, bias: Tensor | None = None) -> Tensor:
    """The 3x3 convolution of stride 1 with a padding of 1: (N, C, H, W) -> (N, K, H, W).

    About 256 tiles at a time: some maps, or some rows of tiles of one. How many doesn't change the
    result: MKL's sums in a product of matrices are the same for any number of rows from 4 on.

    Args:
        filters: (36, C, K), see :func:`transformed`.
        bias: (K,).
    """
    count, channels, height, width = x.shape
    out = x.new_empty(count, filters.shape[2], height, width)
    rows, columns = -(-height // OUT), -(-width // OUT)
    for first, last in _pieces(count, TILES_AT_ONCE // (rows * columns)):
        for top, bottom in _pieces(rows, TILES_AT_ONCE // columns):
            begin, end = top * OUT, min(bottom * OUT, height)
            above, below = max(begin - 1, 0), min(bottom * OUT + 1, height)
            padded = x.new_zeros(
                last - first, (bottom - top) * OUT + 2, columns * OUT + 2, channels
            )
            inner = padded[:, above - begin + 1 : below - begin + 1, 1 : width + 1]
            inner.copy_(x[first:last, :, above:below].permute(0, 2, 3, 1))
            y = _filtered(padded, filters)[:, : end - begin, :width]
            if bias is not None:
                y = y + bias
            # Transposed as a matrix, which is faster.
            y = y.flatten(0, 2).t().contiguous()
            out[first:last, :, begin:end] = y.view(-1, last - first, end - begin, width).transpose(
                0, 1
            )
    return out


def _filtered(padded: Tensor, filters: Tensor) -> Tensor:
    """Maps (N, 4 R + 2, 4 S + 2, C), channels last -> (N, 4 R, 4 S, K)."""
    of_tile, _, of_products = (matrix.to(padded.dtype) for matrix in matrices())
    tiles = padded.unfold(1, IN, OUT).unfold(2, IN, OUT).permute(4, 5, 0, 1, 2, 3)
    maps, rows, columns, channels = tiles.shape[2:]
    values = of_tile @ tiles.reshape(IN * IN, -1)
    products = torch.bmm(values.view(IN * IN, -1, channels), filters)
    y = of_products @ products.flatten(1)
    y = y.view(OUT, OUT, maps, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
    return y.flatten(3, 4).flatten(1, 2)


def _pieces(total: int, most: int) -> Iterator[tuple[int, int]]:
    """Begin and end of pieces of nearly equal size, of ``most`` or of one if it is less."""
    pieces = -(-total // max(most, 1))
    return ((i * total // pieces, (i + 1) * total // pieces) for i in range(pieces))
