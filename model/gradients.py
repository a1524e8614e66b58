"""The loss of a batch and its gradients, worked out in parts that are added in order.

Small networks gain nothing from threads within an operation. Two halves of a batch, each with a thread of its own,
take little more than half the time: 30 ms where one thread takes 52 (48 frames, two cores). How a batch is parted
does not depend on the number of threads: neither does the result.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from model.data import Samples

Loss = Callable[[Samples], Tensor]
"""A scalar: the mean over the samples."""
Gradients = tuple[Tensor | None, ...]
"""One for each parameter; None where the loss does not depend on it."""
Descent = Callable[[Loss, Sequence[Samples], Sequence[Tensor]], float]
"""Sets the parameters' gradients of the mean loss over a batch, given in parts; returns that loss."""


@contextmanager
def descending(threads: int) -> Iterator[Descent]:
    """Works out gradients with so many threads. torch's own number of threads is as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:

            def descend(loss: Loss, parts: Sequence[Samples], parameters: Sequence[Tensor]) -> float:
                batch = sum(map(len, parts))
                done = list(pool.map(lambda part: _part(loss, part, batch, parameters), parts))
                for parameter, *gradients in zip(parameters, *(g for _, g in done), strict=True):
                    parameter.grad = _sum(parameter, gradients)
                return sum(value for value, _ in done)

            yield descend
    finally:
        torch.set_num_threads(before)


def parted(batch: Samples, parts: int) -> list[Samples]:
    """Views of a batch, alike in length; fewer where it has fewer samples. Small networks want two: smaller parts
    leave the cores waiting for Python."""
    edges = part_edges(len(batch), parts)
    return [batch.take(slice(low, high)) for low, high in itertools.pairwise(edges) if high > low]


def part_edges(count: int, parts: int) -> list[int]:
    """Where the parts of so many samples begin and end: parts + 1 rising numbers from 0 to `count`."""
    return [count * part // parts for part in range(parts + 1)]


def _part(loss: Loss, part: Samples, whole: int, parameters: Sequence[Tensor]) -> tuple[float, Gradients]:
    """What a part adds to the batch's loss and gradients."""
    value = loss(part) * (len(part) / whole)
    return float(value.detach()), torch.autograd.grad(value, parameters, allow_unused=True)


def _sum(parameter: Tensor, gradients: Sequence[Tensor | None]) -> Tensor | None:
    """Laid out as the parameter is: fused optimisers read both side by side and do not look at strides."""
    known = [g for g in gradients if g is not None]
    return functools.reduce(Tensor.add_, known, torch.zeros_like(parameter)) if known else None
