"""True labels of the held splits: from the study's own file, else from its data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from carray.errors import DataError, RecordError
from carray.records import HELD_SPLITS, StudyFolder, StudyRecord
from carray.typing import Labels

if TYPE_CHECKING:
    from carray.data.manifest import Manifest


@dataclass(frozen=True)
class HeldLabels:
    """Class names, and the class index of each image of each held split."""

    classes: tuple[str, ...]
    splits: dict[str, Labels]

    def of(self, split: str) -> Labels:
        """Return the labels of a split; empty where the data has no such split."""
        return self.splits[split]


def held_labels(folder: StudyFolder) -> HeldLabels:
    """Return the labels of a study's held splits; written beside the study once worked out.

    Raises:
        RecordError: neither the study nor its data set can say.
    """
    study = folder.record()
    if not folder.labels_file.exists():
        manifest = study_manifest(study, "has no labels.npz and its", "use --from-tracking")
        folder.write_labels({s: manifest.labels[manifest.rows(s)] for s in HELD_SPLITS})
    splits = {split: folder.labels(split) for split in HELD_SPLITS}
    return HeldLabels(study.classes or _classes_of_data(study), splits)


def study_manifest(
    study: StudyRecord, lacks: str = "needs its images, and its", cure: str = ""
) -> Manifest:
    """Return the data set that a study was made on.

    Raises:
        RecordError: it is gone, or has changed since.
    """
    from carray.data.manifest import Manifest

    try:
        manifest = Manifest.load(study.data)
    except DataError as error:
        raise RecordError(
            f"study {study.name!r} {lacks} data can't be read ({error}); bring the data back"
            + (f", or {cure}" if cure else "")
        ) from None
    if study.manifest_hash and manifest.hash != study.manifest_hash:
        raise RecordError(
            f"the data at {study.data} have changed since study {study.name!r}: the study saw "
            f"{study.manifest_hash[:12]}, there is {manifest.hash[:12]}"
        )
    return manifest


def _classes_of_data(study: StudyRecord) -> tuple[str, ...]:
    from carray.data.manifest import Manifest

    return Manifest.load(study.data).classes
