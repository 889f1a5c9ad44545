"""`Model`: a package loaded for prediction, preprocessing images exactly as training evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from carray.config import Fit
from carray.data.manifest import Manifest
from carray.data.parallel import num_workers
from carray.data.pixels.augmentation import WHOLE, View
from carray.data.pixels.decode import Box, UnreadableImage, make_square, read_square
from carray.data.pixels.loader import EvalPlan, Images, Loader, to_device
from carray.data.pixels.store import open_store, store_side
from carray.errors import ConfigError, DataError, RecordError, WeightsError
from carray.files import recovered, sha256_of
from carray.inference.card import Card, MemberCard
from carray.inference.given_images import GivenImages, listed_images
from carray.inference.inputs import find_package
from carray.models.classifier import Classifier, load_classifier
from carray.predictions.logits import energy_of, log_softmax
from carray.predictions.views import Tta
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.training.evaluation import predict_batches
from carray.training.trial_state import Numerics, build_numerics, default_compute
from carray.typing import Float32s, Progress

BATCH_IMAGES = 64
UNKNOWN = -1  # the label of an image that has none
Geometry = tuple[int, Fit]  # what of a configuration decides how an image becomes a square
Square = npt.NDArray[np.uint8]  # (side, side, 3), or (images, side, side, 3); RGB
ImagePath = str | Path
_Image = tuple[Path | bytes | Square, Box | None]
_Read = dict[Geometry, Square] | str  # an image's squares, or why there are none


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities of the images that could be read, and why the others could not."""

    places: tuple[int, ...]
    """Which of the images given."""
    probabilities: Float32s
    """(places, classes)."""
    energies: Float32s
    """(places,): of the mean logits, see `Model.answer`."""
    unreadable: dict[int, str]
    """Place -> why."""


@dataclass(frozen=True, eq=False)
class Member:
    """One classifier, ready; it evaluates with training's own code."""

    classifier: Classifier
    card: MemberCard
    numerics: Numerics

    @property
    def geometry(self) -> Geometry:
        """What its images must be made into."""
        return self.card.config.image_size, self.card.config.fit

    def logits(self, squares: Square, view: View = WHOLE) -> Float32s:
        """Return logits (images, classes), float32, of squares (images, side, side, 3)."""
        plan = self.plan(squares, view)
        parts = predict_batches(self.classifier, plan, self.numerics, num_loaders=1)
        logits: Float32s = torch.cat([logits for logits, _ in parts]).cpu().numpy()
        return logits

    @torch.inference_mode()
    def features(self, squares: Square) -> Float32s:
        """Return pooled features (images, width), float32, of squares (images, side, side, 3)."""
        parts = []
        for batch in Loader(self.plan(squares), num_threads=1):
            pixels, _ = to_device(batch, self.numerics.device)
            with self.numerics.autocast():
                seen = self.classifier.features(self.numerics.normalise(pixels)).float()
            parts.append((seen.mean(1) if seen.ndim == 3 else seen).cpu())
        return np.asarray(torch.cat(parts), np.float32)

    def plan(self, squares: Square, view: View = WHOLE) -> EvalPlan:
        """Return how training evaluates `squares`; their labels are unknown and never read."""
        rows = np.arange(len(squares))
        images = Images(squares, np.full(len(squares), UNKNOWN))
        on_gpu = self.numerics.device.type != "cpu"
        return EvalPlan(images, rows, BATCH_IMAGES, self.card.input.size, on_gpu, view)

    def log_p(self, squares: Square, tta: Tta) -> Float32s:
        """Return log-probabilities (images, classes), merged over the views of `tta`."""
        return self.answer(squares, tta)[0]

    def answer(self, squares: Square, tta: Tta) -> tuple[Float32s, Float32s]:
        """Return `log_p`, and the mean logits of the views, (images, classes)."""
        logits = [self.logits(squares, view) for view in tta.views]
        mean: Float32s = np.mean(logits, axis=0)
        return tta.merged([log_softmax(each) for each in logits]), mean


