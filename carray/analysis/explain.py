"""Grad-CAM overlays of a model's images: one PNG each, and a sheet of them all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from carray.config import Fit
from carray.data.pixels.decode import Box, UnreadableImage, read_whole
from carray.data.pixels.known_boxes import boxes_in_squares
from carray.drawing import INK, MUTED, PAPER, Fonts, fitted, save_png
from carray.errors import ConfigError, DataError, RecordError, counted, did_you_mean
from carray.inference.heat import has_gradient, heat_maps, overlaid
from carray.inference.inputs import ImageList, find_images, find_package
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.tracking.artifacts import attach_or_warn
from carray.typing import Float32s, Progress

if TYPE_CHECKING:
    from carray.inference.card import Card
    from carray.inference.predictor import Geometry, Member, Model

BATCH = 8  # images whose gradients are held at once
HIGH, GAP, MARGIN, CAPTION = 150, 4, 18, 44  # pixels of the sheet
PAIRS_A_ROW = 3
SCALE = 260  # pixels of the scale of colours

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True)
class ExplainedImage:
    """One image: what the model said, and which class the overlay is of."""

    name: str
    said: str
    probability: float
    """Of the class that is explained."""
    explained: str
    overlay: Path
    has_evidence: bool = True
    """Whether anything in the image speaks for the class: else the overlay shows no colours."""
    evidence_outside: float | None = None
    """The share of the evidence that lies outside of the image's box; None without a box."""
    area_outside: float | None = None
    """The share of the image that does: of a model that looks anywhere, about as much evidence."""

    @property
    def caption(self) -> str:
        """The explained class with its own probability, and what the model said instead."""
        said = "" if self.said == self.explained else f" (said {self.said})"
        nothing = "" if self.has_evidence else ", no positive evidence"
        return f"{self.explained} {self.probability:.3f}{said}{nothing}"


@dataclass(frozen=True)
class Explained:
    """What `explain` wrote."""

    folder: Path
    sheet: Path
    rows: tuple[ExplainedImage, ...]
    unreadable: dict[str, str]
    """Image -> why."""
    note: str
    """Members that are not in the overlays, how much they see in backgrounds, and where in the
    tracking store the pictures are."""

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        rows = [{**asdict(row), "overlay": str(row.overlay)} for row in self.rows]
        files = {"folder": str(self.folder), "sheet": str(self.sheet), "note": self.note}
        return {**files, "images": rows, "unreadable": self.unreadable}


@dataclass(frozen=True, eq=False)
class _Shown:
    """One image as it is drawn: whole, and with what speaks for the class over it."""

    row: ExplainedImage
    plain: Pixels
    overlay: Pixels


def explain(
    model: str,
    images: Sequence[str | Path],
    out: str | os.PathLike[str] = "explained",
    *,
    of_class: str | None = None,
    limit: int = 48,
    runs: str | os.PathLike[str] | None = None,
    track: bool = True,
    progress: Progress = silent,
) -> Explained:
    """Write Grad-CAM overlays (`carray.models.gradcam`) of image files.

    An ensemble's members are averaged by their weights, each scaled to [0, 1] first.

    Args:
        model: a package's name or folder, or a trial (`STUDY/NUMBER`).
        images: files, folders, CSV files of paths.
        out: the folder to write to: `0001-NAME.png` for each image, and `sheet.png`.
        of_class: the class to explain; default: the one that the model says.
        limit: images at most, the first ones.
        runs: the runs folder.
        track: put the pictures beside the model's run, where the tracking store has one.
        progress: shows how far the images are.

    Raises:
        RecordError: there is no such model.
        ConfigError: it has no such class, no gradient, or `limit` isn't positive.
        DataError: there are no images, or none can be read.
    """
    from carray.inference.predictor import load_model

    if limit < 1:
        raise ConfigError(f"--limit {limit} must be at least 1")
    where = RunsFolder.at(runs)
    package, found = find_package(where, model), find_images(images)
    found = found.take(range(min(limit, len(found))))
    loaded = load_model(package)
    blind = _blind(loaded)
    if of_class is not None and of_class not in loaded.classes:
        near = did_you_mean(of_class, loaded.classes)
        raise ConfigError(f"the model has no class {of_class!r}{near}")
    target = None if of_class is None else loaded.classes.index(of_class)
    folder = Path(out).expanduser()
    unreadable: dict[str, str] = {}
    shown: list[_Shown] = []
    with progress("explaining", len(found)) as advance:
        for one in _explained(loaded, found, target, folder, unreadable):
            shown.append(one)
            advance(1)
    if not shown:
        first = next(iter(unreadable.items()))
        raise DataError(f"no image can be read: {first[0]}: {first[1]}")
    for one in shown:
        save_png(Image.fromarray(one.overlay), one.row.overlay)
    sheet = folder / "sheet.png"
    save_png(_sheet(loaded.card.name, shown), sheet)
    rows = tuple(one.row for one in shown)
    files = [sheet, *(row.overlay for row in rows)]
    cells = [cells_note(member) for member in loaded.members if has_gradient(member)]
    notes = (
        blind,
        *dict.fromkeys(cells),
        background_note(rows),
        _attached(where, model, loaded.card, files) if track else "",
    )
    return Explained(folder, sheet, rows, unreadable, "\n".join(filter(None, notes)))


