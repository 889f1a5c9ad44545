"""What a study does where nobody says: the defaults that the lab replays are those of `tune`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from carray.config import TrialConfig
from carray.data.preparation.prepare import prepare
from carray.errors import ConfigError, RecordError, UnsuitableData
from carray.metrics import DEFAULT_OBJECTIVE
from carray.models.recipes import known_recipe
from carray.records import TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.search.plans import plan_study, refit_plan
from carray.search.request import StudyRequest, refit_count
from carray.search.sampling.samplers import BLIND
from carray.search.scheduling.schedulers import RUNG_STEP, Asha
from carray.search.setup import (
    StudySetup,
    open_ledger,
    scheduler_of,
)
from carray.search.space.yaml_reader import parse_space
from carray.search.warm_start.first_trials import StartingPoints, resolve_starting_points
from carray.search.warm_start.starting_points import SHIPPED
from carray.search_benchmark.methods import shipped_method
from tests.data.pictures import image_folder

SPACE = """
version: 1
search:
  optimizer.lr: {loguniform: [1e-4, 1e-1]}
"""


Resolve = Callable[..., StudySetup]


@pytest.fixture
def resolve(toy_data: Path, tmp_path: Path) -> Resolve:
    """Resolve a request of the toy cars, in a folder of the test's own."""

    def resolved(text: str = SPACE, **options: Any) -> StudySetup:
        space = tmp_path / "space.yaml"
        space.write_text(text)
        asked = {"name": "s", "runs": str(tmp_path / "runs"), **options}
        return StudySetup.resolve(StudyRequest(data=toy_data, space=str(space), **asked))

    return resolved


def rungs(resolve: Resolve, text: str = SPACE, **options: int) -> list[int]:
    """Return the epochs at which a study of 50 epochs stops trials, where nobody says how."""
    setup = resolve(text, max_epochs=50, **options)
    assert setup.study.scheduler == shipped_method(50).scheduler
    scheduler = scheduler_of(setup)
    assert isinstance(scheduler, Asha)
    return scheduler.rungs


def test_a_study_stops_trials_as_the_lab_says_that_it_does(resolve: Resolve) -> None:
    shipped = shipped_method(50)
    first, second, *_ = rungs(resolve)
    assert first == shipped.grace_epochs == 5
    assert second == int(first * RUNG_STEP)


@pytest.mark.parametrize(
    ("text", "options", "first"),
    [(SPACE + "grace_epochs: 2", {}, 2), (SPACE + "grace_epochs: 2", {"grace_epochs": 7}, 7)],
)
def test_a_spaces_grace_counts_before_the_default_and_a_requests_before_both(
    resolve: Resolve, text: str, options: dict[str, int], first: int
) -> None:
    assert rungs(resolve, text, **options)[0] == first


def test_what_a_request_says_counts_before_the_space_and_the_space_before_the_default(
    resolve: Resolve,
) -> None:
    own = SPACE + "trials: 7\nsampler: random\nscheduler: none\n"
    asked = {"trials": 9, "sampler": "tpe", "scheduler": "asha"}
    said = [
        (setup.study.trials, setup.study.sampler, setup.study.scheduler)
        for setup in (resolve(), resolve(own), resolve(own, **asked))
    ]
    assert said == [
        (30, shipped_method(50).sampler, "asha"),
        (7, "random", "none"),
        (9, "tpe", "asha"),
    ]


def test_a_request_is_resolved_without_a_trace(resolve: Resolve, tmp_path: Path) -> None:
    setup = resolve(max_epochs=4, seed=5, weights=Path("~") / "weights")
    assert setup.weights == str(Path.home() / "weights")
    assert setup.storage == f"sqlite:///{setup.folder.optuna_file}"
    assert (setup.study.max_epochs, setup.refit_lengths, setup.study.seed) == (4, (8,), 5)
    assert setup.space.shared.fixed["epochs"] == 4
    assert setup.study.manifest_hash == setup.manifest.hash
    assert not (tmp_path / "runs").exists()
    assert resolve(refit=1, refit_epochs=30, storage="sqlite:///x.db").refit_lengths == (30,)
    from_scratch = {"budget": "1h", "overrides": {"pretrained": False}}
    assert resolve(max_epochs=8, **from_scratch).refit_lengths == (32, 16)
    assert resolve(max_epochs=20, **from_scratch).refit_lengths == (60, 40)
    assert resolve(budget="1h", max_epochs=8).refit_lengths == (32,), "of pretrained networks"
    assert resolve(budget="1h", max_epochs=20).refit_lengths == (60,)
    assert resolve(budget="1h", max_epochs=30).refit_lengths == (60,)
    assert resolve(budget="1h", max_epochs=30, refit=2).refit_lengths == (60,)
    assert resolve(budget="1h", max_epochs=8, refit=2).refit_lengths == (16,)
    larger = SPACE + "refit: {image_size: 288}\n"
    assert resolve(larger, budget="1h", max_epochs=8).refit_lengths == (19,), "of as much time"
    assert resolve(larger, max_epochs=8).refit_lengths == (16,)
    assert resolve(storage="sqlite:///x.db").storage == "sqlite:///x.db"


