"""Interrupted and continued = uninterrupted, bit for bit, wherever the interruption comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lungan.config import RunConfig
from lungan.errors import RunFolderError
from lungan.runs.folder import Run
from lungan.runs.prepare import prepare
from lungan.runs.run import StopSignal, run
from lungan.training.loop import Interrupted

Tiny = Callable[..., RunConfig]
Untimed = Callable[[Path], list[dict[str, float]]]

pytestmark = pytest.mark.usefixtures("no_curves")

STEPS = ("epochs=3", "batch_size=16")  # 47 images: three steps an epoch, the last of 15 images


class StopAfter(StopSignal):
    """Asks to stop once it has been asked ``count`` times, as after every step."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left = count

    def requested(self) -> bool:
        self._left -= 1
        return self._left <= 0


@pytest.mark.parametrize(
    "recipe",
    [
        ["optimizer=adam"],
        ["optimizer=adam", "loss.update=alternating", "loss.discriminator_updates=2"],
        ["optimizer=adamw", "schedule=linear"],
        ["optimizer=rmsprop", "optimizer.momentum=0.5", "schedule=cosine", "seed=3"],
        ["optimizer=rmsprop", "loss.update=alternating", "optimizer.epsilon_convention=torch"],
        ["optimizer=sgd", "lr=0.01", "schedule=step", "schedule.warmup_epochs=1.5"],
        ["optimizer=adam", "precision=bf16"],
    ],
    ids=" ".join,
)
def test_a_run_stopped_after_every_step_is_the_run_that_was_not(
    recipe: list[str], tiny: Tiny, untimed: Untimed
) -> None:
    prepared = prepare(tiny(*STEPS, *recipe))
    undisturbed = run(prepared)
    config = tiny(*STEPS, *recipe, store="other")
    prepared = prepare(config)
    stops = 0
    while True:
        try:
            stopped = run(prepared, stop=StopAfter(1))
            break
        except Interrupted:
            stops += 1
    assert stops == 3 * 3
    assert_same(undisturbed, stopped, untimed)


@pytest.mark.parametrize("count", [2, 4, 9])
def test_a_run_stopped_once_anywhere(
    count: int, tiny: Tiny, tmp_path: Path, untimed: Untimed
) -> None:
    undisturbed = run(prepare(tiny(*STEPS)))
    prepared = prepare(tiny(*STEPS, store="other"))
    with pytest.raises(Interrupted):
        run(prepared, stop=StopAfter(count))
    (folder,) = (tmp_path / "other").glob("phantom*")
    assert not (folder / "summary.json").exists()
    assert not (folder / "claim.json").exists()
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert saved["state"]["step"] == count
    assert_same(undisturbed, run(prepared), untimed)


def test_other_seeds_give_other_weights(tiny: Tiny) -> None:
    weights = {
        (
            run(prepare(tiny("epochs=1", f"seed={seed}"))).folder / "generator.safetensors"
        ).read_bytes()
        for seed in (0, 1)
    }
    assert len(weights) == 2


def test_a_torn_line_of_metrics_and_half_written_files_are_passed_over(
    tiny: Tiny, tmp_path: Path, untimed: Untimed
) -> None:
    undisturbed = run(prepare(tiny(*STEPS)))
    prepared = prepare(tiny(*STEPS, store="other"))
    with pytest.raises(Interrupted):
        run(prepared, stop=StopAfter(4))
    (folder,) = (tmp_path / "other").glob("phantom*")
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 2, "images_se')
    (folder / ".checkpoint.pt.k1ll3d").write_bytes(b"half a checkpoint")
    (folder / ".summary.json.k1ll3d").write_bytes(b'{"status": "done"')
    assert_same(undisturbed, run(prepared), untimed)


def test_metrics_of_epochs_after_the_checkpoint_are_done_again(
    tiny: Tiny, tmp_path: Path, untimed: Untimed
) -> None:
    """As after kill -9 in epoch 4 with a checkpoint at epoch 2."""
    undisturbed = run(prepare(tiny("epochs=4")))
    prepared = prepare(tiny("epochs=4", store="other"))
    with pytest.raises(Interrupted):
        run(prepared, stop=StopAfter(2))
    (folder,) = (tmp_path / "other").glob("phantom*")
    before = (folder / "checkpoint.pt").read_bytes()
    with pytest.raises(Interrupted):
        run(prepared, stop=StopAfter(3))
    (folder / "checkpoint.pt").write_bytes(before)
    assert_same(undisturbed, run(prepared), untimed)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-4000] + b"x" * 4000,
    ],
    ids=["torn", "overwritten"],
)
def test_a_damaged_checkpoint_is_named_and_removing_it_begins_anew(
    spoil: Callable[[bytes], bytes], tiny: Tiny
) -> None:
    prepared = prepare(tiny(*STEPS))
    with pytest.raises(Interrupted):
        run(prepared, stop=StopAfter(4))
    (checkpoint,) = Path(prepared.config.store).glob("*/checkpoint.pt")
    checkpoint.write_bytes(spoil(checkpoint.read_bytes()))
    with pytest.raises(RunFolderError) as caught:
        run(prepared)
    assert str(caught.value).startswith(f"{checkpoint} cannot be read (")
    assert str(caught.value).endswith("); remove it to start the run from the beginning")
    assert "\n" not in str(caught.value)
    assert not (checkpoint.parent / "summary.json").exists()
    checkpoint.unlink()
    assert run(prepared).summary["status"] == "done"


def test_a_checkpoint_never_becomes_code(tiny: Tiny, tmp_path: Path) -> None:
    prepared = prepare(tiny(*STEPS))
    with pytest.raises(Interrupted):
        run(prepared, stop=StopAfter(4))
    (checkpoint,) = Path(prepared.config.store).glob("*/checkpoint.pt")
    torch.save({"run": _Bomb(tmp_path / "went off")}, checkpoint)
    with pytest.raises(RunFolderError, match="cannot be read"):
        run(prepared)
    assert not (tmp_path / "went off").exists()


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def assert_same(one: Run, other: Run, untimed: Untimed) -> None:
    """Everything that shapes or shows the weights, at the run's end."""
    assert one.folder.name == other.folder.name
    assert one.summary["status"] == other.summary["status"] == "done"
    assert untimed(one.folder) == untimed(other.folder)
    for name in ("generator.safetensors", f"samples/epoch_{one.summary['epochs']:04d}.png"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
    states = [
        torch.load(result.folder / "checkpoint.pt", weights_only=True)["state"]
        for result in (one, other)
    ]
    assert_equal(*states, "state")


def assert_equal(one: Any, other: Any, where: str) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{where}[{index}]")
    else:
        assert one == other, where


def test_a_run_goes_on_with_the_threads_that_it_was_begun_with(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads(*overrides: str, share: int = 0) -> int:
        result = run(prepare(tiny(*overrides), share=share))
        assert torch.get_num_threads() == result.summary["threads"]
        return int(result.summary["threads"])

    monkeypatch.setattr("lungan.device.cores", lambda: 3)
    try:
        assert threads("epochs=1", "threads=0") == 3
        assert threads("epochs=2", "threads=0", share=2) == 3
        assert threads("epochs=3", "threads=auto", share=2) == 3
        assert threads("epochs=4", "threads=1") == 1
        assert threads("epochs=5", "threads=auto") == 1
        assert threads("epochs=1", "threads=auto", "seed=1", share=2) == 2
    finally:
        torch.set_num_threads(1)