def _blind(model: Model) -> str:
    """Say which members' answers have no gradient; "" where all have one.

    Raises:
        ConfigError: none has.
    """
    blind = [member.card.trial for member in model.members if not has_gradient(member)]
    if len(blind) == len(model.members):
        raise ConfigError(
            f"{model.card.name} is a random forest, whose answers have no gradient: explain the "
            "trial whose features it reads"
        )
    return f"not in the overlays: {', '.join(blind)}, a random forest" if blind else ""


def cells_note(member: Member) -> str:
    """Say from which map a member's overlay is, where its last one is too coarse; else ""."""
    from carray.models.gradcam import FEWEST_CELLS, WatchedClassifier

    last, taken = WatchedClassifier(member.classifier).map_sides(member.card.input.size)
    if last >= FEWEST_CELLS:
        return ""
    coarse = f"{member.card.trial}: its last feature map has {last}x{last} cells"
    if taken > last:
        return f"{coarse}; the overlay is of an earlier one of {taken}x{taken}"
    return f"{coarse}, and no finer one can be used: places are rough"


def background_note(rows: Sequence[ExplainedImage]) -> str:
    """Say how much of the evidence is background, on average; "" where no box is known."""
    shares = [
        (row.evidence_outside, row.area_outside)
        for row in rows
        if row.evidence_outside is not None and row.area_outside is not None
    ]
    if not shares:
        return ""
    evidence, area = np.mean(shares, axis=0)
    return (
        f"outside of the boxes of {counted(len(shares), 'image')}: {evidence:.2f} of the "
        f"evidence, on {area:.2f} of the area"
    )


def shares_outside(
    heat: Float32s, box: Box, sides: tuple[int, int], fit: Fit
) -> tuple[float, float]:
    """Return which share of the evidence lies outside of a box, and which share of the area.

    Args:
        heat: evidence by place of the square that the model sees, (side, side), some above 0.
        box: x1, y1, x2, y2 in pixels of the whole image.
        sides: width and height of that.
        fit: how it became the square.
    """
    (shares,) = boxes_in_squares(np.array([box], float), np.array([sides], float), fit)
    x1, y1, x2, y2 = (shares * len(heat)).round().astype(int)
    inside = heat[y1:y2, x1:x2]
    return 1 - float(inside.sum() / heat.sum()), 1 - inside.size / heat.size


def _attached(runs: RunsFolder, model: str, card: Card, files: Sequence[Path]) -> str:
    """Put the pictures beside the trial's run, or the run that logged the package."""
    try:
        record = runs.find_trial(model).record()
    except RecordError:
        return attach_or_warn(runs, card.study, card.name, files)
    return attach_or_warn(runs, record.study, record.number, files)


def _explained(
    model: Model, images: ImageList, target: int | None, folder: Path, unreadable: dict[str, str]
) -> Iterator[_Shown]:
    geometries = {member.geometry for member in model.members}
    batch: list[tuple[int, Pixels, dict[Geometry, Pixels]]] = []
    for place in range(len(images)):
        try:
            whole, squares = _read(images, place, geometries, model)
        except (OSError, UnreadableImage) as error:
            unreadable[images.names[place]] = str(error)
            continue
        batch.append((place, whole, squares))
        if len(batch) == BATCH:
            yield from _explain_batch(model, batch, images, target, folder)
            batch = []
    if batch:
        yield from _explain_batch(model, batch, images, target, folder)


def _read(
    images: ImageList, place: int, geometries: set[Geometry], model: Model
) -> tuple[Pixels, dict[Geometry, Pixels]]:
    """Return the image, cut to its box where the model's were, and its squares."""
    from carray.inference.predictor import squares_of

    data = images.paths[place].read_bytes()
    box = images.boxes[place] if model.card.crop == "box" else None
    whole = read_whole(images.paths[place], box, model.card.margin)
    return whole, squares_of(data, box, model.card.margin, geometries)


