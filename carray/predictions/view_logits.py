"""Logits of test-time views, kept beside their trial, so that each is looked through once.

They stay on this machine: at a URL there are the trials' own logits alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields

import numpy as np

from carray.data.pixels.augmentation import WHOLE, View
from carray.files import map_array, written_aside
from carray.predictions.logits import read_logits
from carray.records import Logits, TrialFolder, TrialRecord
from carray.typing import Float32s


def view_key(view: View) -> str:
    """Name a view by what differs from the whole image: other kinds of views change no name."""
    usual = {field.name: field.default for field in fields(View)}
    own = {name: value for name, value in asdict(view).items() if value != usual[name]}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]


def stored_view(
    trial: TrialFolder, record: TrialRecord, view: View, split: str, shape: tuple[int, int]
) -> Logits | None:
    """Return a trial's logits (images, classes) of a view, mapped; None where there are none.

    Those of the whole image are the trial's own.

    Raises:
        RecordError: the trial's own are broken, or of other data.
    """
    if view == WHOLE:
        return read_logits(trial, record.name, split, *shape)
    logits = map_array(trial.view_file(view_key(view), split))
    return logits if logits is not None and logits.shape == shape else None


def store_view(trial: TrialFolder, view: View, split: str, logits: Float32s) -> None:
    """Keep a trial's logits (images, classes) of a view, as float16."""
    file = trial.view_file(view_key(view), split)
    with written_aside(file) as aside, aside.open("wb") as opened:
        np.save(opened, np.asarray(logits, np.float16))
