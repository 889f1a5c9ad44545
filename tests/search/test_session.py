"""Whole studies on lanes of this process: Ray's part is stood in for, all of carray's is real."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from carray import metrics
from carray.ensemble.build import build_ensemble
from carray.errors import ClusterError, DataError, PlanError, RecordError, WeightsError
from carray.lanes.lane import LaneShape
from carray.lanes.memory_guard import MemoryLimit
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.reports.study import study_lines
from carray.search import nodes, run, session, watchdog
from carray.search.placement.node_report import NodeQuestion, node_report
from carray.search.request import StudyRequest
from carray.search.run import run_study
from tests.lanes import fakes
from tests.lanes.fakes import WAIT_SECONDS, Fakes, LaneGone, LaneLost, epoch_row
from tests.lanes.local_mailbox import LocalMailbox
from tests.opened import stored_trials
from tests.search.studies import (
    FIXED,
    SPACE,
    Listener,
    LocalCluster,
    check_left,
    local,
    local_tune,
    request,
)
from tests.trained import Trained

__all__ = ["local", "local_tune"]
COLLAPSING = f"""
version: 1
fixed: {FIXED.replace("epochs: 3", "epochs: 4, device_batch_size: 16")}
search:
  optimizer.lr: {{loguniform: [1e-4, 1.0]}}
start:
""" + "".join(f"  - {{optimizer.lr: {lr}}}\n" for lr in (1.0, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3))


def test_lanes_are_planned_on_checked_nodes_alone(
    local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    wanted = request(toy_data, tmp_path, trials=3, concurrent=2)
    local.resources, board = [{"CPU": 0.1}, {"CPU": 8.0}], Listener()
    local.answers = {"1": "no answer within 90 s"}
    cannot = r"; nodes that can't be used: node 10\.0\.0\.1: no answer within 90 s$"
    with pytest.raises(PlanError, match=cannot):
        run_study(wanted, board)
    assert board.notes == ["node 10.0.0.1: no answer within 90 s; it gets no lane"]
    assert not local.lanes
    local.answers, placed = {}, []
    board.after = {1: lambda: placed.append(local.lanes[0].mailbox.nodes())}
    check_left(run_study(wanted, board))
    assert placed == [["0", "1"]]


def test_only_nodes_with_the_kind_of_gpu_that_is_asked_for_hold_lanes(
    local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    local.resources = [
        {"CPU": 8.0},
        {"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0},
        {"CPU": 8.0, "GPU": 2.0, "accelerator_type:H100": 1.0},
    ]
    with pytest.raises(PlanError, match=r"--accelerator B200: no node has one.* has H100, L4$"):
        run_study(request(toy_data, tmp_path, accelerator="B200"), Listener())
    local.answers["2"] = node_report(NodeQuestion())
    board, placed = Listener(), []
    board.after = {1: lambda: placed.append(local.lanes[0].mailbox.nodes())}
    check_left(run_study(request(toy_data, tmp_path, accelerator="H100"), board))
    assert placed == [["2"]]
    assert local.lanes[0].num_lanes == 2


def test_nodes_that_share_no_folder_train_and_a_trial_goes_on_on_another(
    local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    """Two nodes, each with its own cache; the first one's lane leaves in the middle of a trial."""
    local.fakes.caches.update({lane: tmp_path / f"node-{lane}" for lane in (0, 1)})
    local.fakes.faults.raises(DataError("its disk has gone"), trial=0, epoch=2)
    shape = {"gpus_per_trial": 0.0, "cpus_per_worker": 1.0}
    board = Listener()
    folder = run_study(request(toy_data, tmp_path, trials=3, concurrent=2, **shape), board)
    check_left(folder)
    assert local.fakes.faults.trained().count((0, 2)) == 2, "on both nodes"
    assert not list(folder.path.glob(".*sent*"))
    assert not list(tmp_path.glob("node-*/lanes/*/trials/[0-9]*"))


