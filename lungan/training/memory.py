"""The memory of a training step: whether it will fit, and what is freed kept for the next step."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import sys
from typing import Any

import torch
from torch import Tensor, nn

from lungan import memory
from lungan.config import RunConfig
from lungan.errors import LunganError
from lungan.models.build import Classes, build_discriminator, build_generator

# mallopt's parameters, as in glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1

_NUMBER_BYTES = 4


def check_networks(config: RunConfig, device: torch.device, precision: str) -> None:
    """Check, before either network is made, that both can be trained on ``device``: their weights
    with gradients, optimizer states and average, and the feature maps of one batch, which the
    backward pass needs. Both are less than training takes, so that nothing that fits is refused.

    Raises: ConfigError.
    """
    is_cuda = device.type == "cuda"
    there_is = torch.cuda.mem_get_info(device)[0] if is_cuda else memory.available()
    if there_is is None:
        return
    try:
        networks = _without_memory(config)
    except LunganError:
        raise
    except Exception:  # a plug-in's network that cannot be made without content is not estimated
        return
    parts = {"generator": config.generator, "discriminator": config.discriminator}
    widths = [
        f"{name}.width={part.width}" for name, part in parts.items() if hasattr(part, "width")
    ]
    counts = [sum(weight.numel() for weight in each.parameters()) for each in networks]
    # What an optimizer keeps for each weight; of a plug-in's it is not known.
    has_momentum = getattr(config.optimizer, "momentum", 0) != 0
    states = {"adam": 2, "adamw": 2, "rmsprop": 1 + has_momentum, "sgd": int(has_momentum)}
    copies = 2 + states.get(config.optimizer.name, 0)
    average = counts[0] if config.generator.ema_half_life_images else 0
    needed = _NUMBER_BYTES * (sum(counts) * copies + average)
    memory.check(
        needed,
        f"{' and '.join(widths) or 'both networks'} with {sum(counts)} weights, their gradients "
        f"and optimizer={config.optimizer.name}",
        "choose narrower networks",
        there_is,
    )
    batch = math.ceil(config.batch_size / config.loss.micro_batches)
    if needed + _at_most(networks, batch, config.data.size) <= there_is:
        return
    numbers = _feature_numbers(networks, config, batch)
    needed += numbers * (2 if precision == "bf16" else _NUMBER_BYTES)
    memory.check(
        needed,
        f"batch_size={config.batch_size} at data.size={config.data.size} with "
        f"{' and '.join(widths) or 'these networks'}",
        "choose a smaller batch_size, narrower networks, or more loss.micro_batches with "
        "loss.update=alternating",
        there_is,
    )


def _without_memory(config: RunConfig) -> list[nn.Module]:
    """Both networks, of tensors that have a shape and no content; without spectral normalization,
    which needs content and takes next to nothing."""
    discriminator = dataclasses.replace(config.discriminator, spectral_norm=False)
    classes = Classes(("", ""), (0.5, 0.5)) if config.generator.conditional else None
    shape = (config.data.size, config.data.channels)
    with torch.device("meta"):
        return [
            build_generator(config.generator, *shape, classes=classes),
            build_discriminator(discriminator, *shape, classes=classes),
        ]


def _leaves(networks: list[nn.Module]) -> list[nn.Module]:
    return [each for network in networks for each in network.modules() if not [*each.children()]]


def _at_most(networks: list[nn.Module], batch: int, size: int) -> int:
    """Bytes of as many of the widest feature maps as there are layers: quick, and far too many."""
    shapes = [weight.shape for network in networks for weight in network.parameters()]
    widest = [max(shape[:2]) * (size**2 if len(shape) == 4 else 1) for shape in shapes if shape]
    return _NUMBER_BYTES * batch * max(widest, default=0) * len(_leaves(networks))


def _feature_numbers(networks: list[nn.Module], config: RunConfig, batch: int) -> int:
    """What the layers of both networks give for a batch, counted without computing it."""
    counts: list[int] = []

    def count(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            counts.append(output.numel())

    for layer in _leaves(networks):
        layer.register_forward_hook(count)
    # A network of a plug-in may look at what its tensors hold, and then only its weights count.
    with contextlib.suppress(Exception), torch.device("meta"), torch.no_grad():
        labels = torch.zeros(batch, dtype=torch.int64)
        latents = torch.zeros(batch, config.generator.latent_dim)
        given = {"labels": labels} if config.generator.conditional else {}
        generator, discriminator = networks
        discriminator(generator(latents, **given), **given)
    return sum(counts)


def keep_freed_memory() -> None:
    """Let this process keep what it frees, where its C library is glibc; no effect elsewhere.

    By default glibc returns blocks of some megabytes to the kernel, and every step would get the
    memory of its feature maps back in 4 KiB pages that the kernel first has to clear.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _LARGEST)