def test_a_study_of_that_name_is_extended_and_never_cut_short(resolve: Resolve) -> None:
    begun = resolve(trials=12).study.model_copy(update={"started_at": 5.0, "state": "interrupted"})
    begun.write(resolve().folder.record_file)
    for trials, expected in ((20, 20), (4, 12)):
        study = resolve(trials=trials, refit=5).study
        assert (study.trials, study.started_at, study.state) == (expected, 5.0, "running")
    with pytest.raises(ConfigError, match="--refit 13 must be at most --trials 12"):
        resolve(trials=4, refit=13)
    with pytest.raises(RecordError, match="another search space"):
        resolve(max_epochs=3)


def test_a_folder_of_single_trainings_is_called_that(resolve: Resolve) -> None:
    setup = resolve()
    single = setup.study.model_copy(update={"kind": "single", "space_hash": ""})
    single.write(setup.folder.record_file)
    with pytest.raises(RecordError, match="collects trainings outside a search"):
        resolve()


def test_a_study_keeps_the_metric_that_it_was_begun_with_where_the_space_names_none(
    resolve: Resolve,
) -> None:
    silent = "version: 1\nsearch: {optimizer.lr: {loguniform: [1e-4, 1e-2]}}\n"
    setup = resolve(silent + "metric: val/log_loss\n")
    setup.study.write(setup.folder.record_file)
    assert resolve(silent).study.metric == "val/log_loss"
    assert resolve(silent, name="other").study.metric == DEFAULT_OBJECTIVE
    with pytest.raises(RecordError, match="another search space"):
        resolve(silent + "metric: val/top1\n")


def test_a_budget_keeps_time_for_refits_unless_told_otherwise() -> None:
    within = StudyRequest(data="d", budget="5min")
    assert refit_count(within) == 9
    assert refit_count(StudyRequest(data="d", time_budget_seconds=60)) == 9
    assert [refit_count(replace(within, refit=count)) for count in (0, 2)] == [0, 2]
    assert refit_count(StudyRequest(data="d")) == 0


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
    space = replace(parse_space(text, "space.yaml"), images=640)
    return resolve_starting_points(request, space, RunsFolder(Path("runs"))).points


def test_a_space_that_says_nothing_starts_from_known_recipes_then_the_shipped_portfolio() -> None:
    known, *shipped = starts(OPEN)
    recipe = known_recipe({"backbone": "resnet50", "epochs": 10}, images=640)
    assert known == {"optimizer.name": "adamw", "optimizer.lr": recipe["optimizer.lr"]}
    assert shipped == starts(OPEN, SHIPPED) != []
    assert len(starts(OPEN.replace("resnet50", "test_vit"))) == 1  # the portfolio knows none


def test_a_recipe_outside_the_space_is_moved_to_its_nearest_end_and_said() -> None:
    text = OPEN.replace("[1e-4, 1e-1]", "[1e-5, 1e-4]").replace("[adamw, sgd]", "[lamb, adamw]")
    space = replace(parse_space(text, "space.yaml"), images=640)
    request = StudyRequest(data=Path("data"), space="space.yaml")
    found = resolve_starting_points(request, space, RunsFolder(Path("runs")))
    assert found.points[0] == {"optimizer.name": "adamw", "optimizer.lr": 1e-4}
    assert found.lines()[1:] == [
        "known recipe of resnet50: optimizer.lr 0.00061 is outside, 0.0001 was taken"
    ]


@pytest.mark.parametrize(("listed", "taken"), [("[1e-5, 2e-3]", 2e-3), ("[4e-4, 1e-3]", 4e-4)])
def test_listed_rates_that_lie_far_apart_are_near_by_their_ratio(listed: str, taken: float) -> None:
    """The recipe's is 6.1e-4."""
    text = OPEN.replace("{loguniform: [1e-4, 1e-1]}", f"{{choice: {listed}}}")
    assert starts(text)[0]["optimizer.lr"] == taken


