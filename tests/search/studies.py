"""Whole studies for tests: what they are asked, who listens, and a place for them without Ray."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ray import tune

from carray.lanes.depot import StudyPlaces
from carray.lanes.lane import LaneShape
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.search import run, session
from carray.search.observers.console import Board
from carray.search.placement.node_checks import Answer
from carray.search.placement.node_report import NodeQuestion, node_report
from carray.search.placement.ray_cluster import ClusterNode
from carray.search.request import StudyRequest
from carray.search.scheduling import tune_run
from tests.lanes.fakes import CORES, FakeLanes, Fakes
from tests.opened import stored_trials
from tests.search.scheduling.local_tuner import LocalTuner
from tests.tracking.memory import MemoryTracker

FIXED = "{epochs: 3, image_size: 32, pretrained: false, backbone: test_resnet}"
SPACE = f"""
version: 1
metric: val/log_loss
direction: minimize
fixed: {FIXED}
search:
  optimizer.lr: {{loguniform: [1e-4, 3e-2]}}
start:
  - {{optimizer.lr: 5e-3}}
"""


class Listener(Board):
    """A board that keeps its notes, and does something after an epoch of this call."""

    def __init__(self) -> None:
        super().__init__(stream=io.StringIO())
        self.epochs: list[TrialRecord] = []
        self.notes: list[str] = []
        self.counts: list[tuple[int, int, int]] = []  # of lanes: up, wanted, lost
        self.after: dict[int, Callable[[], object]] = {}

    def epoch_ended(self, record: TrialRecord) -> None:
        super().epoch_ended(record)
        self.epochs.append(record)
        self.after.get(len(self.epochs), int)()

    def lanes(self, up: int, wanted: int, lost: int) -> None:
        self.counts.append((up, wanted, lost))

    def note(self, text: str) -> None:
        self.notes.append(text)


def request(data: Path, folder: Path, text: str = SPACE, **options: object) -> StudyRequest:
    space = folder / "space.yaml"
    space.write_text(text)
    settings = {"trials": 4, "name": "s", "runs": str(folder / "runs"), **options}
    return StudyRequest(data=data, space=str(space), **settings)  # type: ignore[arg-type]


def check_left(folder: StudyFolder) -> None:
    """Check that every trial has ended, with a record and logits on every held split."""
    told = {trial.number: trial.state.name for trial in stored_trials(folder)}
    splits = [name for name in ("val", "blend", "test") if len(folder.labels(name))]
    assert "val" in splits
    for files, record in folder.trials():
        if record.kind == "search":
            assert record.sampler_number is not None
            state = "pruned" if record.state == "infeasible" else str(record.state)
            assert told[record.sampler_number].lower() == state
        assert files.checkpoint.exists() == record.can_be_continued
        if record.state != "infeasible":
            assert record.state in (TrialState.COMPLETE, TrialState.PRUNED), record.reason
            assert math.isfinite(record.best("val/log_loss"))
            for split in splits:
                assert files.logits(split).shape == (len(folder.labels(split)), 12)
    assert folder.record().state == "complete"


class LocalTracker(MemoryTracker):
    """A tracker in `SubprocessTracker`'s place: it is open at once."""

    def __init__(self, runs: RunsFolder) -> None:
        super().__init__()

    def wait_open(self) -> None:
        """It is."""

    def abandon(self) -> None:
        """Nothing is held."""


@dataclass
class LocalCluster:
    """Where studies run in this process: a node, what goes wrong on it, and the lanes so far."""

    fakes: Fakes = field(default_factory=Fakes)
    resources: list[Mapping[str, float]] = field(default_factory=lambda: [{"CPU": CORES}])
    """Of each node; the first is the driver's own."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """What nodes say when they are checked, by id, which is the node's number."""
    lanes: list[FakeLanes] = field(default_factory=list)
    asked: list[list[dict[str, float]]] = field(default_factory=list)
    """What the autoscaler was asked for, each time something else."""

    def nodes(self) -> list[ClusterNode]:
        """Return the nodes as Ray would."""
        return [
            ClusterNode(str(number), f"10.0.0.{number}", resources, is_own=number == 0)
            for number, resources in enumerate(self.resources)
        ]

    def ask(self, asked: Sequence[tuple[ClusterNode, NodeQuestion]]) -> dict[str, Answer]:
        """Answer for each node: as it was told to, else truly, for it is this process's own."""
        return {
            node.id: self.answers.get(node.id) or node_report(question) for node, question in asked
        }

    def request(self, bundles: Sequence[dict[str, float]]) -> None:
        """Note what is asked for."""
        if self.asked[-1:] != [list(bundles)]:
            self.asked.append(list(bundles))

    def begin(
        self,
        shape: LaneShape,
        num_lanes: int,
        storage: Path,
        name: str,
        places: StudyPlaces | None = None,
    ) -> FakeLanes:
        """Make lanes as `ray_lanes` does."""
        self.lanes.append(FakeLanes(num_lanes, shape, self.fakes, places))
        return self.lanes[-1]


@contextlib.contextmanager
def _here(*_: object) -> Iterator[None]:
    yield


@pytest.fixture
def local_tune(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tune in this process; its trainables' folders go with the test's."""
    _tune_here(monkeypatch, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalCluster]:
    """`run_study` without Ray, from the test's beginning to its end."""
    with studies_here(tmp_path) as cluster:
        yield cluster


@contextlib.contextmanager
def studies_here(folder: Path) -> Iterator[LocalCluster]:
    """Have `run_study` do without Ray: lanes, Tune, nodes and the tracker are of this process."""
    cluster = LocalCluster()
    with pytest.MonkeyPatch.context() as patch:
        _tune_here(patch, folder)
        patch.setattr(session, "ray_lanes", cluster.begin)
        patch.setattr(run, "connected", _here)
        patch.setattr(run, "RayCluster", lambda variables: cluster)
        patch.setattr(run, "SubprocessTracker", LocalTracker)
        yield cluster
    for lanes in cluster.lanes:
        lanes.mailbox.end()


def _tune_here(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(tune, "Tuner", LocalTuner)
    patch.setattr(tune_run, "hosted_trials", _here)
    trainables = str(folder / "trainables")
    patch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", trainables)
