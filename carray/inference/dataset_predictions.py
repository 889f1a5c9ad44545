"""A packaged model on the images of a prepared data set: the pixel store, not the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carray.data.manifest import Manifest, check_still_there
from carray.errors import DataError, RecordError
from carray.inference.card import Card
from carray.inference.predictor import BATCH_IMAGES, Model, open_stores
from carray.predictions.test_access import record_access
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.typing import Float32s, Progress, Rows


def predict_rows(
    model: Model, manifest: Manifest, rows: Rows, progress: Progress = silent
) -> Float32s:
    """Return log-probabilities (rows, classes), as `Model.predict` has them.

    Raises:
        DataError: an image is gone or has changed since it was prepared.
    """
    return answer_rows(model, manifest, rows, progress)[0]


def answer_rows(
    model: Model, manifest: Manifest, rows: Rows, progress: Progress = silent
) -> tuple[Float32s, Float32s]:
    """Return log-probabilities (rows, classes), and energies (rows,).

    Raises:
        DataError: an image is gone or has changed since it was prepared.
    """
    log_ps, energies = [np.empty((0, len(model.classes)), np.float32)], [np.empty(0, np.float32)]
    stores = open_stores(manifest, model.members, progress)
    with progress("predicting", len(rows)) as advance:
        for start in range(0, len(rows), BATCH_IMAGES):
            some = rows[start : start + BATCH_IMAGES]
            log_p, energy = model.answer({name: store[some] for name, store in stores.items()})
            log_ps.append(log_p)
            energies.append(energy)
            advance(len(some))
    return np.concatenate(log_ps), np.concatenate(energies)


def check_classes(known: Sequence[str], found: Sequence[str], model: str, data: str) -> None:
    """Refuse classes that differ in number, name or order.

    Raises:
        DataError: they do; both sides are named.
    """
    if tuple(known) == tuple(found):
        return
    if len(known) != len(found):
        raise DataError(
            f"{model} knows {len(known)} classes and {data} has {len(found)}: use data with the "
            "classes that it was trained on"
        )
    place = next(i for i, pair in enumerate(zip(known, found, strict=True)) if pair[0] != pair[1])
    same = "the same names in another order" if set(known) == set(found) else "other classes"
    raise DataError(
        f"class {place} is {known[place]!r} in {model} and {found[place]!r} in {data} ({same}): "
        "use the data that it was trained on"
    )


def find_data(runs: RunsFolder, card: Card, data: str | Path | None) -> Manifest:
    """Return the data set of a model: `data`, else where its study had it.

    Raises:
        RecordError: the study isn't there to say, or the data have moved.
        DataError: it is no data set, or its classes are others.
    """
    if data is None:
        try:
            data = runs.find_study(card.study).record().data
        except RecordError as error:
            raise RecordError(f"{error}; or say where its data are: --data DIR") from None
        check_still_there(data, f"the model {card.name}")
    manifest = Manifest.load(data)
    check_classes(card.classes, manifest.classes, card.name, str(data))
    return manifest


def record_model_access(runs: RunsFolder, card: Card, manifest: Manifest) -> int:
    """Record that a package looks at a data set's test split; return how many models ever did.

    The package of an ensemble that has looked already is the same model.
    """
    return record_access(
        runs,
        model=card.name,
        study=card.study,
        manifest_hash=manifest.hash,
        trials=[member.trial for member in card.members],
        combination=card.combination,
    )