def test_a_complete_study_that_is_asked_for_nothing_more_starts_nothing(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request(toy_data, tmp_path, trials=2, refit=1)
    folder = run_study(wanted, Listener())
    check_left(folder)
    before, ended = folder.record(), []
    monkeypatch.setattr(Listener, "study_ended", lambda board, study: ended.append(study))
    with monkeypatch.context() as patched:
        patched.setattr(run, "connected", None)
        assert run_study(wanted, Listener()) == folder
        assert ended == [before]
        with pytest.raises(TypeError):  # another refit needs Ray
            run_study(replace(wanted, refit=2), Listener())
    monkeypatch.undo()
    run_study(replace(wanted, refit=2), Listener())
    assert sum(record.kind == "refit" for _, record in folder.trials()) == 2


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.01)


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_study_begins_with_few_lanes_and_takes_more_as_nodes_join(
    local: LocalCluster, toy_data: Path, tmp_path: Path, quick_looks: None
) -> None:
    """A second node is bad, a third is good and then lost; the first has a trial all the while."""
    shape = {"gpus_per_trial": 0.0, "cpus_per_worker": 1.0}
    wanted = request(toy_data, tmp_path, trials=6, concurrent=3, min_lanes=1, **shape)
    local.resources, board = [{"CPU": 1.2}], Listener()
    local.answers["1"] = "no answer within 60 s"
    stall = local.fakes.faults.stalls(trial=0, epoch=2)

    def come_and_go() -> None:
        assert stall.reached.wait(WAIT_SECONDS)
        local.resources += [{"CPU": 1.2}, {"CPU": 1.2}]
        eventually(lambda: board.counts[-1:] == [(2, 3, 0)])
        del local.resources[2]
        local.fakes.faults.lost_nodes.add("1")  # the node of lane 1
        eventually(lambda: board.counts[-1:] == [(1, 3, 1)])
        stall.go.set()

    others = threading.Thread(target=come_and_go)
    others.start()
    check_left(run_study(wanted, board))
    others.join()
    assert local.asked == [[{"CPU": 1.0}] * 3, []]
    assert board.notes.count("node 10.0.0.1: no answer within 60 s; it gets no lane") == 1


def test_lanes_that_nothing_can_hold_yet_are_waited_for(
    local: LocalCluster, toy_data: Path, tmp_path: Path, quick_looks: None
) -> None:
    empty: list[Mapping[str, float]] = [{"CPU": 0.0}]
    local.resources = list(empty)
    options = {"trials": 2, "concurrent": 2, "min_lanes": 2, "place_timeout_seconds": 0.1}
    with pytest.raises(PlanError, match="give both --gpus-per-trial and --cpus-per-worker"):
        run_study(request(toy_data, tmp_path, **options), Listener())
    options |= {"gpus_per_trial": 0.0, "cpus_per_worker": 1.0}
    with pytest.raises(PlanError, match=r"^room for 0 of --min-lanes 2 on 1 node; ask for fewer"):
        run_study(request(toy_data, tmp_path, **options), Listener())
    options["place_timeout_seconds"] = WAIT_SECONDS
    grown = threading.Timer(0.2, lambda: local.resources.append({"CPU": 3.0}))
    grown.start()
    check_left(run_study(request(toy_data, tmp_path, **options), Listener()))
    assert local.asked[-1] == []


