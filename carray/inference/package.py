"""Model packages: a folder with everything a prediction needs, and no pickle.

NAME/
  card.json                     `Card`: what it is, members, rule, figures, classes, versions
  members/0/weights.safetensors
  members/0/config.json         `MemberCard`: configuration, mean and standard deviation
"""

from __future__ import annotations

import json
import shutil
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from carray.config import InputSpec, TrialConfig
from carray.errors import RecordError, counted
from carray.files import (
    locked,
    read_json,
    recover_folders,
    remove_leftovers,
    sha256_of,
    written_aside,
)
from carray.inference.card import Card, MemberCard, MemberEntry
from carray.inference.versions import version_name, versions_of
from carray.predictions.combination import SINGLE_TRIAL, Combination
from carray.provenance import git_commit, versions
from carray.records import StudyRecord, TrialFolder, TrialRecord
from carray.remote_studies import fetched_weights
from carray.runs_folder import RunsFolder

MAX_HEADER_BYTES = 100 * 2**20  # of a safetensors file; its own readers refuse more
PREPROCESSING = (
    "EXIF rotation, RGB, square of 8/7 of the input's side by the member's `fit` (antialiased), "
    "resized to the input's side (bilinear), / 255, minus mean, over std"
)


def packages(runs: RunsFolder) -> list[Path]:
    """Return the folders of all model packages, oldest first."""
    recover_folders(runs.models)
    cards = [card for card in runs.models.glob("*/card.json") if card.parent.name[0] != "."]
    return [card.parent for card in sorted(cards, key=lambda card: card.stat().st_mtime)]


def write_package(
    folder: Path,
    study: StudyRecord,
    trials: Sequence[TrialFolder],
    combination: Combination = SINGLE_TRIAL,
) -> Card:
    """Write the package `folder` aside, then rename it over what was there; else `write_version`.

    Its name is the model's; the other arguments and errors are those of `write_version`.
    """
    with _exclusive(folder.parent):
        return _write(folder, study, trials, combination, {})


def write_version(
    models: Path,
    name: str,
    study: StudyRecord,
    trials: Sequence[TrialFolder],
    combination: Combination = SINGLE_TRIAL,
    results: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model as a version of the package `name`; return the version's folder.

    Another model of that name stays as it is, and this one stands beside it as `NAME@2`. A version
    that holds this very model gets its new card, unless that would forget what it scored on test.

    Args:
        models: the folder of packages.
        name: the package's.
        study: names the classes and the data that the trials were trained on.
        trials: the members.
        combination: how the members' predictions are combined.
        results: scores and notes for the card.

    Raises:
        RecordError: a member's weights are gone.
    """
    with _exclusive(models):
        known = versions_of(models, name)
        hashes = tuple(sha256_of(weights_of(trial, trial.record())) for trial in trials)
        content = (study.classes, hashes, combination)  # another one is another model
        for folder in known.values():
            card = Card.read(folder / "card.json")
            theirs = tuple(member.sha256 for member in card.members)
            if (card.classes, theirs, card.combination) == content:
                if not (is_measured(card.results) and not is_measured(results or {})):
                    _write(folder, study, trials, combination, results or {})
                return folder
        folder = models / version_name(name, max(known, default=0) + 1)
        _write(folder, study, trials, combination, results or {})
        return folder


def is_measured(results: Mapping[str, Any]) -> bool:
    """Say whether a card's results hold scores on the test split."""
    return bool(results.get("test"))


def _write(
    folder: Path,
    study: StudyRecord,
    trials: Sequence[TrialFolder],
    combination: Combination,
    results: Mapping[str, Any],
) -> Card:
    average = combination.average
    records = [trial.record() for trial in trials]
    remove_leftovers(folder)
    with written_aside(folder) as aside:
        entries = tuple(
            _write_member(aside, place, trial, record, weight)
            for place, (trial, record, weight) in enumerate(
                zip(trials, records, average.weights, strict=True)
            )
        )
        card = Card(
            what=_describe(records, combination.rule, len(study.classes)),
            name=folder.name,
            kind="ensemble" if len(entries) > 1 else "single",
            study=study.name,
            classes=study.classes,
            members=entries,
            rule=combination.rule,
            space=average.space,
            temperature=average.temperature,
            stack=average.stack,
            tta=combination.tta,
            preprocessing=PREPROCESSING,
            **(study.cut or crop_fields(study.data)),
            manifest_hash=study.manifest_hash,
            results=dict(results),
            made_at=time.time(),
            git_commit=git_commit(),
            versions=versions(),
        )
        card.write(aside / "card.json")
    return card


@contextmanager
def _exclusive(models: Path) -> Iterator[None]:
    """Let nobody else write a package below `models`, and tidy up after those who were killed."""
    with locked(models / ".lock"):
        recover_folders(models)
        yield


def _write_member(
    package: Path, place: int, trial: TrialFolder, record: TrialRecord, weight: float
) -> MemberEntry:
    folder = package / "members" / str(place)
    weights = weights_of(trial, record)
    folder.mkdir(parents=True)
    shutil.copyfile(weights, folder / "weights.safetensors")
    MemberCard(
        trial=record.name,
        config=record.config,
        input=member_input(record.config, trial.weights_file),
    ).write(folder / "config.json")
    return MemberEntry(
        folder=f"members/{place}",
        trial=record.name,
        backbone=record.config.backbone,
        weight=weight,
        sha256=sha256_of(folder / "weights.safetensors"),
    )


def weights_of(trial: TrialFolder, record: TrialRecord) -> Path:
    """Return a trial's weights file, fetched where need be; raises RecordError without one."""
    weights = fetched_weights(trial)
    if not weights.exists():
        raise RecordError(
            f"trial {record.name} has no weights any more: the disk budget deleted them; "
            "ensemble again without it, or `carray replay` it"
        )
    return weights


def crop_fields(data: str) -> dict[str, Any]:
    """Return how images were cut and classes merged, as the card's fields; nothing if unknown."""
    file = Path(data) / "manifest.json"
    settings = read_json(file).get("settings", {}) if data and file.exists() else {}
    return {name: settings[name] for name in ("crop", "margin", "merge") if name in settings}


def member_input(config: TrialConfig, weights_file: Path) -> InputSpec:
    """Return what a trial's classifier was fed: from its weights' metadata, else from timm.

    The metadata are read without torch; older weights need the pretrained file to be there.
    """
    found = safetensors_metadata(weights_file)
    if "mean" in found and "std" in found:
        mean, std = (tuple(json.loads(found[name])) for name in ("mean", "std"))
        return InputSpec(size=config.image_size, mean=mean, std=std)
    from carray.models.backbones import input_spec

    return input_spec(config)


def safetensors_metadata(file: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file: eight bytes of length, JSON, then the tensors.

    Raises:
        RecordError: it isn't one, or is cut short.
    """
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES
        header = opened.read(length) if length < MAX_HEADER_BYTES else b""
    try:
        found = json.loads(header)
        metadata = found.pop("__metadata__", None) or {}
        end = 8 + length + max((each["data_offsets"][1] for each in found.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise RecordError(f"{file} is no safetensors file: it may be cut short") from None
    if file.stat().st_size != end:
        raise RecordError(f"{file} is cut short: it should have {end:,} bytes")
    return dict(metadata)


def _describe(records: Sequence[TrialRecord], rule: str, num_classes: int) -> str:
    backbones = ", ".join(dict.fromkeys(record.config.backbone for record in records))
    return f"{counted(len(records), 'classifier')} of {num_classes} classes ({backbones}), {rule}"
