"""Small data sets on disk for tests: pictures that differ, and those that nearly don't."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[np.uint8]


def picture(seed: int, width: int = 48, height: int = 36) -> Picture:
    """A random picture with large structure, (height, width, 3) RGB; another seed, another one."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def save(path: Path, pixels: Picture, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        options = {"quality": 90, **options}
    Image.fromarray(pixels).save(path, **options)
    return path


def image_folder(folder: Path, counts: Mapping[str, int], first_seed: int = 0) -> Path:
    """`folder/CLASS/0.jpg` ...: so many pictures of each class, all different."""
    seed = first_seed
    for name, count in counts.items():
        for number in range(count):
            save(folder / name / f"{number:02d}.jpg", picture(seed))
            seed += 1
    return folder
