"""Training images whose label is perhaps wrong, found by trials that haven't seen them.

Confident learning (Northcutt, Jiang, Chuang, Journal of Artificial Intelligence Research 2021): an
image is doubtful if another class is as likely as that class is for images that bear its label. To
spare images that are only hard, its own label must be far less likely than usual, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carray.analysis.cross_validation import CrossValidation
from carray.data.manifest import Manifest
from carray.files import read_array, write_csv
from carray.predictions.labels import study_manifest
from carray.predictions.logits import log_softmax
from carray.runs_folder import RunsFolder
from carray.typing import Float32s, Labels, Rows

# of its usual probability; chosen on one set of planted labels: 54 % of the named were, else 31 %
LOW_PROBABILITY_SHARE = 0.25
COLUMNS = ("image", "label", "perhaps", "label_probability", "perhaps_probability")


@dataclass(frozen=True)
class LabelIssues:
    """The doubtful images of a study's training split, and the file that names them."""

    file: Path
    """A CSV that `carray data prepare --exclude` reads; most doubtful first."""
    images: int
    of: int
    """Training images."""


def write_label_issues(
    found: CrossValidation, file: Path | str, *, runs: Path | str | None = None
) -> LabelIssues:
    """Write the training images that the folds' trials doubt, by `found`'s out-of-fold logits.

    Raises:
        RecordError: the data are gone or have changed.
    """
    manifest = study_manifest(RunsFolder.at(runs).study(found.study).record())
    rows, labels, logits = (read_array(found.logits_file, n) for n in ("rows", "labels", "logits"))
    p_NC = np.exp(log_softmax(logits))
    places, others = find_label_issues(p_NC, labels)
    _write(Path(file).expanduser(), manifest, rows, labels, p_NC, places, others)
    return LabelIssues(Path(file).expanduser(), len(places), len(rows))


def find_label_issues(p_NC: Float32s, labels: Labels) -> tuple[Rows, Labels]:
    """Return the places of doubtful images, most doubtful first, and what each perhaps is.

    Args:
        p_NC: probabilities (images, classes) by a model that hasn't seen the image.
        labels: class index of each image, (images,).
    """
    usual_C = np.full(p_NC.shape[1], np.inf)  # a class without an image is never likely
    for own in np.unique(labels):
        usual_C[own] = p_NC[labels == own, own].mean()
    likely_NC = np.where(p_NC >= usual_C, p_NC, 0.0)
    others = likely_NC.argmax(axis=1)
    is_claimed = (likely_NC.max(axis=1) > 0) & (others != labels)
    share_N = p_NC[np.arange(len(labels)), labels] / usual_C[labels]
    places = np.flatnonzero(is_claimed & (share_N < LOW_PROBABILITY_SHARE))
    order = places[np.argsort(share_N[places], kind="stable")]
    return order, others[order]


def _write(
    file: Path,
    manifest: Manifest,
    rows: Rows,
    labels: Labels,
    p_NC: Float32s,
    places: Rows,
    others: Labels,
) -> None:
    names, images = manifest.classes, manifest.included["image_id"].to_numpy()
    table = []
    for place, other in zip(places.tolist(), others.tolist(), strict=True):
        own = int(labels[place])
        p = (f"{p_NC[place, own]:.6f}", f"{p_NC[place, other]:.6f}")
        table.append([images[rows[place]], names[own], names[other], *p])
    write_csv(file, COLUMNS, table)
