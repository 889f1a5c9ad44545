"""What a study does where nobody says: the defaults that the lab replays are those of `tune`."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.lab.methods import shipped_method
from carray.records import RunsFolder, StudyRecord
from carray.search.opening import StudyRequest, scheduler_of, wanted_starts
from carray.search.samplers import BLIND
from carray.search.schedulers import RUNG_STEP, Asha
from carray.search.space import SearchSpace
from carray.search.starting import SHIPPED

SPACE = """
version: 1
search:
  optimizer.lr: {loguniform: [1e-4, 1e-1]}
"""


def rungs(text: str = SPACE, **options: int) -> list[int]:
    """Return the epochs at which a study of 50 epochs stops trials, where nobody says how."""
    request = StudyRequest(data=Path("data"), space="space.yaml", **options)  # type: ignore[arg-type]
    study = StudyRecord(name="s", scheduler=shipped_method(50).scheduler, max_epochs=50)
    scheduler = scheduler_of(request, SearchSpace.from_text(text, "space.yaml"), study)
    assert isinstance(scheduler, Asha)
    return sorted(int(milestone) for milestone, _ in scheduler._brackets[0]._rungs)


def test_a_study_stops_trials_as_the_lab_says_that_it_does() -> None:
    shipped = shipped_method(50)
    first, second, *_ = rungs()
    assert first == shipped.grace_epochs == 5
    assert second == int(first * RUNG_STEP)


@pytest.mark.parametrize(
    ("text", "options", "first"),
    [(SPACE + "grace_epochs: 2", {}, 2), (SPACE + "grace_epochs: 2", {"grace_epochs": 7}, 7)],
)
def test_a_spaces_grace_counts_before_the_default_and_a_requests_before_both(
    text: str, options: dict[str, int], first: int
) -> None:
    assert rungs(text, **options)[0] == first


OPEN = """
version: 1
fixed: {backbone: resnet50, epochs: 10}
search:
  optimizer.name: {choice: [adamw, sgd]}
  optimizer.lr: {loguniform: [1e-4, 1e-1]}
"""


def starts(text: str, *sources: str, sampler: str | None = None) -> list[dict[str, object]]:
    request = StudyRequest(
        data=Path("data"), space="space.yaml", start_from=sources, sampler=sampler
    )
    return wanted_starts(
        request, SearchSpace.from_text(text, "space.yaml"), RunsFolder(Path("runs"))
    )


def test_a_space_that_says_nothing_starts_from_the_shipped_portfolio() -> None:
    assert starts(OPEN) == starts(OPEN, SHIPPED) != []
    assert starts(OPEN.replace("resnet50", "test_vit")) == []  # of which it knows nothing


def test_a_spaces_own_starting_points_are_believed() -> None:
    own = OPEN + "start:\n  - {optimizer.name: adamw, optimizer.lr: 2e-3}\n"
    assert starts(own) == [{"optimizer.name": "adamw", "optimizer.lr": 2e-3}]


@pytest.mark.parametrize("sampler", BLIND)
def test_a_blind_sampler_draws_every_trial(sampler: str) -> None:
    assert starts(OPEN, sampler=sampler) == []
    assert starts(OPEN + f"sampler: {sampler}") == []


def test_no_starting_points_can_be_asked_for() -> None:
    assert starts(OPEN, "none") == []