@dataclass(frozen=True, eq=False)
class Model:
    """A model package, loaded; see `load_model`."""

    card: Card
    members: tuple[Member, ...]
    device: torch.device

    def __repr__(self) -> str:
        """What it is made of, in a line: the networks would fill pages."""
        return f"<Model of {self.card.study}: {self.card.what}, on {self.device}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.card.classes

    def predict(self, images: GivenImages) -> Float32s:
        """Return probabilities, (images, classes).

        Args:
            images: a file, a folder, a file's bytes, a PIL image, an array (H, W, 3) or
                (N, H, W, 3) of uint8 RGB, or a list of these. A large JPEG is decoded smaller, as
                in training: an array of all its pixels has a slightly different answer.

        Raises:
            DataError: an image can't be read; the first is named.
        """
        given = listed_images(images)
        found = self._predict([(image, None) for image in given], silent)
        for place, why in found.unreadable.items():
            image = given[place]
            raise DataError(
                f"{image if isinstance(image, Path) else f'image {place}'} can't be read: {why}"
            )
        return found.probabilities

    def predict_files(
        self,
        images: Sequence[ImagePath],
        progress: Progress = silent,
        boxes: Sequence[Box | None] | None = None,
    ) -> Predictions:
        """Return probabilities of the files that can be read, and why the others can't.

        `boxes` are used where the training images were cut to theirs.
        """
        used = boxes if boxes is not None and self.card.crop == "box" else [None] * len(images)
        return self._predict(
            [(Path(image), box) for image, box in zip(images, used, strict=True)], progress
        )

    def _predict(self, files: Sequence[_Image], progress: Progress) -> Predictions:
        places: list[int] = []
        log_ps, energies = [np.empty((0, len(self.classes)), np.float32)], [np.empty(0, np.float32)]
        unreadable: dict[int, str] = {}
        with progress("predicting", len(files)) as advance:
            for batch in self._batches(files):
                good = [(place, squares) for place, squares in batch if isinstance(squares, dict)]
                unreadable |= {place: why for place, why in batch if isinstance(why, str)}
                if good:
                    places += [place for place, _ in good]
                    log_p, energy = self.answer_squares([squares for _, squares in good])
                    log_ps.append(log_p)
                    energies.append(energy)
                advance(len(batch))
        probabilities = np.exp(np.concatenate(log_ps))
        return Predictions(tuple(places), probabilities, np.concatenate(energies), unreadable)

    def predict_squares(self, images: Sequence[dict[Geometry, Square]]) -> Float32s:
        """Return probabilities of images that are squares in each member's geometry."""
        return np.exp(self.answer_squares(images)[0])

    def answer_squares(self, images: Sequence[dict[Geometry, Square]]) -> tuple[Float32s, Float32s]:
        """Return log-probabilities (images, classes), and energies (images,)."""
        return self.answer(
            {
                geometry: np.stack([image[geometry] for image in images])
                for geometry in dict.fromkeys(member.geometry for member in self.members)
            }
        )

    def answer(self, squares: Mapping[Geometry, Square]) -> tuple[Float32s, Float32s]:
        """Return log-probabilities (images, classes), and energies (images,) of the mean logits.

        Where members disagree their mean is low, so that this energy tells unknown images better
        than the mean of theirs does.

        `squares` holds the images in each member's geometry, (images, side, side, 3).
        """
        combination = self.card.combination
        answers = [
            member.answer(squares[member.geometry], combination.views) for member in self.members
        ]
        weights = combination.average.weights
        mean = np.average([logits for _, logits in answers], axis=0, weights=weights)
        return combination.log_p([log_p for log_p, _ in answers]), energy_of(mean)

    def _batches(self, images: Sequence[_Image]) -> Iterator[list[tuple[int, _Read]]]:
        """Yield each batch's places with their squares, or with why there are none."""
        geometries = {member.geometry for member in self.members}
        with ThreadPoolExecutor(num_workers()) as pool:
            for start in range(0, len(images), BATCH_IMAGES):
                some = images[start : start + BATCH_IMAGES]
                read = pool.map(lambda image: _read(image, self.card.margin, geometries), some)
                yield list(enumerate(read, start))


