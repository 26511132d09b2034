"""Backbone and RPN head, whose shapes follow from the images', compiled or replayed as CUDA graphs.

The shapes of what follows them depend on the proposals too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .inference_form import shared_copy

MOST_SHAPES = 8  # of each module; with x152, each takes 180 MB an image for inputs and results

Run = Callable[[Any], Any]


def compiled(model: nn.Module, mode: str, backend: str = "inductor") -> Any:
    """A copy of a VMB model that shares its weights, with its backbone and RPN head compiled.

    Args:
        model: in evaluation mode, on its device. It is not changed.
        mode: ``"graphs"``: the results are the same. What a call returns is overwritten by the
            next call. ``"inductor"``: they are the same up to rounding; how it
            deals with other shapes is ``torch.compile``'s own rule.
        backend: of ``torch.compile``.
    """
    result = shared_copy(model)
    rpn = result.proposal_generator
    if mode == "graphs":
        pool = torch.cuda.graph_pool_handle()

        def capture(module: nn.Module, inputs: Any) -> Run:
            return captured(module, inputs, pool)

        result.backbone, rpn.rpn_head = (
            Replayed(module, capture) for module in (result.backbone, rpn.rpn_head)
        )
    else:
        for module in (result.backbone, rpn.rpn_head):
            module.compile(backend=backend)
    return result


class Replayed(nn.Module):
    """A module that is captured for a shape of its input when that comes for the second time.

    The first time it runs as it is, since capturing takes longer than it gains once.

    Args:
        module: takes a tensor, or a list of tensors.
        capture: gives what runs in place of the module, for inputs of the shape of those given.
        most: shapes that are remembered. The one whose last use is the longest ago is dropped.
    """

    def __init__(
        self, module: nn.Module, capture: Callable[[nn.Module, Any], Run], most: int = MOST_SHAPES
    ):
        super().__init__()
        self.module = module
        self._capture = capture
        self._most = most
        self._runs: OrderedDict[tuple[torch.Size, ...], Run | None] = OrderedDict()

    def forward(self, inputs: Any) -> Any:
        """What the module gives for ``inputs``."""
        key = tuple(tensor.shape for tensor in _tensors(inputs))
        run = None
        if key in self._runs:
            run = self._runs.pop(key) or self._capture(self.module, inputs)
        elif len(self._runs) == self._most:
            self._runs.popitem(last=False)
        self._runs[key] = run
        return (run or self.module)(inputs)


def captured(module: nn.Module, inputs: Any, pool: Any) -> Run:
    """A function that runs a module as a CUDA graph. Each run overwrites what the last returned.

    Args:
        module: on a GPU.
        inputs: a tensor or a list of tensors, like those that the function gets.
        pool: of memory, shared by graphs of which only one runs at a time.
    """
    own = inputs.clone() if isinstance(inputs, Tensor) else [tensor.clone() for tensor in inputs]
    device = _tensors(own)[0].device
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        module(own)  # what libraries prepare in a first call on a stream can't be captured
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may allocate memory and wait meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        outputs = module(own)

    def run(inputs: Any) -> Any:
        with torch.inference_mode():  # or tensors captured in it couldn't be written to
            for target, source in zip(_tensors(own), _tensors(inputs), strict=True):
                target.copy_(source)
        graph.replay()
        return outputs

    return run


def _tensors(inputs: Any) -> Sequence[Tensor]:
    return [inputs] if isinstance(inputs, Tensor) else inputs
