"""A user's own transform of training images, named by its entry point `package.module:function`.

It sees each image as the backbone would, after carray's own augmentation: uint8, at the trial's
size. The random numbers that it draws are seeded by the batch, like all that augmentation draws.
"""

from __future__ import annotations

import inspect
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, reduce
from importlib import import_module
from statistics import median
from typing import Any, Literal, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from carray.config import AugmentConfig
from carray.errors import ConfigError
from carray.extras import import_from_here

PROBES = 9  # images that it is tried on; the first one's time is left out

Pixels = npt.NDArray[np.uint8]
_seeding = threading.Lock()  # generators belong to the process, batches are made by threads


@dataclass(frozen=True)
class OwnTransform:
    """A transform and how it is called."""

    name: str
    function: Callable[..., Any]
    takes: Literal["tensor", "array", "albumentations"]

    def __call__(self, images: Pixels, seed: int) -> Pixels:
        """Return transformed images (B, side, side, 3); the same ones for the same `seed`.

        Raises:
            ConfigError: it raised an error, or returned something else than it was given.
        """
        done = np.empty_like(images)
        with _seeded(seed):
            if hasattr(self.function, "set_random_seed"):  # albumentations has its own numbers
                self.function.set_random_seed(seed)
            for image, out in zip(images, done, strict=True):
                out[:] = self._one(image)
        return done

    def _one(self, image: Pixels) -> Pixels:
        is_tensor = self.takes == "tensor"
        given = torch.from_numpy(image.transpose(2, 0, 1).copy()) if is_tensor else image
        try:
            if self.takes == "albumentations":
                returned = self.function(image=given)["image"]
            else:
                returned = self.function(given)
        except Exception as error:
            raise ConfigError(
                f"augment.transform={self.name!r} fails on {_text(given)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if _text(returned) != _text(given):
            raise ConfigError(
                f"augment.transform={self.name!r} was given {_text(given)} and must return the "
                f"same, not {_text(returned)}; images are normalised after it"
            )
        done: Pixels = returned.numpy().transpose(1, 2, 0) if is_tensor else returned
        return done


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed what a transform may draw from; whoever drew before goes on as if nothing was."""
    with _seeding, torch.random.fork_rng(devices=[]):
        before = random.getstate(), np.random.get_state()
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _text(value: object) -> str:
    """Name the kind, type and shape of an image."""
    if not isinstance(value, Tensor | np.ndarray):
        return f"a {type(value).__name__}"
    kind = "a tensor" if isinstance(value, Tensor) else "an array"
    return f"{kind} of {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


@cache
def load_transform(name: str) -> OwnTransform:
    """Import a transform; modules beside where the command runs are found too.

    A function whose first argument is annotated as an array is called with (H, W, 3) arrays, an
    object of albumentations as that library has it, all else with (3, H, W) tensors.

    Raises:
        ConfigError: the name is none, or what it names can't be imported or called.
    """
    module, _, path = name.partition(":")
    if not module or not path:
        raise ConfigError(
            f"augment.transform={name!r} must be package.module:function, as in my_augment:soften"
        )
    import_from_here()
    try:
        found: Any = reduce(getattr, path.split("."), import_module(module))
    except Exception as error:  # whatever a module does when it is imported
        raise ConfigError(
            f"augment.transform={name!r} can't be imported: {type(error).__name__}: {error}; "
            "install it, or have its folder in PYTHONPATH"
        ) from error
    if not callable(found) or inspect.isclass(found):
        kind = "class" if inspect.isclass(found) else type(found).__name__
        raise ConfigError(
            f"augment.transform={name!r} is of kind {kind} and must be a function, or an object "
            "that can be called, as in `transform = MyTransform()`"
        )
    return OwnTransform(name, found, _taken(found))


def _taken(function: Any) -> Literal["tensor", "array", "albumentations"]:
    modules = {kind.__module__.partition(".")[0] for kind in type(function).__mro__}
    if "albumentations" in modules:
        return "albumentations"
    hints = {}
    with suppress(Exception):  # of names that only a type checker knows
        hints = get_type_hints(function if inspect.isroutine(function) else function.__call__)
    first = next(iter(hints.values()), None)
    return "array" if (get_origin(first) or first) is np.ndarray else "tensor"


@cache
def _milliseconds(name: str, side: int) -> float:
    transform, times = load_transform(name), []
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    for seed in range(PROBES):
        start = time.perf_counter()
        transform(pixels, seed)
        times.append(time.perf_counter() - start)
    return median(times[1:]) * 1000


def transform_note(augment: AugmentConfig, side: int) -> str:
    """Try a configuration's transform on images of `side` pixels; say what it costs, "" of none.

    Raises:
        ConfigError: as `load_transform` and `OwnTransform`.
    """
    name = augment.transform
    if not name:
        return ""
    return f"transform {name}: {_milliseconds(name, side):.2f} ms for an image of {side} px"
