"""How pictures are drawn: matplotlib into files, and letters on what Pillow draws."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import ImageDraw, ImageFont

from carray.errors import ConfigError
from carray.files import written_aside

NOT_LATIN = ("NotoSansCJK", "NotoSansKR", "NanumGothic", "malgun", "AppleGothic", "UnDotum")
FONT_FOLDERS = ("/usr/share/fonts", "/Library/Fonts", "C:/Windows/Fonts")

INK, MUTED, PAPER, EMPTY = "#222222", "#6F6F6F", "#FFFFFF", "#EEEEEE"  # of sheets

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_logger = logging.getLogger(__name__)


def matplotlib() -> ModuleType:
    """Import matplotlib to draw into files, whatever `$MPLBACKEND` says of windows.

    A notebook's backend, left in the environment, is unknown elsewhere and ends the import.
    """
    if "matplotlib" not in sys.modules:
        before = os.environ.get("MPLBACKEND")
        os.environ["MPLBACKEND"] = "agg"
        try:
            import matplotlib as loaded
        finally:
            del os.environ["MPLBACKEND"]
            if before is not None:
                os.environ["MPLBACKEND"] = before
        return loaded
    return sys.modules["matplotlib"]


@contextmanager
def plotting(style: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Have matplotlib draw in `style`, and names as they are: a `$` in them begins no formula."""
    with matplotlib().rc_context({"text.parse_math": False, **(style or {})}):
        yield


def check_png(file: Path) -> None:
    """Refuse another ending than .png's, which is what pictures are; raises ConfigError."""
    if file.suffix.lower() != ".png":
        raise ConfigError(f"--out {file} must be a .png file")


def drawn_or_none(draw: Callable[[], Path]) -> Path | None:
    """Return the picture that `draw` makes; where it can't, say why: no result hangs on one."""
    try:
        return draw()
    except Exception as error:
        _logger.warning("no picture: %s", str(error) or type(error).__name__)
        return None


def save_png(picture: Any, file: Path, dpi: int | None = None) -> None:
    """Write an image of Pillow's, or a figure of matplotlib's at `dpi`, aside; then rename it."""
    with written_aside(file) as aside:
        if dpi is None:
            picture.save(aside, format="png")
        else:
            picture.savefig(aside, format="png", dpi=dpi)


class Fonts:
    """Three sizes of a font for the letters of `text`: other scripts need one of this machine."""

    def __init__(self, text: str, sizes: tuple[int, int, int] = (24, 17, 15)) -> None:
        self._file = None if text.isascii() else font_file() or _usual_font_file()
        self.large, self.normal, self.small = (self._of(size) for size in sizes)

    def _of(self, size: int) -> Font:
        if self._file:
            return ImageFont.truetype(str(self._file), size)
        return ImageFont.load_default(size)


def font_file() -> Path | None:
    """Return a font of this machine with letters of other scripts; None where there is none."""
    for folder in FONT_FOLDERS:
        for file in sorted(Path(folder).rglob("*.[to]t[fc]")):
            if file.stem.lower().startswith(tuple(name.lower() for name in NOT_LATIN)):
                return file
    return None


def _usual_font_file() -> Path:
    """Return matplotlib's own font: it has `é`, `Š` and `Ж`, which Pillow's lacks."""
    return Path(matplotlib().get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def fitted(pen: ImageDraw.ImageDraw, text: str, width: float, font: Font) -> str:
    """Return `text`, cut with an ellipsis where it is wider than `width` pixels."""
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"
