"""lungan: find out, honestly, whether a GAN can augment a small medical image set."""

import os
import sys
from types import TracebackType

__version__ = "0.1.0"


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted; the same command goes on\n")
        os._exit(130)
    sys.__excepthook__(kind, error, trace)


# An interrupt while a command is still being imported, before lungan.cli can see it.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _end