def _explain_batch(
    model: Model,
    batch: list[tuple[int, Pixels, dict[Geometry, Pixels]]],
    images: ImageList,
    target: int | None,
    folder: Path,
) -> Iterator[_Shown]:
    probabilities = model.predict_squares([squares for _, _, squares in batch])
    predicted = probabilities.argmax(axis=1)
    targets = predicted if target is None else np.full(len(batch), target)
    maps = heat_maps(model, [squares for _, _, squares in batch], targets)
    one_fit = {member.card.config.fit for member in model.members}
    for row, (place, whole, squares) in enumerate(batch):
        image = whole if one_fit == {"squash"} else next(iter(squares.values()))
        plain = _scaled(image)
        explained = int(targets[row])
        box = images.boxes[place] if model.card.crop != "box" else None
        has_evidence = bool(maps[row].max() > 0)
        evidence, area = (
            shares_outside(maps[row], box, whole.shape[1::-1], next(iter(squares))[1])
            if box and has_evidence
            else (None, None)
        )
        yield _Shown(
            ExplainedImage(
                name=images.names[place],
                said=model.classes[int(predicted[row])],
                probability=float(probabilities[row, explained]),
                explained=model.classes[explained],
                overlay=folder / f"{place + 1:04d}-{Path(images.names[place]).stem}.png",
                has_evidence=has_evidence,
                evidence_outside=evidence,
                area_outside=area,
            ),
            plain,
            overlaid(plain, maps[row]),
        )


def _scaled(image: Pixels) -> Pixels:
    """Return the image at twice the sheet's height, its aspect ratio kept."""
    high, wide = image.shape[:2]
    size = (max(1, round(2 * HIGH * wide / high)), 2 * HIGH)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _sheet(name: str, shown: list[_Shown]) -> Image.Image:
    """Draw each image beside its overlay, with what the model said below."""
    widths = [round(one.plain.shape[1] / 2) for one in shown]
    pair = 2 * min(max(widths), 2 * HIGH) + GAP
    rows = -(-len(shown) // PAIRS_A_ROW)
    columns = min(PAIRS_A_ROW, len(shown))
    size = (
        max(columns * (pair + MARGIN) + MARGIN, SCALE + 2 * MARGIN),
        56 + rows * (HIGH + CAPTION + MARGIN) + CAPTION,
    )
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    fonts = Fonts(" ".join(one.row.said + one.row.name for one in shown), (20, 14, 12))
    title = f"{name}: where it looks"
    pen.text((MARGIN, 14), fitted(pen, title, size[0] - 2 * MARGIN, fonts.large), INK, fonts.large)
    for number, one in enumerate(shown):
        x = MARGIN + number % PAIRS_A_ROW * (pair + MARGIN)
        y = 52 + number // PAIRS_A_ROW * (HIGH + CAPTION + MARGIN)
        _draw_pair(sheet, pen, (x, y), pair, one, fonts)
    _draw_scale(sheet, pen, (MARGIN, size[1] - CAPTION), fonts)
    return sheet


def _draw_scale(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, corner: tuple[int, int], fonts: Fonts
) -> None:
    """Draw what the colours say: from nothing to the most in each image."""
    x, y = corner
    level = np.linspace(0, 1, SCALE, dtype=np.float32)[None].repeat(12, axis=0)
    bar = np.full((12, SCALE, 3), 200, np.uint8)
    sheet.paste(Image.fromarray(overlaid(bar, level)), (x, y))
    pen.text((x, y + 16), "0", MUTED, fonts.small)
    most = "most evidence for the class, in each image"
    width = round(pen.textlength(most, fonts.small))
    pen.text((x + max(14, SCALE - width), y + 16), most, MUTED, fonts.small)


def _draw_pair(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    width: int,
    one: _Shown,
    fonts: Fonts,
) -> None:
    x, y = corner
    half = (width - GAP) // 2
    for pixels in (one.plain, one.overlay):
        small = Image.fromarray(pixels)
        small.thumbnail((half, HIGH), Image.Resampling.LANCZOS)
        sheet.paste(small, (x, y + HIGH - small.height))
        x += small.width + GAP
    x = corner[0]
    row = one.row
    pen.text((x, y + HIGH + 4), fitted(pen, row.caption, width, fonts.normal), INK, fonts.normal)
    name = fitted(pen, row.name, width, fonts.small)
    pen.text((x, y + HIGH + 22), name, MUTED, fonts.small)