def test_a_study_with_a_lost_rank_and_a_refit_on_both_lanes(
    local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    options = {"trials": 5, "refit": 1, "refit_epochs": 4, "concurrent": 2, "weights": weights}
    wanted = request(toy_data, tmp_path, **options)
    board, meanwhile = Listener(), []

    def start_it_twice() -> None:
        with pytest.raises(RecordError, match="is being run by another process") as refused:
            run_study(wanted, Listener())
        meanwhile.append(refused)

    board.after = {1: start_it_twice}
    local.fakes.faults.raises(LaneLost(), trial=1, epoch=2)
    folder = run_study(wanted, board)
    check_left(folder)
    records = folder.records()
    assert [record.kind for record in records] == ["search"] * 5 + ["refit"]
    assert len(records[-1].epochs) == 4
    assert records[0].config.optimizer.lr == 5e-3
    held = [record.held.cpus for record in records if record.held]
    assert held == [*[held[0]] * 5, 2 * held[0]], "the refit's lane has both lanes' ranks"
    assert "refit: the best trial again, for 4 epochs, on 1 lane of 2 ranks (DDP)" in board.notes
    assert sum("lost a rank and is back" in note for note in board.notes) == 1
    assert len(meanwhile) == 1
    told = {order.job.weights for order in local.fakes.faults.orders if order.job}
    assert told == {str(weights)}

    again = Listener()
    run_study(wanted, again)
    assert again.epochs == []
    assert len(local.lanes) == 2, "nothing is left to do, so none came up"
    with pytest.raises(RecordError, match="another search space"):
        run_study(request(toy_data, tmp_path, trials=5, max_epochs=2), Listener())


def test_a_study_that_asks_for_more_trials_goes_on_from_those_it_has(
    local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    folder = run_study(request(toy_data, tmp_path, trials=3), Listener())
    before = folder.records()
    board = Listener()
    run_study(request(toy_data, tmp_path, trials=5), board)
    check_left(folder)
    assert folder.records()[:3] == before
    assert {record.number for record in board.epochs} == {3, 4}


def test_a_complete_study_that_asks_for_more_epochs_continues_its_best_trials(
    local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    folder = run_study(request(toy_data, tmp_path, trials=5), Listener())
    check_left(folder)
    before = folder.records()
    best = sorted(before, key=lambda record: record.best("val/log_loss"))
    shutil.rmtree(folder.trial(best[1].number).checkpoint)
    local.fakes.faults.orders.clear()
    board = Listener()
    longer = request(toy_data, tmp_path, trials=None, max_epochs=6)
    run_study(longer, board)
    records = folder.records()
    assert records[:5] == before
    refits = {record.refit_of: record for record in records[5:]}
    assert set(refits) >= {record.number for record in best[:3]}
    assert {record.kind for record in refits.values()} == {"refit"}
    taken = {of: record.continued_epochs for of, record in refits.items()}
    assert taken == {of: 0 if of == best[1].number else 3 for of in refits}
    for of, record in refits.items():
        own = local.fakes.faults.trained()
        first = min(epoch for number, epoch in own if number == record.number)
        assert first == (1 if of == best[1].number else 3), "the last one says if it was the end"
        assert (record.state, len(record.epochs)) == (TrialState.COMPLETE, 6)
        assert record.config.schedule.restart_after == taken[of]
        assert record.epochs[: taken[of]] == before[of].epochs[: taken[of]]
    (said,) = [note for note in board.notes if "on to 6 epochs" in note]
    assert f"; {best[1].number:04d} anew, for they have no checkpoint" in said
    study = folder.record()
    assert (study.max_epochs, study.extended_from, study.trials) == (6, 3, 5)
    again = Listener()
    run_study(longer, again)
    assert again.epochs == []


def test_more_epochs_are_asked_of_a_complete_study_alone(
    local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    board = Listener()
    board.after = {1: lambda: os.kill(os.getpid(), signal.SIGINT)}
    with pytest.raises(KeyboardInterrupt):
        run_study(request(toy_data, tmp_path, trials=3), board)
    refused = "study 's' is interrupted, and --max-epochs 6 goes on with one that is complete"
    with pytest.raises(RecordError, match=refused):
        run_study(request(toy_data, tmp_path, trials=3, max_epochs=6), Listener())
    folder = run_study(request(toy_data, tmp_path, trials=3), Listener())
    board = Listener()
    run_study(request(toy_data, tmp_path, trials=4, max_epochs=6), board)
    assert [len(r.epochs) for r in folder.records() if r.kind == "search"] == [3, 3, 3, 6]
    with pytest.raises(RecordError, match="and trains 6 epochs or more; give this one another"):
        run_study(request(toy_data, tmp_path, trials=4, max_epochs=5), Listener())


def test_a_collapsed_trial_and_a_lane_that_is_started_anew_cost_the_others_nothing(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any memory at all is growth here, so the lane's two ranks go after the fourth trial."""

    def leaking(*asked: float, **more: object) -> LaneShape:
        return LaneShape(*asked, allowed_growth=MemoryLimit(gib=-1.0, share=-1.0), **more)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "LaneShape", leaking)
    options = {"trials": 6, "workers_per_trial": 2, "scheduler": "none", "concurrent": 1}
    board = Listener()
    folder = run_study(request(toy_data, tmp_path, COLLAPSING, **options), board)
    collapsed, *others = folder.records()
    assert (collapsed.state, len(collapsed.epochs)) == (TrialState.COLLAPSED, 3)
    assert "likely cause: optimizer.lr=1 is too high" in collapsed.reason
    assert [(record.state, len(record.epochs)) for record in others] == [("complete", 4)] * 5
    told = [trial.state.name for trial in stored_trials(folder)]
    assert told == ["PRUNED"] + ["COMPLETE"] * 5
    assert folder.record().state == "complete"
    (said,) = [note for note in board.notes if "lane 0" in note]
    assert re.fullmatch(
        r"lane 0 grew from \d\.\d\d to \d\.\d\d GiB in 4 trials; its worker group was started "
        "anew between two trials",
        said,
    )

    ensemble = build_ensemble("s", runs=tmp_path / "runs", logits_only=True, track=False)
    assert "left out: 1 trial that collapsed" in ensemble.notes
    assert collapsed.name not in [member.trial for member in ensemble.members]


def test_weights_that_only_nodes_of_a_cluster_have_are_no_matter(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this machine alone they are missed before Ray starts; of a cluster each node is asked."""
    monkeypatch.setattr("carray.models.weights.hub_error", lambda *_: "no network")
    monkeypatch.setattr("carray.models.weights._is_downloaded", lambda _: False)
    text = SPACE.replace("pretrained: false", "pretrained: true")
    wanted = request(toy_data, tmp_path, text, trials=1, weights=tmp_path / "none")

    def start_ray(*_: object) -> None:
        raise AssertionError("Ray is started")

    with monkeypatch.context() as patch:
        patch.setattr(run, "connected", start_ray)
        with pytest.raises(WeightsError, match=r"'test_resnet' \(no network\).* the folder .*none"):
            run_study(wanted, Listener())
    joined = replace(wanted, address="10.0.0.1:6379")
    with pytest.raises(PlanError, match="no weights for backbone 'test_resnet'"):
        run_study(joined, Listener())
    local.resources *= 2
    local.answers["1"] = node_report(NodeQuestion())  # the other node has them
    check_left(run_study(joined, Listener()))


def test_a_study_whose_budget_is_spent_says_so_and_goes_on_with_the_next(
    local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    board, typed = Listener(), {"price": "3eur/cpuh", "command": "carray tune cars --budget 1s"}
    wanted = request(toy_data, tmp_path, concurrent=1, time_budget_seconds=1e-6, **typed)
    folder = run_study(wanted, board)
    (record,), study = folder.records(), folder.record()
    assert (record.state, record.reason) == ("pruned", "the time budget is spent")
    assert (study.state, study.standing) == ("complete", "budget spent")
    told = "0 trials finished, 1 stopped by the budget, 3 never opened"
    assert f"budget spent: {told}" in board.notes
    assert record.cost is not None
    assert study.cost is not None
    assert record.cost.cpu_seconds == pytest.approx(0.01 * 3.0)  # an epoch on a lane of three CPUs
    assert study.cost.money == pytest.approx(3 * study.cost.cpu_seconds / 3600) != 0.0
    head, *_, resume = study_lines(folder)
    assert head.startswith(
        "study s has its budget spent: 1 stopped by the budget, 3 never opened, "
    )
    assert re.search(r", [\d.e-]+ CPU-h, \d\.\d\d eur$", head)
    assert resume == f"  carray tune cars --budget 1s --runs {tmp_path / 'runs'}"

    run_study(request(toy_data, tmp_path, concurrent=1, budget="1h"), Listener())
    check_left(folder)
    assert [r.state for r in folder.records()] == ["complete"] * 13, "what was stopped went on"
    refits = folder.records()[4:]
    assert {(r.kind, r.config.epochs) for r in refits} == {("refit", 12)}, "within a budget"
    counts = sorted(Counter(r.refit_of for r in refits).items(), key=lambda each: -each[1])
    assert {of for of, _ in counts} == {0, 1, 2, 3}
    assert [count for _, count in counts] == [5, 2, 1, 1], "the best by further seeds too"
    assert len({(r.refit_of, r.config.seed) for r in refits}) == 9
    assert folder.record().standing == "complete"
    more = folder.record().cost
    assert more is not None
    assert more.cpu_seconds > study.cost.cpu_seconds


def test_a_budget_of_time_counts_from_the_call(
    local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    before = time.monotonic() - 3600
    wanted = request(toy_data, tmp_path, concurrent=1, budget="1h", called_at=before)
    study = run_study(wanted, Listener()).record()
    assert (study.standing, study.trials) == ("budget spent", 4)
    assert study.seconds is not None
    assert study.seconds >= 3600


def test_the_energy_of_trials_and_refits_is_in_their_records_and_the_studys(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {metrics.ENERGY_JOULES: 3.6e6}  # in each epoch: 1 kWh
    monkeypatch.setattr(fakes, "epoch_row", lambda *of: {**epoch_row(*of), **drawn})
    local.resources = [{"CPU": 8.0, "GPU": 1.0}]
    folder = run_study(request(toy_data, tmp_path, trials=1, refit=1), Listener())
    cost = folder.record().cost
    assert [len(record.epochs) for record in folder.records()] == [3, 6]
    assert [each.cost and each.cost.energy_kwh for each in folder.records()] == [3.0, 6.0]
    assert cost is not None
    assert cost.energy_kwh == pytest.approx(9.0)


def test_refits_for_which_no_time_is_left_wait_for_the_next_call(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"trials": 2, "refit": 2, "refit_epochs": 17, "concurrent": 1, "scheduler": "none"}
    monkeypatch.setattr(session.Pace, "seconds", lambda pace, config, epochs: 1000.0 * epochs)
    board = Listener()
    folder = run_study(request(toy_data, tmp_path, budget="4h30", **options), board)
    assert [r.kind for r in folder.records()] == ["search"] * 2
    assert any("enough for 0 of 2 refits of 4:43:20" in note for note in board.notes)
    run_study(request(toy_data, tmp_path, **options), Listener())
    assert [r.kind for r in folder.records()] == ["search"] * 2 + ["refit"] * 2


def test_what_is_left_of_a_budget_trains_further_seeds_for_as_long_as_a_trial(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"trials": 1, "concurrent": 1, "scheduler": "none"}
    monkeypatch.setattr(session.Pace, "seconds", lambda pace, config, epochs: 1000.0 * epochs)
    board = Listener()
    folder = run_study(request(toy_data, tmp_path, budget="1h10", **options), board)
    trial, *refits = folder.records()
    assert [(r.refit_of, r.config.epochs) for r in refits] == [(0, 3)] * 9
    assert len({r.config.seed for r in [trial, *refits]}) == 10
    said = r"1:(09|10):\d\d left, enough for 0 of 9 refits of 3:20:00"
    assert any(re.search(said, note) for note in board.notes)
    said = "refit: the best trial again with 1 further seed, for 3 epochs, on "
    assert any(note.startswith(said) for note in board.notes), board.notes


def interrupt() -> None:
    """As a terminal's Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupted(wanted: StudyRequest, board: Listener) -> StudyFolder:
    with pytest.raises(KeyboardInterrupt, match="SIGINT"):
        run_study(wanted, board)
    return StudyFolder(Path(str(wanted.runs)) / "studies" / "s")


def test_ctrl_c_keeps_what_has_ended_and_the_next_call_ends_the_study(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "INTERRUPTED_PATIENCE_SECONDS", 0.1)
    wanted = request(toy_data, tmp_path, scheduler="none", refit=1, refit_epochs=4, concurrent=2)
    faults = local.fakes.faults
    stall = faults.stalls(trial=1, epoch=2)
    faults.at(interrupt, trial=2, epoch=2)
    board = Listener()
    folder = interrupted(wanted, board)
    stall.go.set()
    assert folder.record().state == "interrupted"
    assert {record.kind for record in folder.records()} == {"search"}, "refits come after"
    assert "SIGINT: stopping; a second one ends at once" in board.notes
    assert board.notes[-1] == "SIGINT: ended; the same command goes on from here"
    finished = {r.number: r for _, r in folder.trials() if r.state.is_finished()}
    assert set(finished) == {0}
    assert len(folder.trial(1).record().epochs) == 1

    faults.orders.clear()
    again = Listener()
    run_study(wanted, again)
    assert not {record.number for record in again.epochs} & set(finished)
    assert not {number for number, _ in faults.trained()} & set(finished)
    told = [(record.number, len(record.epochs)) for record in again.epochs]
    assert (1, 1) not in told, "its checkpoint answers for what its record holds"
    check_left(folder)
    assert {n: folder.trial(n).record() for n in finished} == finished
    assert [record.kind for record in folder.records()] == ["search"] * 4 + ["refit"]


def test_ctrl_c_while_lanes_come_up_ends_the_study_before_any_trial(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "INTERRUPTED_PATIENCE_SECONDS", 0.1)
    may_come = threading.Event()

    def start(lane: int) -> None:
        if lane == 0:
            interrupt()
        assert may_come.wait(WAIT_SECONDS)

    local.fakes = Fakes(start=start)
    folder = interrupted(request(toy_data, tmp_path), Listener())
    may_come.set()
    assert folder.records() == []


@pytest.mark.parametrize(
    ("free", "says"),
    [(0.0, "0 of 4 CPU free; free some, or ask"), (4.0, "4 of 4 CPU free; if a node has so much")],
)
def test_a_study_none_of_whose_lanes_is_placed_says_what_each_asks_for(
    free: float, says: str, local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    may_come = threading.Event()

    def start(lane: int) -> None:
        may_come.wait(WAIT_SECONDS)

    class Ended(Listener):
        def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
            super().study_ended(study, files)
            may_come.set()  # too late, and lanes on their way up are waited for

    local.fakes = Fakes(start=start)
    local.fakes.faults.free_cores = free
    wanted = request(toy_data, tmp_path, concurrent=1, place_timeout_seconds=0.2)
    with pytest.raises(PlanError, match=f"came up in 0 s: a rank asks for 3 CPU, .* {says}"):
        run_study(wanted, Ended())


def test_a_study_none_of_whose_lanes_can_start_says_why(
    local: LocalCluster, toy_data: Path, tmp_path: Path
) -> None:
    def start(lane: int) -> None:
        raise RuntimeError("the actor died\nNCCL error: no such device")

    local.fakes = Fakes(start=start)
    with pytest.raises(PlanError, match="no worker group could start: NCCL error: no such device"):
        run_study(request(toy_data, tmp_path), Listener())


def test_a_mailbox_that_dies_while_lanes_come_up_is_the_clusters_fault(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: object) -> list[int]:
        raise RayActorError

    with monkeypatch.context() as patch:
        patch.setattr(LocalMailbox, "lives", gone)
        with pytest.raises(ClusterError, match=r"not done: the process that .* has ended; the sa"):
            run_study(request(toy_data, tmp_path, trials=1), Listener())
    check_left(run_study(request(toy_data, tmp_path, trials=1), Listener()))


def test_a_trial_whose_node_is_lost_goes_on_on_the_other_lane(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.05)
    faults, board = local.fakes.faults, Listener()
    stall = faults.stalls(trial=0, epoch=2)
    lost_lane = []

    def lose_the_node() -> None:
        assert stall.reached.wait(WAIT_SECONDS)
        running = local.lanes[0].mailbox._box._lanes  # type: ignore[attr-defined]
        (lane,) = [n for n, each in enumerate(running) if each.home_of.endswith("/0000")]
        lost_lane.append(lane)
        faults.lost_nodes.add(str(lane))

    board.after = {2: lambda: threading.Thread(target=lose_the_node).start()}
    folder = run_study(request(toy_data, tmp_path, concurrent=2), board)
    stall.go.set()
    check_left(folder)
    said = f"lane {lost_lane[0]} has lost its node; its trial goes on on the next free lane"
    assert board.notes.count(said) == 1
    assert faults.trained().count((0, 2)) == 2, "its epoch was begun again, elsewhere"
    assert len({record.state for record in folder.records()}) == 1


@pytest.mark.parametrize("lanes", [2, 1])
def test_a_trial_whose_lane_ends_for_good_goes_on_on_another_that_is_there_or_added(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(nodes, "has_started_ray", lambda: False)  # whatever other tests started
    if lanes == 1:
        monkeypatch.setattr(watchdog.Watch, "has_ended_search", lambda self: False)  # too late
    local.fakes.faults.raises(LaneGone("its node is gone"), trial=1, epoch=2)
    folder = run_study(request(toy_data, tmp_path, concurrent=lanes), Listener())
    check_left(folder)
    assert local.fakes.faults.trained().count((1, 2)) == 2, "its epoch was begun again, elsewhere"


def test_a_study_that_loses_its_last_lane_is_not_done_and_goes_on_later(
    local: LocalCluster, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(nodes, "has_started_ray", lambda: True)  # so that no lane is added
    wanted = request(toy_data, tmp_path, concurrent=1)
    local.fakes.faults.raises(LaneGone("its node is gone"), trial=1, epoch=2)
    board = Listener()
    with pytest.raises(ClusterError, match="study 's' is not done: every lane has ended; the same"):
        run_study(wanted, board)
    assert "lane 0 ended for good: its node is gone" in board.notes
    run_study(wanted, Listener())
    check_left(StudyFolder(tmp_path / "runs" / "studies" / "s"))


def test_the_best_two_are_trained_on_folds_and_one_that_fails_loses_no_other(
    local: LocalCluster, trained: Trained, tmp_path: Path
) -> None:
    options = {"trials": 2, "concurrent": 1, "overrides": {"epochs": 1, "stop_collapsed": False}}
    options |= {"top_folds": 2, "fold": (0, 1)}
    local.fakes.faults.raises(ValueError("a broken fold"), trial=3)
    board = Listener()
    folder = run_study(request(trained.data, tmp_path, **options), board)
    best = [record.number for record in sorted(folder.records()[:2], key=log_loss_of)]
    found = [(r.fold_of, r.config.fold, str(r.state)) for r in folder.records()[2:]]
    ends = ["complete", "failed", "complete", "complete"]
    assert found == [(of, fold, ends.pop(0)) for of in best for fold in (0, 1)]
    assert any(note.startswith("folds: trials 000") for note in board.notes)
    own = {"runs": tmp_path / "runs", "rule": "soft vote", "logits_only": True}
    made = build_ensemble(folder.path.name, folds=True, top=2, open_test=False, **own)
    assert len(made.chosen) == 3
    with pytest.raises(DataError, match=r"--fold 2 must be one of .*, which has folds 0 to 1"):
        run_study(request(trained.data, tmp_path, name="other", fold=(2,)), Listener())


def log_loss_of(record: TrialRecord) -> float:
    return record.best("val/log_loss")
