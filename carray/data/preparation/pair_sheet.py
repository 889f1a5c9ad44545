"""The near-duplicates of a data set side by side, for a person to judge: one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2

from carray.data.pixels.decode import UnreadableImage, make_square, read_whole
from carray.data.preparation.quality import LabelledImage
from carray.errors import counted
from carray.files import write_text

PAIR_SHEET = "near_duplicates.html"
SIDE = 160  # pixels of each picture
MAX_PAIRS = 500  # drawn, some 10 kB each
_HEAD = """<!doctype html><meta charset="utf-8"><title>near-duplicates</title>
<style>body{font:14px sans-serif}td{padding:4px;vertical-align:top}.other{background:#fdd}</style>
"""


def write_pair_sheet(folder: Path, pairs: Sequence[tuple[LabelledImage, LabelledImage]]) -> None:
    """Write the sheet into the data folder; without a pair, take an old one away.

    Pairs under two labels come first and are marked.
    """
    sheet = folder / PAIR_SHEET
    if not pairs:
        sheet.unlink(missing_ok=True)
        return
    ordered = sorted(pairs, key=lambda pair: pair[0].label == pair[1].label)
    heading = f"<h1>{counted(len(pairs), 'near-duplicate')}</h1>"
    if len(pairs) > MAX_PAIRS:
        heading += f"<p>the first {MAX_PAIRS} are drawn</p>"
    rows = "".join(_row(*pair) for pair in ordered[:MAX_PAIRS])
    write_text(sheet, f"{_HEAD}{heading}<table>{rows}</table>")


def _row(one: LabelledImage, other: LabelledImage) -> str:
    kind = "" if one.label == other.label else ' class="other"'
    return f"<tr{kind}>{_cell(one)}{_cell(other)}</tr>"


def _cell(image: LabelledImage) -> str:
    name, label = escape(image.image_id), escape(image.label)
    return f"<td>{_picture(image.source_image.path)}<br>{name}<br>{label} {image.split}</td>"


def _picture(path: Path) -> str:
    try:
        square = make_square(read_whole(path, None, 0.0), SIDE, "pad")
    except (UnreadableImage, OSError):
        return "can't be read"
    data = cv2.imencode(".jpg", cv2.cvtColor(square, cv2.COLOR_RGB2BGR))[1].tobytes()
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
