"""`Manifest`: one row per image with its class, split and fold, under one hash.

A data folder holds `manifest.json` (classes, how it was made) and `images.csv` (the rows).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from carray.data.remote_data import fetched_manifest
from carray.errors import DataError, RecordError, UnsuitableData, describe
from carray.files import write_text, written_aside
from carray.storage.mirror import mirror_of
from carray.storage.remote import is_url
from carray.typing import Rows

SPLITS = ("train", "val", "blend", "test")
VERSION = 1
STORE_BUDGET_GIB = 50.0
LOOKED_AT = 10_000  # files below a folder that may tell that it holds images
MANIFEST_FILE, IMAGES_FILE = "manifest.json", "images.csv"

Crop = Literal["none", "box"]

BOX_COLUMNS = ("box_x1", "box_y1", "box_x2", "box_y2")
COLUMNS: dict[str, str] = {  # of `images.csv`, in its order: the type of each
    **dict.fromkeys(("image_id", "path", "label"), "object"),
    "class_index": "int64",
    "split": "object",
    "fold": "int64",
    **dict.fromkeys(BOX_COLUMNS, "int64"),
    **dict.fromkeys(("content_hash", "perceptual_hash"), "object"),
    **dict.fromkeys(("group", "width", "height"), "int64"),
    "excluded": "object",
}


class PrepareSettings(BaseModel):
    """How a data set was prepared: what `manifest.json` holds beside its classes and hash."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    source: str = ""
    kind: str = ""
    """`folder`, `split folder`, `csv` or `devkit`."""
    images_folder: str = ""
    """Absolute; the paths of `images.csv` are relative to it."""
    images_folder_relative: str = ""
    """The same, relative to the data folder: found where both were moved together."""
    crop: Crop = "none"
    margin: float = 0.0
    """A crop box grows by this share of its sides, on each side."""
    merge: dict[str, str] = {}
    """Class name in the source -> the class it became."""
    val: float = 0.0
    blend: float = 0.0
    test: float = 0.0
    source_splits: tuple[str, ...] = ()
    """The splits that the source brought; they were kept."""
    folds: int = 0
    seed: int = 0
    reading: str = ""
    """Which columns of a table were taken for what."""
    notes: tuple[str, ...] = ()
    """What a person should know: leaks, suspected labels, why there is no blend split."""
    store_budget_gib: float = STORE_BUDGET_GIB
    """Disk that the pixel stores of this data set may take, in GiB."""


class _File(BaseModel):
    """`manifest.json`."""

    version: int
    hash: str
    classes: tuple[str, ...]
    settings: PrepareSettings


