"""An A4 page that texts, boxes and pictures are put on, so that nothing runs out of its place."""

from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import cast

import matplotlib
import numpy as np
from fpdf import FPDF
from fpdf.enums import MethodReturnValue
from fpdf.fonts import TTFFont
from PIL import Image

from mtl.analysis.names import printable

# DejaVu Sans is free to embed and writes Latin, Greek, Cyrillic and more; matplotlib brings it.
FONT = "DejaVu"
PICTURE_PX = 1200  # longest side of a picture: 340 dots an inch as it is printed
JPEG_QUALITY = 88

Colour = tuple[int, int, int]
INK: Colour = (39, 39, 42)
QUIET: Colour = (113, 113, 122)
LINE: Colour = (228, 228, 231)
PAPER: Colour = (244, 244, 245)
WHITE: Colour = (255, 255, 255)
ACCENT: Colour = (15, 118, 110)
ACCENT_PAPER: Colour = (240, 253, 250)

BODY_PT = 8.5
ROW = 5.4  # height of a line, in millimetres


class Page:
    """All places and lengths are in millimetres from the upper left corner."""

    def __init__(self, title: str, at: datetime):
        self.pdf = FPDF(format="A4")
        self.pdf.set_title(title)
        self.pdf.set_creation_date(at)
        self.pdf.set_auto_page_break(False)
        self.pdf.c_margin = 0
        for weight, path in _font_files().items():
            self.pdf.add_font(FONT, weight, path)
        fonts = [font for font in self.pdf.fonts.values() if isinstance(font, TTFFont)]
        self._letters = frozenset.intersection(*(frozenset(font.cmap) for font in fonts))
        self.pdf.add_page()

    def text(
        self,
        x: float,
        y: float,
        width: float,
        text: str,
        *,
        size_pt: float = BODY_PT,
        bold: bool = False,
        colour: Colour = INK,
        align: str = "L",
    ) -> None:
        """One line, `y` its upper edge; shortened to `width`."""
        self.pdf.set_font(FONT, "B" if bold else "", size_pt)
        self.pdf.set_text_color(*colour)
        self.pdf.set_xy(x, y)
        self.pdf.cell(width, ROW, self._shortened(self._drawable(text), width), align=align)

    def _shortened(self, text: str, width: float) -> str:
        if self.pdf.get_string_width(text) <= width:
            return text
        # Bisection: the longest start that leaves room for the dots.
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self.pdf.get_string_width(text[:middle].rstrip() + "…") <= width:
                fits = middle
            else:
                too_long = middle
        return text[:fits].rstrip() + "…"

    def _drawable(self, text: str) -> str:
        """`text` on one line, a box for what the font has no letter for."""
        return "".join(letter if ord(letter) in self._letters else "□" for letter in printable(text))

    def lines(self, x: float, y: float, width: float, text: str, most: int) -> float:
        """Lines of `width`, the last of at most `most` shortened; returns where they end."""
        self.pdf.set_font(FONT, "", BODY_PT)
        broken = cast(
            list[str],
            self.pdf.multi_cell(
                width, ROW, self._drawable(text), align="L", dry_run=True, output=MethodReturnValue.LINES
            ),
        )
        for line in [*broken[: most - 1], " ".join(broken[most - 1 :])] if len(broken) > most else broken:
            self.text(x, y, width, line)
            y += ROW
        return y

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        self.pdf.set_fill_color(*colour)
        self.pdf.rect(x, y, width, height, style="F")

    def rule(self, x: float, y: float, width: float) -> None:
        self.box(x, y, width, 0.25, LINE)

    def title(self, x: float, y: float, width: float, text: str) -> float:
        """A part's heading; returns where its rows begin."""
        self.text(x, y, width, text, size_pt=10, bold=True, colour=ACCENT)
        self.rule(x, y + 5.8, width)
        return y + 7.2

    def picture(self, x: float, y: float, width: float, height: float, pixels: np.ndarray, title: str) -> None:
        """(H, W, 3) uint8, whole and in the middle of its box, over its title."""
        self.box(x, y, width, height, PAPER)
        self.pdf.image(_jpeg(pixels), x, y, width, height, keep_aspect_ratio=True, alt_text=self._drawable(title))
        self.text(x, y + height + 1, width, title, size_pt=7.5, colour=QUIET)

    def to_bytes(self) -> bytes:
        return bytes(self.pdf.output())


def _font_files() -> dict[str, Path]:
    """Weight as fpdf calls it -> file."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return {"": folder / "DejaVuSans.ttf", "B": folder / "DejaVuSans-Bold.ttf"}


def _jpeg(pixels: np.ndarray) -> BytesIO:
    picture = Image.fromarray(pixels)
    picture.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    data = BytesIO()
    picture.save(data, "JPEG", quality=JPEG_QUALITY)
    return data
