"""A model that looks at the test split again is the same model, whoever it asks through."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.analysis.compare_trials import compare_trials
from carray.ensemble import build_ensemble
from carray.inference.card import Card
from carray.predictions.averaging import WeightedAverage
from carray.predictions.combination import SINGLE_TRIAL, Combination
from carray.predictions.test_access import accesses, fingerprint, record_access
from carray.predictions.views import Tta, parse_views
from carray.runs_folder import RunsFolder
from tests.ensemble.studies import StudySpec, Trial, make_study

FLIP = Tta("flip", "logit", parse_views("flip"))
FITTED = Combination(WeightedAverage((0, 1), (0.75, 0.25)), "fitted weights")
FOLDS = Combination(WeightedAverage((0, 1, 2), (1 / 3,) * 3), "soft vote")
LEFT = ("4fd43a6e4a2c87dd", "8eaed2482b3f6311", "957b90b87d5064a0")
PAIR = ["autumn/0001", "autumn/0003"]


@pytest.mark.parametrize(
    ("trials", "combination", "hexadecimal"),
    [
        (PAIR, FITTED, "c0895abbb8012f39"),
        (PAIR, Combination(FITTED.average, FITTED.rule, FLIP), "2edbcc8c8b814404"),
        (["autumn/0001"], SINGLE_TRIAL, "957b90b87d5064a0"),
        ([f"single/000{number}" for number in (2, 3, 4)], FOLDS, "5ee601ba5f480025"),
    ],
    ids=["ensemble", "with views", "single trial", "folds"],
)
def test_fingerprints_are_those_of_the_records_that_exist(
    trials: list[str], combination: Combination, hexadecimal: str
) -> None:
    assert fingerprint(trials, combination) == hexadecimal


def test_an_ensemble_and_compared_trials_leave_the_records_that_they_always_left(
    tmp_path: Path,
) -> None:
    trials = tuple(Trial(skill=2.0, noise=2.0, scale=0.7) for _ in range(5))
    make_study(tmp_path, StudySpec(trials))
    build_ensemble(runs=tmp_path, logits_only=True, rule="soft vote", top=3)
    compare_trials("autumn", trials=[0, 1], runs=tmp_path)
    files = sorted(file.name for file in (tmp_path / "openings").iterdir())
    assert files == ["m" * 12 + f"-{hexadecimal}.json" for hexadecimal in LEFT]


def test_a_package_is_the_model_that_its_ensemble_was(tmp_path: Path) -> None:
    member = {"folder": "members/0", "backbone": "resnet18", "sha256": ""}
    card = Card.model_validate(
        {
            "what": "",
            "name": "pair",
            "kind": "ensemble",
            "study": "autumn",
            "classes": ("a", "b"),
            "members": [
                {**member, "trial": trial, "weight": weight}
                for trial, weight in zip(PAIR, (0.75, 0.25), strict=True)
            ],
            "rule": "fitted weights",
            "tta": {"name": "flip", "space": "logit", "views": [{}, {"flip": True}]},
            "preprocessing": "",
        }
    )
    assert Card.model_validate_json(card.model_dump_json()) == card
    assert card.combination == Combination(FITTED.average, FITTED.rule, FLIP)
    model = {"model": "pair", "study": "autumn", "manifest_hash": "m" * 64, "trials": PAIR}
    for combination in (card.combination, Combination(FITTED.average, FITTED.rule, FLIP)):
        record_access(RunsFolder(tmp_path), **model, combination=combination)  # type: ignore[arg-type]
    found = accesses(RunsFolder(tmp_path), "m" * 64)
    assert [(record.fingerprint, len(record.times)) for record in found] == [
        ("2edbcc8c8b814404", 2)
    ]
