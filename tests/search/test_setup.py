"""What a study does where nobody says: the defaults that the lab replays are those of `tune`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from carray.config import TrialConfig
from carray.errors import RecordError
from carray.records import RunsFolder, StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.search.request import StudyRequest
from carray.search.sampling.samplers import BLIND
from carray.search.scheduling.schedulers import RUNG_STEP, Asha
from carray.search.setup import (
    open_ledger,
    plan_study,
    refit_plan,
    resolve_starting_points,
    scheduler_of,
)
from carray.search.space.yaml_reader import parse_space
from carray.search.warm_start.starting_points import SHIPPED
from carray.search_benchmark.methods import shipped_method

SPACE = """
version: 1
search:
  optimizer.lr: {loguniform: [1e-4, 1e-1]}
"""


def rungs(text: str = SPACE, **options: int) -> list[int]:
    """Return the epochs at which a study of 50 epochs stops trials, where nobody says how."""
    request = StudyRequest(data=Path("data"), space="space.yaml", **options)  # type: ignore[arg-type]
    study = StudyRecord(name="s", scheduler=shipped_method(50).scheduler, max_epochs=50)
    scheduler = scheduler_of(request, parse_space(text, "space.yaml"), study)
    assert isinstance(scheduler, Asha)
    return scheduler.rungs


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
    return resolve_starting_points(
        request, parse_space(text, "space.yaml"), RunsFolder(Path("runs"))
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


MACHINE = [{"CPU": 8.0, "GPU": 4.0}]


def ended(count: int, kind: str = "search") -> list[TrialRecord]:
    blank = TrialRecord(study="s", number=0, config=TrialConfig(), state=TrialState.COMPLETE)
    return [blank.model_copy(update={"number": n, "kind": kind}) for n in range(count)]


def test_refits_don_t_count_among_the_trials_of_an_extended_study() -> None:
    request = StudyRequest(data=Path("data"), space="space.yaml")
    study = StudyRecord(name="s", trials=14)
    assert plan_study(request, study, [*ended(10), *ended(3, "refit")], MACHINE).lanes == 4


def test_refits_that_go_on_have_as_many_ranks_as_when_they_began() -> None:
    """The global batch is of all ranks."""
    request = StudyRequest(data=Path("data"), space="space.yaml", refit=2)
    study = StudyRecord(name="s", trials=12)
    begun = plan_study(request, study, [], MACHINE).widened(2)
    assert (begun.lanes, begun.workers) == (2, 2)
    assert plan_study(request, study, ended(12), MACHINE).lanes == 2
    assert refit_plan(request, study, MACHINE) == begun


def test_a_storage_that_is_not_the_studys_is_refused(tmp_path: Path) -> None:
    request = StudyRequest(data=Path("data"), space="space.yaml")
    space, study = parse_space(SPACE, "space.yaml"), StudyRecord(name="s", trials=3)
    folder = StudyFolder(tmp_path / "s")
    folder.path.mkdir()
    opened = partial(open_ledger, request, folder, study, space)
    with opened([], [], []) as ledger:
        for _ in range(2):
            record = ledger.ask()
            assert record is not None
            ledger.end(record.number, TrialState.PRUNED)
    with pytest.raises(RecordError, match="whose trials aren't in"), opened([], [], []):
        pass
    kept = folder.optuna_file.read_bytes()
    folder.optuna_file.unlink()
    points = [{"optimizer.lr": 1e-3}] * 3
    lacks = "lacks 2 trials of study 's': give the --storage"
    for _ in "once", "twice":
        with (
            pytest.raises(RecordError, match=lacks),
            opened(points, folder.records(), []),
        ):
            pass
    for broken in (kept[:5000], b"no database"):
        folder.optuna_file.write_bytes(broken)
        with (
            pytest.raises(RecordError, match="can't be opened"),
            opened([], folder.records(), []),
        ):
            pass
    folder.optuna_file.write_bytes(kept)
    with opened([], folder.records(), []) as ledger:
        assert ledger.ask()


def test_starting_points_that_a_killed_first_call_did_not_get_to_are_tried_all_the_same(
    tmp_path: Path,
) -> None:
    request = StudyRequest(data=Path("data"), space="space.yaml")
    space, study = parse_space(SPACE, "space.yaml"), StudyRecord(name="s", trials=3)
    folder = StudyFolder(tmp_path / "s")
    folder.path.mkdir()
    lrs = (1e-3, 2e-3, 3e-3)
    points = [{"optimizer.lr": lr} for lr in lrs]
    with open_ledger(request, folder, study, space, points[:1], [], []):
        pass  # killed after the first
    with open_ledger(request, folder, study, space, points, [], []) as ledger:
        asked = [record for _ in points if (record := ledger.ask())]
    assert tuple(record.config.optimizer.lr for record in asked) == lrs
