"""lungan: find out, honestly, whether a GAN can augment a small medical image set."""

import importlib
import logging
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lungan.api import Run, Sweep, generate, load, open, score, sweep, train
    from lungan.errors import LunganError

__version__ = "0.2.0"
__all__ = ["LunganError", "Run", "Sweep", "generate", "load", "open", "score", "sweep", "train"]

logging.getLogger(__name__).addHandler(logging.NullHandler())

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}
"""How a CPU thread waits for the others of its team: a fraction of a millisecond awake, then
asleep. As OpenMP's runtimes come, it stays awake much longer, on a core that another process could
use; where there is such a process, the thread that all wait for may be the one without a core.
GNU's runtime reads the first two, LLVM's and Intel's the first and the last. Measured by
benchmarks/waiting.py."""

# The runtimes read them once, when torch is loaded.
if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
    os.environ.update(WAITING)


def __getattr__(name: str) -> Any:
    """What ``lungan`` offers to Python, loaded when it is asked for."""
    if name in ("train", "score", "generate"):  # the commands' modules, which can be called
        return importlib.import_module(f"lungan.{name}")
    if name in ("Run", "Sweep", "load", "open", "sweep"):
        return getattr(importlib.import_module("lungan.api"), name)
    if name == "LunganError":
        return importlib.import_module("lungan.errors").LunganError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted; the same command goes on\n")
        os._exit(130)
    sys.__excepthook__(kind, error, trace)


# An interrupt while a command is still being imported, before lungan.cli can see it.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _end
