"""DCGAN networks of R runs as one: every weight has a leading dimension of runs.

They are functions of the same weights as ``lungan.models.dcgan``'s modules.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lungan.config import DcganDiscriminatorConfig, DcganGeneratorConfig
from lungan.models.dropout import RandomBits, survivors_scale, threshold
from lungan.training.stacked.convolution import (
    block_kernel,
    convolution,
    from_blocks,
    transposed_kernel,
)

Tensors = dict[str, Tensor]


class StackedWeights:
    """The weights of networks of one shape.

    flat: (R, P), each run's weights in a row, which is what optimizers and averages work on.
    parameters: by the module's names, (R, ...) leaves that share memory with ``flat``.
    buffers: by the module's names, (R, ...).
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._shapes = {name: p.shape for name, p in networks[0].named_parameters()}
        self.flat = torch.stack([torch.cat(_flattened(network)) for network in networks])
        self.parameters = {
            name: view.requires_grad_() for name, view in self.views(self.flat).items()
        }
        each = [dict(network.named_buffers()) for network in networks]
        self.buffers = {name: torch.stack([b[name] for b in each]) for name in each[0]}

    def views(self, flat: Tensor) -> Tensors:
        """Rows (R, P) as what the module's parameters are named."""
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = torch.split(flat.detach(), sizes, dim=1)
        return {
            name: part.view(len(flat), *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    @torch.no_grad()
    def copy_to(self, network: nn.Module, row: int, flat: Tensor | None = None) -> None:
        """Give a module the weights of one run, from ``flat`` (R, P) where that is given."""
        views = self.views(self.flat if flat is None else flat)
        for name, parameter in network.named_parameters():
            parameter.copy_(views[name][row])
        for name, buffer in network.named_buffers():
            buffer.copy_(self.buffers[name][row])

    def flatten(self, gradients: Sequence[Tensor]) -> Tensor:
        """Gradients of ``parameters``, in their order, as (R, P)."""
        return torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)


def _flattened(network: nn.Module) -> list[Tensor]:
    # contiguous(), since flatten() of channels-last weights would do, but say less.
    return [parameter.detach().contiguous().flatten() for parameter in network.parameters()]


class StackedGenerator:
    """``DcganGenerator``s of one config."""

    def __init__(self, config: DcganGeneratorConfig, module: nn.Module) -> None:
        self._config = config
        base_size, convolutions = module.base_size, module.convolutions
        assert isinstance(base_size, int) and isinstance(convolutions, nn.ModuleList)
        self._base_size = base_size
        self._num_convolutions = len(convolutions)

    def __call__(
        self, parameters: Tensors, buffers: Tensors, latents: Tensor, *, training: bool
    ) -> Tensor:
        """Latents (R, N, latent_dim) to images (N, R * channels, size, size) in [-1, 1].

        training: with the batch's statistics, which the running ones follow.
        """
        num_runs, num = latents.shape[:2]

        def active(name: str, features: Tensor) -> Tensor:
            normalized = self._normalize(name, parameters, buffers, features, training)
            return F.leaky_relu(normalized, self._config.leaky_slope)

        features = torch.bmm(latents, parameters["projection.weight"].transpose(1, 2))
        features = active("projection_norm", features.transpose(0, 1).reshape(num, -1))
        # Features are laid out (height, width, channel) of each run.
        side = self._base_size
        features = features.view(num, num_runs, side, side, -1).permute(0, 2, 3, 1, 4)
        features = features.reshape(num, side, side, -1).permute(0, 3, 1, 2)
        for number in range(self._num_convolutions):
            weight = parameters[f"convolutions.{number}.weight"]
            features = _same(features, weight) if number == 0 else _twice(features, weight)
            features = active(f"norms.{number}", features)
        return torch.tanh(_twice(features, parameters["to_images.weight"]))

    def _normalize(
        self, name: str, parameters: Tensors, buffers: Tensors, features: Tensor, training: bool
    ) -> Tensor:
        """As ``models.layers.BatchNorm``, each run's channels by themselves."""
        weight = parameters[f"{name}.weight"].reshape(-1)
        bias = parameters[f"{name}.bias"].reshape(-1)
        running_mean = buffers[f"{name}.running_mean"]
        running_variance = buffers[f"{name}.running_variance"]
        epsilon = self._config.batch_norm_epsilon
        if not training:
            mean, variance = running_mean.reshape(-1), running_variance.reshape(-1)
            return F.batch_norm(features, mean, variance, weight, bias, eps=epsilon)
        normalized, mean, inverse_std = torch.native_batch_norm(
            features, weight, bias, None, None, True, 0.0, epsilon
        )
        with torch.no_grad():
            variance = inverse_std.pow(-2).sub_(epsilon)
            momentum = self._config.batch_norm_momentum
            running_mean.lerp_(mean.view_as(running_mean), momentum)
            running_variance.lerp_(variance.view_as(running_variance), momentum)
        return normalized


class StackedDiscriminator:
    """``DcganDiscriminator``s of one config."""

    def __init__(self, config: DcganDiscriminatorConfig, module: nn.Module) -> None:
        self._config = config
        convolutions = module.convolutions
        assert isinstance(convolutions, nn.ModuleList)
        self._num_convolutions = len(convolutions)

    def __call__(
        self, parameters: Tensors, images: Tensor, bits: Sequence[RandomBits] | None
    ) -> Tensor:
        """Images (N, R * channels, size, size) to logits (R, N).

        bits: where each run's dropout masks come from; None turns dropout off.
        """
        dropout, slope = self._config.dropout, self._config.leaky_slope
        features = images.flip(2, 3)  # the weights belong to turned features
        for number in range(self._num_convolutions):
            weight = parameters[f"convolutions.{number}.weight"]
            bias = parameters[f"convolutions.{number}.bias"]
            if bits is None or dropout == 0:
                features = F.leaky_relu(convolution(features, weight, bias, 2, 2), slope)
            else:
                scale = survivors_scale(dropout)
                features = convolution(features, weight * scale, bias * scale, 2, 2)
                features = F.leaky_relu(features, slope) * _kept(features, bits, dropout)
        num_runs = len(weight)
        num, _, height, width = features.shape
        rows = features.permute(0, 2, 3, 1).reshape(num, height * width, num_runs, -1)
        rows = rows.permute(2, 0, 1, 3).reshape(num_runs, num, -1)
        if self._config.hidden_width:
            rows = F.leaky_relu(_dense("hidden", parameters, rows), slope)
        return _dense("linear", parameters, rows).squeeze(2)


def _dense(name: str, parameters: Tensors, rows: Tensor) -> Tensor:
    """(R, N, C) -> (R, N, C')."""
    bias = parameters[f"{name}.bias"].unsqueeze(1)
    return torch.baddbmm(bias, rows, parameters[f"{name}.weight"].transpose(1, 2))


def _same(features: Tensor, weight: Tensor) -> Tensor:
    """Transposed convolutions with stride 1 and SAME padding; weight (R, C, C', 5, 5)."""
    return convolution(features, transposed_kernel(weight), None, 1, 2)


def _twice(features: Tensor, weight: Tensor) -> Tensor:
    """The same with stride 2: SAME crops one row and column before and two after."""
    blocks = convolution(features, block_kernel(weight, before=1), None, 1, 1)
    return from_blocks(blocks, len(weight))


def _kept(features: Tensor, bits: Sequence[RandomBits], dropout: float) -> Tensor:
    """Zeros where dropped and ones elsewhere, like ``features`` (N, R * C, H, W).

    Each run's bits are laid out (N, H, W, C), as a single run's are.
    """
    num, channels, height, width = features.shape
    each = (num, height, width, channels // len(bits))
    count = features.numel() // len(bits)
    drawn = torch.stack([source(count).view(each) for source in bits], dim=3)
    kept = drawn >= threshold(dropout) - 32768
    return kept.flatten(3).permute(0, 3, 1, 2).to(features.dtype)
