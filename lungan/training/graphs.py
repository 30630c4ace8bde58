"""Work recorded as CUDA graphs, so that a step costs the host a few calls instead of hundreds.

Source: PyTorch's notes on CUDA semantics, section CUDA Graphs: first calls on a side stream,
recording there without waiting for the device, inputs and gradients that keep their addresses.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NUM_EAGER_CALLS = 3
"""Before the recording, so that libraries choose their algorithms and set up what they need."""

Work = Callable[[], Tensor]
"""Leaves gradients with parameters that have none. Reads and writes nothing that changes its
address, and gives numbers for the log, in one tensor."""

log = logging.getLogger(__name__)


class Graphs:
    """Does work, by graphs from the fourth call of a kind on; eagerly where there can be none."""

    def __init__(self, parameters: Iterable[nn.Parameter], device: torch.device) -> None:
        self._parameters = list(parameters)
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._calls: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, _Graph] = {}
        self._possible = True

    def __call__(self, key: Hashable, work: Work) -> Tensor:
        """key: of the kind of work; all that is not a tensor's content is the same under it."""
        if key not in self._graphs and self._possible and self._calls[key] >= NUM_EAGER_CALLS:
            self._record(key, work)
        if key in self._graphs:
            return self._graphs[key].replay()
        self._calls[key] += 1
        return self._eagerly(work)

    def _eagerly(self, work: Work) -> Tensor:
        """On the stream of the recording: autograd remembers the one that it first saw."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            scalars = work()
        current.wait_stream(self._stream)
        return scalars

    def _record(self, key: Hashable, work: Work) -> None:
        current = torch.cuda.current_stream(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                scalars = work()
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # a recording that fails late leaves its own
            self._possible = False
            reason = str(error).partition("\n")[0]
            log.warning("steps are not recorded as CUDA graphs, and slower so: %s", reason)
        else:
            gradients = [(p, p.grad) for p in self._parameters if p.grad is not None]
            self._graphs[key] = _Graph(graph, scalars, gradients)
        for parameter in self._parameters:
            parameter.grad = None


@dataclass(frozen=True, slots=True)
class _Graph:
    """``scalars`` and ``gradients`` are where every replay writes."""

    graph: torch.cuda.CUDAGraph
    scalars: Tensor
    gradients: list[tuple[nn.Parameter, Tensor]]

    def replay(self) -> Tensor:
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.scalars.clone()
