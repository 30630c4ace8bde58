from __future__ import annotations

import pytest
import torch

from lungan.training.randomness import (
    DropoutBits,
    fixed_latents,
    latents,
    permutation,
    stream,
    weights_rng,
)

CPU = torch.device("cpu")


def test_draws_depend_on_their_arguments_alone() -> None:
    first = latents(3, 10, 4, 100, CPU)
    torch.manual_seed(1)
    latents(3, 9, 4, 100, CPU)
    assert torch.equal(first, latents(3, 10, 4, 100, CPU))
    others = [latents(4, 10, 4, 100, CPU), latents(3, 11, 4, 100, CPU)]
    others += [latents(3, 10, 4, 100, CPU, update=1), fixed_latents(3, 4, 100)]
    assert all(not torch.equal(first, other) for other in others)


def test_latents_are_standard_normal() -> None:
    draws = latents(0, 0, 1000, 100, CPU)
    assert draws.dtype == torch.float32
    assert float(draws.mean()) == pytest.approx(0, abs=0.02)
    assert float(draws.std()) == pytest.approx(1, abs=0.02)


def test_permutation_visits_every_image_once() -> None:
    order = permutation(0, 0, 1000, CPU)
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(1000))
    assert not torch.equal(order, permutation(0, 1, 1000, CPU))
    assert not torch.equal(order, permutation(1, 0, 1000, CPU))


def test_seeds_up_to_the_largest_are_distinct() -> None:
    seeds = [0, 1, 2**32, 2**63 - 1]
    draws = {int(stream(seed, "name").integers(2**63)) for seed in seeds}
    assert len(draws) == len(seeds)
    assert (
        weights_rng(0, "generator").initial_seed() != weights_rng(0, "discriminator").initial_seed()
    )


def test_dropout_bits_are_uniform_and_new_at_every_call() -> None:
    bits = DropoutBits(0, 0, 0, CPU)
    first, second = bits(100_001), bits(100_001)
    assert first.dtype == torch.int16
    assert first.shape == (100_001,)
    assert not torch.equal(first, second)
    assert float((first < -32768 + 19661).float().mean()) == pytest.approx(0.3, abs=0.01)
    again = DropoutBits(0, 0, 0, CPU)
    assert torch.equal(first, again(100_001))
    assert not torch.equal(first, DropoutBits(0, 1, 0, CPU)(100_001))
    assert not torch.equal(first, DropoutBits(0, 0, 1, CPU)(100_001))
