"""A network used in evaluation mode for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the mode that it had after."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
