"""Soft-edged shapes and noise from which the phantom is drawn.

Only operations that IEEE 754 rounds exactly (+, -, *, /, square root) touch the pixels, no exp or
sine, and sums of products stay within 24 bits: the same factors give the same bytes on any machine.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def ramp(distance: Field) -> Field:
    """A smooth step: 0 below -1, 1 above 1, one half at 0."""
    step = distance * 0.5
    step += 0.5
    np.clip(step, 0, 1, out=step)
    square = step * step
    step *= -2
    step += 3
    step *= square
    return step


def wave(phase: Field) -> Field:
    """A triangle wave of period 1: 0 at every integer, 1 halfway between."""
    ripple = phase - np.floor(phase)
    ripple -= 0.5
    np.abs(ripple, out=ripple)
    ripple *= -2
    ripple += 1
    return ripple


def ellipse(x: Field, y: Field, width: Field | float, height: Field | float) -> Field:
    """Squared distance from the centre of an ellipse, 1 on its border."""
    across = x / width
    across *= across
    along = y / height
    along *= along
    across += along
    return across


def noise(seeds: NDArray[np.uint32], cells: int, rows: int, columns: int) -> Field:
    """Smooth noise (N, rows, columns) in -1..1 on a lattice of ``cells`` a side.

    The same seed and ``cells`` give the same field at any resolution and in any company.
    """
    knots = cells + 3
    index = np.arange(knots * knots, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(cells)
    bits = _scramble(seeds[:, None] ^ _scramble(index)[None])
    # -128..127 times weights of 8 bits, twice, is below 2**24: exact in float32 in any order.
    lattice = (bits >> np.uint32(24)).astype(np.float32) - 128
    field = lattice.reshape(-1, knots, knots) @ _spline_weights(cells, columns).T
    field = _spline_weights(cells, rows) @ field
    field *= 1 / (128 * 256 * 256)
    return field


def _scramble(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """An integer hash with good avalanche. Source: MurmurHash3's 32-bit finalizer."""
    bits = bits ^ (bits >> np.uint32(16))
    bits *= np.uint32(0x85EBCA6B)
    bits ^= bits >> np.uint32(13)
    bits *= np.uint32(0xC2B2AE35)
    bits ^= bits >> np.uint32(16)
    return bits


@cache
def _spline_weights(cells: int, resolution: int) -> Field:
    """Uniform cubic B-spline weights (resolution, cells + 3), in whole 256ths that sum to 256."""
    position = (np.arange(resolution) + 0.5) * cells / resolution
    cell = np.floor(position).astype(np.int64)
    part = position - cell
    spline = np.stack(
        [
            (1 - part) ** 3,
            3 * part**3 - 6 * part**2 + 4,
            -3 * part**3 + 3 * part**2 + 3 * part + 1,
            part**3,
        ]
    )
    whole = np.round(spline * (256 / 6))
    whole[1] += 256 - whole.sum(axis=0)
    weights = np.zeros((resolution, cells + 3), dtype=np.float32)
    for offset in range(4):
        weights[np.arange(resolution), cell + offset] = whole[offset]
    return weights
