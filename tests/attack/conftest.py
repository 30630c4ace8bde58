"""The commands as processes that can be cut off, and a store of one tiny run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import lungan

TINY = (
    "generator.width=8",
    "discriminator.width=8",
    "data.num_images=64",
    "data.num_test=20",
    "batch_size=32",
    "score=none",
    "threads=1",
    "samples_every_epochs=0",
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def attack_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def start(tmp_path: Path, attack_cache: Path) -> Start:
    """``start("train", "epochs=3", stderr=...)``: a command in ``tmp_path``, tiny where it trains.

    before: words of the command line that come before it, such as a shell that redirects it.
    python: what Python runs, with the module's name and the arguments behind it.
    """

    def popen(
        command: str,
        *arguments: str,
        before: Sequence[str] = (),
        python: Sequence[str] = ("-m",),
        **options: Any,
    ) -> subprocess.Popen[str]:
        tiny = TINY if command == "train" else ()
        environment = os.environ | {
            "PYTHONPATH": str(Path(lungan.__file__).parents[1]),
            "LUNGAN_CACHE": str(attack_cache),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [*before, sys.executable, *python, f"lungan.{command}", *tiny, *arguments],
            cwd=tmp_path,
            env=environment,
            text=True,
            # Tests that nohup started ignore SIGHUP, and so would the command.
            **{"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL), **options},
        )

    return popen