@dataclass(frozen=True, eq=False)
class Manifest:
    """A prepared data set.

    `images` has one row per image, excluded ones too (`COLUMNS`); `included` the others, in the
    fixed order whose row numbers everything else uses. `hash` is the content's, not the paths'.
    """

    folder: Path
    classes: tuple[str, ...]
    images: pd.DataFrame
    hash: str
    settings: PrepareSettings

    @classmethod
    def make(
        cls, folder: Path, classes: Sequence[str], images: pd.DataFrame, settings: PrepareSettings
    ) -> Manifest:
        """Return the manifest of these rows, with its hash; nothing is written."""
        digest = content_hash_of(images, classes, settings)
        return cls(folder, tuple(classes), _typed(images), digest, settings)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Manifest:
        """Read a data folder; one at a URL is fetched into this node's cache.

        Raises:
            StorageError: the URL can't be reached or refuses.
            DataError: it is no data folder, of another version, or was edited by hand.
        """
        folder = fetched_manifest(os.fspath(folder)) if is_url(folder) else Path(folder).resolve()
        file = _read_file(folder)
        images = _read_images(folder / IMAGES_FILE)
        root = _images_root(folder, file.settings)
        images["path"] = [str(root / path) for path in images["path"]]
        found = content_hash_of(images, file.classes, file.settings)
        if found != file.hash:
            raise DataError(
                f"{folder / IMAGES_FILE} doesn't match {MANIFEST_FILE} (was it edited?): "
                "run `carray data prepare` again"
            )
        return cls(folder, file.classes, _typed(images), file.hash, file.settings)

    @property
    def where(self) -> str:
        """The data folder as any process finds it: its absolute path, or its URL."""
        mirror = mirror_of(self.folder)
        return mirror.remote.url if mirror else str(self.folder.resolve())

    @property
    def name(self) -> str:
        """The last part of `where`."""
        return self.where.rpartition("/")[2]

    def write(self) -> None:
        """Write both files aside, then rename them; `images.csv` first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        table = self.images.copy()
        root = self.settings.images_folder
        table["path"] = [os.path.relpath(path, root) for path in table["path"]]
        with written_aside(self.folder / IMAGES_FILE) as aside:
            table.to_csv(aside, index=False, encoding="utf-8", lineterminator="\n")
        file = _File(version=VERSION, hash=self.hash, classes=self.classes, settings=self.settings)
        write_text(self.folder / MANIFEST_FILE, file.model_dump_json(indent=1) + "\n")

    @cached_property
    def included(self) -> pd.DataFrame:
        """The rows that aren't excluded, in fixed order, numbered from 0."""
        return self.images[self.images["excluded"] == ""].reset_index(drop=True)

    @cached_property
    def labels(self) -> Rows:
        """Class index of each included row."""
        return self.included["class_index"].to_numpy(np.int64)

    @property
    def judging_split(self) -> str:
        """What a model is judged on while test stays closed: `blend`, else `val`."""
        return "blend" if len(self.rows("blend")) else "val"

    def rows(self, split: str) -> Rows:
        """Return the row numbers of a split, ascending; empty where there is no such split.

        Raises:
            DataError: `split` is none of `SPLITS`.
        """
        if split not in SPLITS:
            raise DataError(f"{split!r} is no split: one of {', '.join(SPLITS)}")
        return np.flatnonzero((self.included["split"] == split).to_numpy()).astype(np.int64)

    def fold_rows(self, fold: int) -> tuple[Rows, Rows]:
        """Return (train rows, held rows) of one fold; the folds partition the train split.

        Raises:
            DataError: there is no such fold.
        """
        if not 0 <= fold < self.num_folds:
            cure = "`carray data prepare --folds K` makes folds"
            raise DataError(f"fold {fold} of {self.folder} isn't among {self.num_folds}: {cure}")
        train = self.rows("train")
        held = self.included["fold"].to_numpy(np.int64)[train] == fold
        return train[~held], train[held]

    def training_rows(self, fold: int | None) -> tuple[Rows, Rows]:
        """Return the rows that train a trial, and those that judge its epochs: of a fold, or `val`.

        Raises:
            UnsuitableData: there are none of either.
            DataError: there is no such fold.
        """
        both = self.fold_rows(fold) if fold is not None else (self.rows("train"), self.rows("val"))
        for name, rows in zip(("train", "val"), both, strict=True):
            if len(rows) == 0:
                raise UnsuitableData(
                    f"{self.folder} has no {name} images; prepare it with a {name} split"
                )
        return both

    @property
    def num_folds(self) -> int:
        """Folds that the train split is cut into; 0 for none."""
        return self.settings.folds

    @property
    def crop(self) -> Crop:
        """Whether images are cut to their boxes."""
        return self.settings.crop

    @property
    def cut(self) -> dict[str, object]:
        """How images were cut and classes merged, as a model package keeps it."""
        settings = self.settings
        return {"crop": settings.crop, "margin": settings.margin, "merge": settings.merge}

    @property
    def margin(self) -> float:
        """How much a crop box grows, as a share of its sides."""
        return self.settings.margin

    def box_of(self, row: pd.Series) -> tuple[int, int, int, int] | None:
        """Return the box that an image of `included` is cut to; None where it is left whole."""
        x1, y1, x2, y2 = (int(row[name]) for name in BOX_COLUMNS)
        return (x1, y1, x2, y2) if self.crop == "box" and x1 >= 0 else None

    def class_counts(self) -> pd.DataFrame:
        """Return images per class (rows, in class order) and split (columns)."""
        table = pd.crosstab(self.included["class_index"], self.included["split"])
        table = table.reindex(index=range(len(self.classes)), columns=list(SPLITS), fill_value=0)
        table.index = pd.Index(self.classes, name="class")
        table.columns.name = None
        return table

    @cached_property
    def pixels_hash(self) -> str:
        """Names the pixels of the included rows alone: splits may change without touching it."""
        digest = hashlib.sha256(f"{self.crop} {self.margin}\n".encode())
        boxes = self.included[list(BOX_COLUMNS)].to_numpy(np.int64)
        for content, box in zip(self.included["content_hash"], boxes, strict=True):
            shown = box.tolist() if self.crop == "box" else ""
            digest.update(f"{content} {shown}\n".encode())
        return digest.hexdigest()