def test_what_a_space_leaves_open_is_the_known_recipe_unless_the_study_began_without(
    resolve: Resolve,
) -> None:
    text = SPACE + "fixed: {backbone: test_vit, epochs: 10}\n"
    drawn = {"optimizer.lr": 1e-3}
    recipe = resolve(text).space.resolve(drawn)
    assert (recipe.optimizer.layer_decay, recipe.drop_path) == (0.75, 0.1)
    assert recipe.optimizer.lr == 1e-3
    plain = resolve(text + "recipe: none\n")
    assert plain.space.resolve(drawn).optimizer.layer_decay == 1.0
    begun = resolve(text)
    begun.study.model_copy(update={"recipe": False}).write(begun.folder.record_file)
    assert resolve(text).space.resolve(drawn).optimizer.layer_decay == 1.0


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


def test_refits_don_t_count_among_the_trials_of_an_extended_study(resolve: Resolve) -> None:
    setup = resolve(trials=14)
    assert plan_study(setup, [*ended(10), *ended(3, "refit")], MACHINE).lanes == 4


def test_refits_that_go_on_have_as_many_ranks_as_when_they_began(resolve: Resolve) -> None:
    """The global batch is of all ranks."""
    setup = resolve(trials=12, refit=2)
    begun = plan_study(setup, [], MACHINE).widened(2)
    assert (begun.lanes, begun.workers) == (2, 2)
    assert plan_study(setup, ended(12), MACHINE).lanes == 2
    assert refit_plan(setup, ended(12), MACHINE) == begun


def test_a_storage_that_is_not_the_studys_is_refused(resolve: Resolve) -> None:
    setup = resolve(trials=3, start_from=("none",))
    folder = setup.folder
    folder.path.mkdir(parents=True)
    with open_ledger(setup, [], []) as ledger:
        for _ in range(2):
            record = ledger.ask()
            assert record is not None
            ledger.end(record.number, TrialState.PRUNED)
    with pytest.raises(RecordError, match="whose trials aren't in"), open_ledger(setup, [], []):
        pass
    kept = folder.optuna_file.read_bytes()
    folder.optuna_file.unlink()
    eager = replace(setup, starts=StartingPoints([{"optimizer.lr": 1e-3}] * 3))
    lacks = "lacks 2 trials of study 's': give the --storage"
    for _ in "once", "twice":
        with (
            pytest.raises(RecordError, match=lacks),
            open_ledger(eager, folder.records(), []),
        ):
            pass
    for broken in (kept[:5000], b"no database"):
        folder.optuna_file.write_bytes(broken)
        with (
            pytest.raises(RecordError, match="can't be opened"),
            open_ledger(setup, folder.records(), []),
        ):
            pass
    folder.optuna_file.write_bytes(kept)
    with open_ledger(setup, folder.records(), []) as ledger:
        assert ledger.ask()


def test_starting_points_that_a_killed_first_call_did_not_get_to_are_tried_all_the_same(
    resolve: Resolve,
) -> None:
    setup = resolve(trials=3)
    setup.folder.path.mkdir(parents=True)
    lrs = (1e-3, 2e-3, 3e-3)
    points = [{"optimizer.lr": lr} for lr in lrs]
    with open_ledger(replace(setup, starts=StartingPoints(points[:1])), [], []):
        pass  # killed after the first
    with open_ledger(replace(setup, starts=StartingPoints(points)), [], []) as ledger:
        asked = [record for _ in points if (record := ledger.ask())]
    assert tuple(record.config.optimizer.lr for record in asked) == lrs


def test_data_without_images_to_judge_by_are_refused_before_anything_starts(tmp_path: Path) -> None:
    prepare(
        image_folder(tmp_path / "in", {"a": 3, "b": 3}),
        tmp_path / "d",
        val_size=0,
        blend_size=0,
        folds=2,
    )
    space, runs = tmp_path / "space.yaml", tmp_path / "runs"
    space.write_text(SPACE)
    request = StudyRequest(data=tmp_path / "d", space=str(space), name="s", runs=str(runs))
    with pytest.raises(UnsuitableData, match="has no val images; prepare it with a val split"):
        StudySetup.resolve(request)
    assert not runs.exists()
    space.write_text(f"{SPACE}fixed: {{fold: 1}}\n")
    StudySetup.resolve(request)  # a fold stands for val
