"""What every figure of a page is drawn with: panels, pictures, and the bytes of a PNG.

Figures are matplotlib's own objects in its default style, never the user's, so that the same runs
give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lungan.results.read import Problem, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_MAX_SAMPLE_PIXELS = 4096
_WIDTH_INCHES = 9.2
_DPI = 130
_COMPRESSION = 6
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # names of runs may hold a $
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A PNG with what it shows: ``title`` and ``caption`` for the page."""

    file: str
    title: str
    caption: str
    png: bytes


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The style of the figures drawn inside; the user's comes back after."""
    from lungan.runs.pictures import import_matplotlib

    matplotlib = import_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def panels_of(
    count: int, columns: int, panel_height: float, share: bool
) -> tuple[Canvas, list[Axes]]:
    """A figure of ``count`` panels, each ``panel_height`` inches high. share: both axes."""
    from matplotlib.figure import Figure as Canvas

    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = Canvas(
        figsize=(_WIDTH_INCHES, max(1.8, panel_height * rows + 0.2)), dpi=_DPI, layout="constrained"
    )
    panels = list(canvas.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flat)
    for unused in panels[count:]:
        unused.remove()
    return canvas, panels[:count]


def label_outer(panels: list[Axes], x: str, y: str) -> None:
    """Label the axes that panels in two columns share, below the last of a column and left."""
    for index, axes in enumerate(panels):
        axes.set(ylabel="" if index % 2 else y)
        if index + 2 >= len(panels):
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)


def png_bytes(canvas: Canvas, *, exact: bool = False) -> bytes:
    """exact: all grey levels of the images shown. 256 colours do for charts, at half the size."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    agg: Any = FigureCanvasAgg(canvas)  # which has no types
    agg.draw()
    stream = io.BytesIO()
    image = Image.fromarray(np.asarray(agg.buffer_rgba())[..., :3])
    if not exact:
        image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(stream, format="png", dpi=(_DPI, _DPI), compress_level=_COMPRESSION)
    return stream.getvalue()


def limit(
    set_limits: Callable[[float, float], object],
    ends: tuple[float, float],
    low: float,
    high: float,
) -> None:
    """Keep the intervals of two or three seeds from flattening all others: cut an axis that goes
    from one of ``ends`` to the other at low and high."""
    if max(low, ends[0]) < min(high, ends[1]):
        set_limits(max(low, ends[0]), min(high, ends[1]))


def read_picture(run: Run, name: str, problems: list[Problem]) -> Any | None:
    """Pixels of a PNG in the run's folder; None, and a problem, where it cannot be used."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(run.folder / name, formats=["PNG"]) as image:
            if max(image.size) > _MAX_SAMPLE_PIXELS:
                raise ValueError("too large")
            return np.asarray(image.convert("RGB" if image.mode == "RGB" else "L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        problems.append(Problem(run.name, f"{name} is not a usable PNG"))
        return None


def show_picture(axes: Axes, pixels: Any, title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, loc="left")


def join_true(*sentences: str | bool) -> str:
    """Those of the sentences that are true of this figure."""
    return " ".join(each for each in sentences if isinstance(each, str) and each)
