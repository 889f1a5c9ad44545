"""`Teacher`: a model package whose answers a trial learns, about the images that the trial sees."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from carray.config import InputSpec, TrialConfig
from carray.data.manifest import Manifest
from carray.errors import RecordError, UnsuitableData, WeightsError
from carray.files import sha256_of
from carray.json_file import JsonFile
from carray.models.averaging import averaged_log_p, stacked_log_p
from carray.models.classifier import Classifier, load_classifier
from carray.training.trial_state import Answers, Numerics, build_numerics, default_compute

CARD = "card.json"


class _PackageFile(JsonFile):
    """What of a package's files a student needs; `carray.inference.card` has all of it."""

    missing: ClassVar[str] = (
        "distill.teacher is no model package: {path} is missing; give its folder"
    )
    broken: ClassVar[str] = "distill.teacher is no model package: {path} can't be read ({why})"


class _Entry(_PackageFile):
    folder: str
    weight: float
    sha256: str


class _Stack(_PackageFile):
    scales: tuple[tuple[float, ...], ...]
    offsets: tuple[float, ...]


class _Card(_PackageFile):
    classes: tuple[str, ...]
    members: tuple[_Entry, ...]
    space: Literal["probability", "logit", "vote", "stack"] = "probability"
    temperature: float = 1.0
    stack: _Stack | None = None
    manifest_hash: str = ""


class _MemberFile(_PackageFile):
    config: TrialConfig
    input: InputSpec


@dataclass(frozen=True, eq=False)
class _Member:
    classifier: Classifier
    numerics: Numerics
    side: int

    def log_p(self, pixels: Tensor) -> Tensor:
        if pixels.shape[-1] != self.side:
            size = (self.side, self.side)
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        with self.numerics.autocast():
            logits = self.classifier(self.numerics.normalise(pixels))
        return torch.log_softmax(logits.float(), dim=1)


@dataclass(frozen=True, eq=False)
class Teacher:
    """A package's members and how their answers become one; views of test time are left out."""

    card: _Card
    members: tuple[_Member, ...]

    @torch.no_grad()
    def log_p(self, pixels: Tensor) -> Tensor:
        """Return calibrated log-probabilities (B, C) of images (B, 3, side, side) in [0, 255]."""
        log_ps = [member.log_p(pixels) for member in self.members]
        if stack := self.card.stack:
            arrays = (pixels.new_tensor(each) for each in (stack.scales, stack.offsets))
            merged = stacked_log_p(log_ps, *arrays)
        else:
            weights = [entry.weight for entry in self.card.members]
            merged = averaged_log_p(log_ps, weights, self.card.space)
        return torch.log_softmax(merged / self.card.temperature, dim=1)


def card_hash(folder: str | os.PathLike[str]) -> str:
    """Return what tells a package from others, for its card has its weights' hashes; "" of none."""
    file = Path(folder) / CARD
    return sha256_of(file) if file.is_file() else ""


def load_teacher(
    config: TrialConfig, device: torch.device, here: str | None = None
) -> Answers | None:
    """Return what answers for the teacher of a trial, on `device`; None where labels alone teach.

    Args:
        here: the package's folder, where it isn't at the path that the configuration names.

    Raises:
        WeightsError: the package isn't here, or its weights have changed.
    """
    if not config.distill.teacher:
        return None
    folder = Path(here or config.distill.teacher)
    try:
        card = _Card.read(folder / CARD)
        members = tuple(_load(folder, entry, len(card.classes), device) for entry in card.members)
    except RecordError as error:
        raise WeightsError(str(error)) from None
    return Teacher(card, members).log_p


def _load(folder: Path, entry: _Entry, num_classes: int, device: torch.device) -> _Member:
    own = _MemberFile.read(folder / entry.folder / "config.json")
    file = folder / entry.folder / "weights.safetensors"
    classifier = load_classifier(own.config, num_classes, file)
    if sha256_of(file) != entry.sha256:
        raise WeightsError(f"{file} isn't what the package was written with: copy it again")
    numerics = build_numerics(own.input, default_compute(own.config, classifier, device), device)
    # torch's stubs know no memory format in Module.to
    classifier.to(device, memory_format=numerics.memory_format)  # type: ignore[call-overload]
    return _Member(classifier, numerics, own.config.image_size)


def check_teacher(config: TrialConfig, manifest: Manifest) -> None:
    """Refuse a teacher that knows what its student will be judged on.

    Raises:
        RecordError: it is no model package.
        UnsuitableData: it was trained on other data or other classes, or on the student's fold.
    """
    name = config.distill.teacher
    if not name:
        return
    card = _Card.read(Path(name) / CARD)
    if card.manifest_hash != manifest.hash or card.classes != manifest.classes:
        raise UnsuitableData(
            f"distill.teacher={name} was trained on data set {card.manifest_hash[:12]}, and "
            f"{manifest.folder} is {manifest.hash[:12]}: it may know what the student is judged "
            "on; take a teacher trained on the same data"
        )
    files = [Path(name) / entry.folder / "config.json" for entry in card.members]
    folds = {_MemberFile.read(file).config.fold for file in files}
    if config.fold is not None and folds != {config.fold}:
        raise UnsuitableData(
            f"distill.teacher={name} was trained on images of fold {config.fold}, on which its "
            "student is judged: distil without fold"
        )