def check_still_there(data: str | os.PathLike[str], trained: str) -> None:
    """Refuse a folder, named by what was `trained` on it, where nothing is; raises RecordError.

    Whether something is at a URL is seen when it is fetched.
    """
    if not (is_url(data) or Path(data).exists()):
        raise RecordError(
            f"{trained} was trained on {os.fspath(data)}, and nothing is there any more: say where "
            "it has moved with --data DIR"
        )


def check_overwritable(folder: Path) -> None:
    """Check that writing a data folder here overwrites nothing but a data folder.

    Raises:
        DataError: `folder` is a file, or its `images.csv` is somebody's own.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"--out {folder} is a file: name a folder")
    file = folder / IMAGES_FILE
    if not file.is_file():
        return
    with file.open("rb") as opened:
        head = opened.readline().strip()
    if head != ",".join(COLUMNS).encode():
        raise DataError(
            f"--out {folder} has an {IMAGES_FILE} that is no data folder's and would be lost: "
            "choose another folder, or move it away"
        )


def content_hash_of(images: pd.DataFrame, classes: Sequence[str], settings: PrepareSettings) -> str:
    """Return the sha256 that names a data set: the same on every machine, whatever the paths."""
    head = [VERSION, list(classes), settings.crop, settings.margin, settings.folds]
    digest = hashlib.sha256(json.dumps(head, ensure_ascii=False).encode())
    kept = images[images["excluded"] == ""]
    names = ["image_id", "class_index", "split", "fold", *BOX_COLUMNS, "content_hash"]
    for row in zip(*(kept[name].tolist() for name in names), strict=True):
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def check_data_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse what is no data folder, as `Manifest.load` does; a URL isn't looked at.

    Raises:
        DataError: it is none, with the command that makes one.
    """
    if not is_url(folder):
        _read_file(Path(folder).resolve())


def _read_file(folder: Path) -> _File:
    path = folder / MANIFEST_FILE
    if not path.exists():
        raise DataError(_no_manifest(folder))
    again = "run `carray data prepare` again"
    try:
        raw: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("version") != VERSION:
            found = raw.get("version")
            raise DataError(f"{path} is of version {found}, this carray reads {VERSION}: {again}")
        return _File.model_validate(raw)
    except ValidationError as error:
        raise DataError(f"{path} can't be read ({describe(error)}): {again}") from None
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} can't be read ({error}): {again}") from None


def _no_manifest(folder: Path) -> str:
    """Say what a folder is that is no data folder, and which command makes one of it."""
    what = "is a file" if folder.is_file() else "has no manifest"
    what = what if folder.exists() else "doesn't exist"
    if not folder.is_file() and not _holds_images(folder):
        cure = f"`carray data prepare SOURCE --out {quote(str(folder))}` makes it"
        return f"the data folder {folder} {what}: {cure}"
    held = (
        "a list or an archive of images, perhaps"
        if folder.is_file()
        else "images that aren't prepared yet"
    )
    made = folder.with_name(f"{folder.stem if folder.is_file() else folder.name}-data")
    if not os.access(made.parent, os.W_OK):  # photographs of someone else
        made = Path.cwd() / made.name
    return (
        f"the data folder {folder} {what}, it is {held}: "
        f"`carray data prepare {quote(str(folder))} --out {quote(str(made))}` makes a data folder "
        f"of it, so give {made} then"
    )


def _holds_images(folder: Path) -> bool:
    """Say whether there is an image below a folder, as far as a short look tells."""
    from carray.data.pixels.decode import IMAGE_SUFFIXES  # not sooner: OpenCV comes with it

    files = (name for _, _, names in os.walk(folder) for name in names)
    return any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in islice(files, LOOKED_AT))


def _read_images(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=COLUMNS, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        cure = "run `carray data prepare` again"
        raise DataError(f"{path} can't be read ({error}): {cure}") from None
    if list(table.columns) != list(COLUMNS):
        raise DataError(f"{path} has other columns than it should: run `carray data prepare` again")
    return table


def _typed(images: pd.DataFrame) -> pd.DataFrame:
    """Return the columns in their order and of one type each, whatever they were made from."""
    return images[list(COLUMNS)].astype(COLUMNS)


def _images_root(folder: Path, settings: PrepareSettings) -> Path:
    """Return the folder of the images: where they were, or beside the data folder as they were."""
    absolute = Path(settings.images_folder)
    relative = folder / settings.images_folder_relative
    if not absolute.exists() and settings.images_folder_relative and relative.exists():
        return relative.resolve()
    return absolute
