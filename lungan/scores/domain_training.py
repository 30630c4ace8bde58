"""Training the in-domain network, and measuring how well it tells the classes apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lungan.classifiers.measures import Quality, judge
from lungan.classifiers.network import DomainNetwork, in_channels_last
from lungan.classifiers.train import OneCycle


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the network is trained; part of the key it is cached under.

    ``epochs`` within ``min_steps`` and ``max_steps``, so that a small set is trained on long enough
    and a large one not for hours. One cycle of the learning rate up to ``peak_lr``. ``shift``: the
    most pixels that an image is moved by, along each axis.
    """

    version: int = 1
    seed: int = 0
    epochs: int = 10
    min_steps: int = 300
    max_steps: int = 2000
    batch_size: int = 64
    peak_lr: float = 0.2
    warmup_fraction: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift: int = 2

    def num_steps(self, num_images: int) -> int:
        steps = self.epochs * num_images // self.batch_size
        return min(max(steps, self.min_steps), self.max_steps)


RECIPE = Recipe()


def train(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    num_classes: int,
    device: torch.device,
    dtype: torch.dtype,
    recipe: Recipe,
) -> DomainNetwork:
    """A network trained on images: (N, C, H, W) with labels: (N,) from 0 to num_classes - 1.

    Neither reads nor moves torch's global random state, which belongs to the run.
    """
    rng = torch.Generator().manual_seed(recipe.seed)
    network = _draw_network(images.shape[2], images.shape[1], num_classes, recipe.seed).to(device)
    in_channels_last(network)
    inputs = network.preprocess(torch.from_numpy(images))
    targets = torch.from_numpy(labels)
    num_steps = recipe.num_steps(len(images))
    optimizer = OneCycle(
        network,
        num_steps,
        peak_lr=recipe.peak_lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        warmup_fraction=recipe.warmup_fraction,
    )
    batches = _draw_batches(len(images), recipe.batch_size, rng)
    with torch.enable_grad():
        for _ in tqdm(range(num_steps), desc="in-domain encoder", unit="step", disable=None):
            indices = next(batches)
            batch = _shift(inputs[indices], recipe.shift, rng).to(device)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                _, logits = network.classify(batch.to(memory_format=torch.channels_last))
            loss = F.cross_entropy(
                logits.float(), targets[indices].to(device), label_smoothing=recipe.label_smoothing
            )
            optimizer.step(loss)
    return network.eval().requires_grad_(False)


def measure(
    network: DomainNetwork,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    device: torch.device,
) -> Quality:
    """How well the network tells images: (N, C, H, W) apart that it was not trained on."""
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(images), 128)
        logits = [network(batch.to(device))[1] for batch in batches]
        probabilities = torch.cat(logits).double().softmax(dim=1).cpu().numpy()
    return judge(probabilities, labels)


def _draw_network(image_size: int, channels: int, num_classes: int, seed: int) -> DomainNetwork:
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the GPUs, which are not forked here.
        torch.default_generator.manual_seed(seed)
        return DomainNetwork(image_size, channels, num_classes)


def _draw_batches(num_images: int, batch_size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Indices, batch after batch, from one shuffled pass after another."""
    left = torch.empty(0, dtype=torch.int64)
    while True:
        while len(left) < batch_size:
            left = torch.cat([left, torch.randperm(num_images, generator=rng)])
        yield left[:batch_size]
        left = left[batch_size:]


def _shift(inputs: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Each image moved by up to ``most`` pixels along each axis, its edge repeated."""
    num_images, channels, height, width = inputs.shape
    padded = F.pad(inputs, (most, most, most, most), mode="replicate")
    offsets = torch.randint(0, 2 * most + 1, (2, num_images, 1, 1, 1), generator=rng)
    rows = torch.arange(height)[:, None] + offsets[0]
    columns = torch.arange(width) + offsets[1]
    images = torch.arange(num_images)[:, None, None, None]
    return padded[images, torch.arange(channels)[:, None, None], rows, columns]
