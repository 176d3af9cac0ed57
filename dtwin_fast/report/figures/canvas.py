"""Drawing areas, and figures as images inside a page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OBSERVED, PREDICTED, OWN = "#555555", "#0072b2", "#c2185b"
METHOD_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Colours that the colour-blind tell apart (Okabe & Ito 2008)."""
DIVERGING = "RdBu_r"
"""Blue below 0, red above; lighter and darker alike in grey prints, so tables say the signs."""

PIXELS_PER_INCH = 96
PNG_DPI = 150
N_COLOURS = 64
"""Colours of a PNG, unless it has a bar of more."""
MOST_LETTERS = 60
_NEARLY_WHITE = 248

STYLE: Any = {
    "font.size": 8.5,
    "font.family": "sans-serif",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.color": "#1a1a1a",
    # Names come from files: a $ in them is no mathematics.
    "text.parse_math": False,
    "svg.fonttype": "none",
    # The same numbers give the same page.
    "svg.hashsalt": "dtwin report",
}


@dataclass(frozen=True)
class Image:
    """A figure in a page.

    Attributes:
        source: data URI.
        width, height: pixels at the page's normal size.
        alt: what is seen, for whom it is not.
        caption: what it is, below it.
    """

    source: str
    width: int
    height: int
    alt: str
    caption: str


@contextmanager
def drawing() -> Iterator[None]:
    """Where figures are made and written: one style, and no word about letters a font lacks.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "dtwin report") from error
    with rc_context(STYLE), warnings.catch_warnings():
        # An SVG's text is drawn by the browser, which has more letters than matplotlib's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def panels(
    n_rows: int, n_columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of ``width`` by ``height`` inches and its axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(n_rows, n_columns, squeeze=False, **options).flat)


def as_svg(figure: Figure, alt: str, caption: str) -> Image:
    """The figure as vectors: small while it has few marks."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Image(_data_uri("svg+xml", buffer.getvalue()), *_page_size(figure), alt, caption)


def as_png(figure: Figure, alt: str, caption: str) -> Image:
    """The figure as pixels of few colours."""
    return Stage(figure, ()).image(alt, caption)


class Stage:
    """A figure that is drawn once, and artists that are drawn upon it for every person anew.

    Args:
        figure: with everything in it.
        moving: artists that change; they lie on top of the others.
        n_colours: of the image.
        dpi: pixels per inch.
    """

    def __init__(
        self,
        figure: Figure,
        moving: Sequence[Artist],
        *,
        n_colours: int = N_COLOURS,
        dpi: int = PNG_DPI,
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        for artist in moving:
            artist.set_animated(True)
        figure.set_dpi(dpi)
        self._canvas = FigureCanvasAgg(figure)
        self._canvas.draw()
        self._ground = self._canvas.copy_from_bbox(figure.bbox)
        self._figure = figure
        self._moving = moving
        self._n_colours = n_colours

    def image(self, alt: str, caption: str) -> Image:
        """The figure with its artists as they are now."""
        from PIL import Image as Pillow

        self._canvas.restore_region(self._ground)
        # Not figure.draw_artist, which draws on the figure's latest canvas: stages may share it.
        for artist in self._moving:
            artist.draw(self._canvas.get_renderer())
        size = self._canvas.get_width_height()
        pixels = Pillow.frombytes("RGBA", size, bytes(self._canvas.buffer_rgba()))
        return Image(png_source(pixels, self._n_colours), *_page_size(self._figure), alt, caption)


def png_source(pixels: Any, n_colours: int) -> str:
    """A Pillow image as data URI, in so many colours."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    # The method that keeps the few pixels of a thin coloured line among many grey ones.
    method = Pillow.Quantize.FASTOCTREE
    reduced = pixels.convert("RGB").quantize(n_colours, method=method, dither=Pillow.Dither.NONE)
    # Its palette has a grey where there was white.
    reduced.putpalette([255 if v >= _NEARLY_WHITE else v for v in reduced.getpalette() or []])
    reduced.save(buffer, "PNG", compress_level=7)
    return _data_uri("png", buffer.getvalue())


def plain(text: str) -> str:
    """Text from a file as it may stand in a figure: printable, not too long."""
    printable = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return printable if len(printable) <= MOST_LETTERS else printable[: MOST_LETTERS - 1] + "…"


def _page_size(figure: Figure) -> tuple[int, int]:
    width, height = figure.get_size_inches()
    return round(PIXELS_PER_INCH * width), round(PIXELS_PER_INCH * height)


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:image/{mime};base64,{base64.b64encode(data).decode()}"
