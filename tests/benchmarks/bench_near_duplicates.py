"""Precision, recall and time of near-duplicates: `bench_near_duplicates.py FOLDER...`.

Of each folder's photographs some are taken, copies of eight kinds made of them, and photographs of
different subjects by one rig: the same background, frame and logo.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from carray.data.preparation.near_duplicates import near_duplicate_groups
from carray.data.preparation.quality import LabelledImage, group_images
from carray.data.preparation.scan import scan_images
from carray.data.preparation.sources import SourceImage
from carray.data.preparation.sources.listing import walk_images
from carray.typing import Rows

NUM_PHOTOS = 80
NUM_RIG = 60
KINDS = ("saved", "scaled", "cut", "brighter", "mirrored", "removed", "replaced", "marked")
Image = np.ndarray
NUMBERS = np.random.default_rng(0)


def middle(height: int, width: int) -> Image:
    y, x = np.mgrid[0:height, 0:width]
    away = np.abs((x - width / 2) / (width * 0.45)) ** 3
    inside: Image = away + np.abs((y - height / 2) / (height * 0.4)) ** 3 < 1
    return inside


def copy_of(image: Image, kind: str) -> Image:
    height, width = image.shape[:2]
    out = image.copy()
    if kind == "scaled":
        out = cv2.resize(image, None, fx=0.55, fy=0.55, interpolation=cv2.INTER_AREA)
    if kind == "cut":
        top, left, low, right = (
            int(share) for share in NUMBERS.uniform(0, 0.05, 4) * (height, width, height, width)
        )
        return image[top : height - low, left : width - right]
    if kind == "brighter":
        out = np.clip(image * NUMBERS.uniform(0.7, 1.35), 0, 255).astype(np.uint8)
    if kind == "mirrored":
        return image[:, ::-1]
    if kind == "removed":
        out[~middle(height, width)] = 255
    if kind == "replaced":
        shades = np.linspace(200, 90, height)[:, None, None] * np.array([1, 0.97, 0.93])
        out = np.where(middle(height, width)[..., None], image, shades).astype(np.uint8)
    if kind == "marked":
        at, size = (width // 8, height // 2), width / 220
        cv2.putText(out, "DEALER", at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 2)
        out = cv2.addWeighted(out, 0.6, image, 0.4, 0)
    return out


def rig(background: Image, subject: Image) -> Image:
    out: Image = cv2.GaussianBlur(cv2.resize(background, (320, 240)), (0, 0), 2)
    inner = middle(150, 220)
    out[60:210, 50:270][inner] = cv2.resize(subject, (220, 150))[inner]
    out[:14] = out[-22:] = (40, 30, 160)
    cv2.putText(out, "BEST CARS 555-1234", (60, 234), 0, 0.5, (255, 255, 255), 1)
    cv2.rectangle(out, (0, 0), (319, 239), (40, 30, 160), 8)
    return out


def build(source: Path, folder: Path) -> tuple[list[Path], list[int], list[str]]:
    """Return files, which picture each shows, and how it was made."""
    found = walk_images(source)[0]
    read = (cv2.imread(str(found[n])) for n in NUMBERS.permutation(len(found)))
    photos = [photo for photo in read if photo is not None]
    photos, subjects = photos[:NUM_PHOTOS], photos[NUM_PHOTOS : NUM_PHOTOS + NUM_RIG]
    made = [(photo, n, "original") for n, photo in enumerate(photos)]
    for n, photo in enumerate(photos):
        made += [
            (copy_of(photo, kind), n, kind) for kind in NUMBERS.choice(KINDS, 3, replace=False)
        ]
    made += [(rig(photos[0], one), NUM_PHOTOS + n, "rig") for n, one in enumerate(subjects)]
    paths = [folder / f"{number:05d}.jpg" for number in range(len(made))]
    for path, (image, _, kind) in zip(paths, made, strict=True):
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 45 if kind == "saved" else 85])
    return paths, [picture for _, picture, _ in made], [kind for _, _, kind in made]


def judge(name: str, groups: Rows, pictures: list[int], kinds: list[str], seconds: float) -> None:
    """Print one line: pairs in one group that show one picture, against all of each."""
    pairs = list(combinations(range(len(pictures)), 2))
    joined = {pair for pair in pairs if groups[pair[0]] == groups[pair[1]]}
    same = {pair for pair in pairs if pictures[pair[0]] == pictures[pair[1]]}
    right = len(joined & same)
    missed = Counter(kinds[j] for i, j in same - joined if kinds[i] == "original")
    wrong = Counter(f"{kinds[i]}/{kinds[j]}" for i, j in joined - same)
    print(
        f"  {name:11} precision {right / max(1, len(joined)):.3f}  recall {right / len(same):.3f}"
        f"  {seconds:.1f} s  missed {dict(missed)}  wrong {dict(wrong.most_common(4))}"
    )


def main() -> None:
    for source in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as made:
            paths, pictures, kinds = build(source, Path(made))
            start = time.perf_counter()
            seen = scan_images(paths, [None] * len(paths), 0.0)
            scanned = time.perf_counter() - start
            print(f"{source.name}: {len(paths)} images, read in {scanned:.1f} s")
            start = time.perf_counter()
            groups = near_duplicate_groups(seen)
            judge("thumbnails", groups, pictures, kinds, time.perf_counter() - start)
            images = [
                LabelledImage(SourceImage(path.name, path, "a"), "a", one)
                for path, one in zip(paths, seen, strict=True)
            ]
            start = time.perf_counter()
            judge("second look", group_images(images), pictures, kinds, time.perf_counter() - start)


if __name__ == "__main__":
    main()