def load_model(
    folder: str | Path, device: str | None = None, *, runs: str | Path | None = None
) -> Model:
    """Load a model package for prediction; imports torch.

    Args:
        folder: the package, with its `card.json`; or its name under `runs`, `NAME@1` for its first
            version, a name alone for the newest; or a trial as `STUDY/NUMBER`, which is packaged.
        device: a torch device; None takes the GPU where there is one.
        runs: the runs folder; None takes `$CARRAY_RUNS`, else `./runs`.

    Raises:
        RecordError: it is no package, or is incomplete.
        WeightsError: weights have changed since the package was written, or don't fit.
        ConfigError: this machine has no such device.
    """
    name, folder = str(folder), Path(folder)
    if not (recovered(folder) / "card.json").exists():
        is_named = folder.name.isdigit() and not folder.exists()  # as STUDY/NUMBER
        if "/" not in name or is_named or (folder / "record.json").exists():
            folder = find_package(RunsFolder.at(runs), name)
    card = Card.read(recovered(folder) / "card.json")
    where = usable_device(device)
    members = []
    for entry in card.members:
        place = folder / entry.folder
        file = place / "weights.safetensors"
        if not file.exists():
            raise RecordError(f"the model package {folder} is incomplete: {file} is missing")
        if sha256_of(file) != entry.sha256:
            raise WeightsError(f"{file} isn't what the package was written with: copy it again")
        member = MemberCard.read(place / "config.json")
        members.append(load_member(file, member, len(card.classes), where))
    return Model(card, tuple(members), where)


def usable_device(name: str | None) -> torch.device:
    """Return a device by torch's name, None for the GPU where there is one.

    Raises:
        ConfigError: torch knows none of that name, or this machine has none.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).partition(".")[0]
        raise ConfigError(f"device {name!r} can't be used here ({why}): take cpu") from None
    return device


def load_member(file: Path, card: MemberCard, num_classes: int, device: torch.device) -> Member:
    """Build a member as training judges it; a CPU always computes in float32."""
    config = card.config
    if device.type == "cpu":
        config = config.model_copy(update={"precision": "fp32"})
    classifier = load_classifier(config, num_classes, file)
    numerics = build_numerics(card.input, default_compute(config, classifier, device), device)
    # torch's stubs know no memory format in Module.to
    classifier.to(device, memory_format=numerics.memory_format)  # type: ignore[call-overload]
    return Member(classifier, card, numerics)


def open_stores(
    manifest: Manifest, members: Iterable[Member], progress: Progress
) -> dict[Geometry, Square]:
    """Open the pixel stores that `members` read; raises DataError as `open_store` does."""
    return {
        (size, fit): open_store(manifest, size, fit, progress).pixels
        for size, fit in dict.fromkeys(member.geometry for member in members)
    }


def squares_of(
    data: bytes, box: Box | None, margin: float, geometries: Iterable[Geometry]
) -> dict[Geometry, Square]:
    """Return an image file's bytes as a square in each geometry; raises UnreadableImage."""
    return {
        (size, fit): read_square(data, store_side(size), fit, box, margin)
        for size, fit in geometries
    }


def _read(image: _Image, margin: float, geometries: set[Geometry]) -> _Read:
    """Return an image's squares, or why there are none."""
    source, box = image
    if isinstance(source, np.ndarray):
        return {(size, fit): make_square(source, store_side(size), fit) for size, fit in geometries}
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        return squares_of(data, box, margin, geometries)
    except OSError as error:
        return error.strerror or str(error)
    except UnreadableImage as error:
        return str(error)
