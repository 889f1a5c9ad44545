"""The line that plans refits: of which trials, how long, and what of them is smoothed."""

from __future__ import annotations

import pytest

from carray.models.recipes import LONG
from carray.records import TrialRecord
from carray.search.observers.start_line import drawn_text, refits_text
from carray.search.scheduling.refits import Refit
from carray.search.space.yaml_reader import parse_space
from carray.search.warm_start.known_recipes import refit_config

SPACE = """
version: 1
fixed: {backbone: resnet10t, epochs: 12}
search:
  optimizer.lr: {loguniform: [1.0e-4, 1.0e-2]}
"""


@pytest.mark.parametrize(
    ("refits", "told"),
    [
        (((0, LONG, 0),), "the best trial again, for 24 epochs, label smoothing 0.1"),
        (((0, 12, 1),), "the best trial again with 1 further seed, for 12 epochs"),
        (
            ((0, LONG, 1), (1, LONG, 1), (0, LONG, 2)),
            "the best 2 trials again with 3 further seeds, for 24 epochs, label smoothing 0.1",
        ),
        (
            ((0, LONG, 1), (0, 12, 2), (0, 12, 3)),
            "the best trial again with 3 further seeds, 1 for 24 and 2 for 12 epochs, "
            "those of 24, label smoothing 0.1",
        ),
    ],
)
def test_planned_refits_are_told(refits: tuple[tuple[int, int, int], ...], told: str) -> None:
    space = parse_space(SPACE, "space.yaml")
    drawn = {"optimizer.lr": 1e-3}
    trials = [
        TrialRecord(study="s", number=number, params=drawn, config=space.resolve(drawn))
        for number in range(2)
    ]
    planned = [Refit.longer(trials[of], epochs, seed) for of, epochs, seed in refits]
    assert refits_text(planned, space) == f"refit: {told}"


def test_a_refit_of_larger_images_says_so() -> None:
    text = "refit: {image_size: 288, augment.strength: 0.5, optimizer.args.caution: true}"
    space = parse_space(SPACE + text, "space.yaml")
    drawn = {"optimizer.lr": 1e-3}
    of = TrialRecord(study="s", number=3, params=drawn, config=space.resolve(drawn))
    planned = [Refit.longer(of, 16, 1), Refit.longer(of, 12, 2)]
    told = "1 for 16 and 1 for 12 epochs, those of 16 at 288 px, caution true, strength 0.5"
    assert (
        refits_text(planned, space) == f"refit: the best trial again with 2 further seeds, {told}"
    )
    config = refit_config(space, of, 16, 0)
    again = TrialRecord(study="s", number=4, kind="refit", refit_of=3, config=config)
    assert drawn_text(again, [of, again]) == "trial 0003 for 16 epochs at 288 px"
