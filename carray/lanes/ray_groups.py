"""Lanes' worker groups as Ray Train starts, watches and restarts them, and what a rank runs."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.util.placement_group import PlacementGroup, remove_placement_group

from carray.errors import ClusterError
from carray.lanes.depot import StudyPlaces
from carray.lanes.depot_client import RayDepot
from carray.lanes.lane import Lanes, LaneShape
from carray.lanes.lane_rank import LaneRank, Runner
from carray.lanes.mailbox_client import MailboxClient, RayMailbox
from carray.lanes.memory_guard import LaneMemory
from carray.masking import is_secret_name
from carray.metrics import ascii_name

if TYPE_CHECKING:
    from carray.training.ranks import Ranks
    from carray.training.runner import TrialRunner

FORWARDED_VARIABLES = ("CARRAY_WEIGHTS", "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN")
FORWARDED_PREFIXES = ("AWS_", "CARRAY_CACHE", "GLOO_", "NCCL_", "OMP_")  # but for secrets
DISABLED_CALLBACKS = ("PlacementGroupCleanerCallback", "DatasetsCallback")  # of Train's own
CONTROLLERS_DIED = "the process that controls the lanes died"
MAX_DEATHS = 5
RESTARTS_PER_LANE = 100  # worker groups lost to machines, not to trials: the mailbox bounds those


def ray_lanes(
    shape: LaneShape, num_lanes: int, storage: Path, name: str, places: StudyPlaces | None = None
) -> Lanes:
    """Return lanes whose mailbox is a Ray actor and whose worker groups are Ray Train's.

    Where some may be on nodes that don't see the driver's folders, `places` says where those are.
    """
    mailbox = RayMailbox.begun(num_lanes)
    groups = RayWorkerGroups(shape, mailbox, storage, name, places)
    return Lanes(shape, num_lanes, mailbox, groups)


class RayWorkerGroups:
    """Lanes' worker groups as Ray Train starts, watches and restarts them."""

    def __init__(
        self,
        shape: LaneShape,
        mailbox: RayMailbox,
        storage: Path,
        name: str,
        places: StudyPlaces | None = None,
    ) -> None:
        from carray.lanes.controllers import LaneControllers

        self._shape = shape
        self._places = places
        self._depot = RayDepot.begun(places) if places else None
        self._mailbox = mailbox
        self._storage = storage
        self._name = f"{ascii_name(name)}-{uuid.uuid4().hex[:6]}"  # a tag of what Ray counts
        _set_train_environment()
        self._begin_controllers = LaneControllers.begun
        self._controllers = LaneControllers.begun()
        self._deaths = 0  # of the process that controls the lanes
        self._lock = threading.Lock()

    def run(self, lane: int) -> None:
        """Run a lane's worker group until it is sent home or retires.

        Raises:
            ClusterError: the process that controls all lanes has died once too often.
        """
        has_run = False
        while not has_run:
            controllers = self._controllers
            try:
                self._trainer(lane, controllers).fit()
                has_run = True
            except ray.exceptions.RayActorError as error:
                if isinstance(error, ray.exceptions.RayTaskError):
                    raise  # of another actor, the mailbox: this one has lived to say so
                self._replace(controllers, error)

    def resources(self) -> list[tuple[str, float, float]]:
        """Return (name, what is free, what there is in all) of CPUs and GPUs."""
        free, total = ray.available_resources(), ray.cluster_resources()
        names = [name for name in ("CPU", "GPU") if name in total]
        return [(name, free.get(name, 0), total[name]) for name in names]

    def lost_nodes(self) -> list[str]:
        """Return the ids of nodes that the cluster has lost."""
        return [node["NodeID"] for node in ray.nodes() if not node["Alive"]]

    def draining_nodes(self) -> dict[str, float]:
        """Return the nodes that are to go: id -> when, in Unix time."""
        # not public, and what Ray Train's own watcher asks
        return {node: ms / 1000 for node, ms in state.get_draining_nodes().items()}

    def end(self) -> None:
        """End the process that controls the groups."""
        ray.kill(self._controllers)

    def _replace(self, dead: Any, error: Exception) -> None:
        """Start the process that controls the lanes anew, once for all of them."""
        with self._lock:
            if self._controllers is not dead:
                return  # another lane has seen it first
            self._deaths += 1
            if self._deaths >= MAX_DEATHS or not ray.is_initialized():
                raise ClusterError(f"{CONTROLLERS_DIED} ({type(error).__name__})") from None
            _remove_placement_groups(dead)
            self._controllers = self._begin_controllers()

    def _trainer(self, lane: int, controllers: Any) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig

        from carray.lanes.train_backend import LaneBackendConfig, PlacedOnNodes

        trainer = _trainer_class()(
            lane_loop,
            train_loop_config={
                "lane": lane,
                "mailbox": self._mailbox,
                "shape": self._shape,
                "places": self._places,
                "depot": self._depot,
            },
            backend_config=LaneBackendConfig("nccl" if self._shape.gpus_per_worker else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=self._shape.num_workers,
                use_gpu=self._shape.gpus_per_worker > 0,
                resources_per_worker=self._shape.resources_per_worker(),
                placement_strategy="PACK",
            ),
            run_config=RunConfig(
                name=f"{self._name}-lane-{lane}-{uuid.uuid4().hex[:6]}",
                storage_path=str(self._storage),
                callbacks=[PlacedOnNodes(self._mailbox)],
                failure_config=FailureConfig(max_failures=RESTARTS_PER_LANE),
                worker_runtime_env={"env_vars": _worker_environment(self._shape)},
            ),
        )
        trainer.controllers = controllers  # not the class's, which would keep it alive
        return trainer


def _remove_placement_groups(creator: Any) -> None:
    """Free what an actor that died had reserved: Ray would once the driver's job ends."""
    for packed in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(packed)
        if group.creator_actor_id == creator._actor_id.binary():
            identity = ray.PlacementGroupID(group.placement_group_id)
            remove_placement_group(PlacementGroup(identity))


def _trainer_class() -> type:
    """Return Ray's trainer without four of its helper actors; it has a `LaneControllers` set.

    The placement group cleaner is detached: it outlives a killed driver, and for ever where the
    dashboard is off. A lane's group belongs to the driver's job, and Ray drops it when the job
    ends, however it ends. The dataset manager loads Ray Data, which no lane reads.
    """
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from carray.lanes.train_backend import LanePolicy

    class LaneTrainer(DataParallelTrainer):  # type: ignore[misc]
        controllers: Any

        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [each for each in callbacks if type(each).__name__ not in DISABLED_CALLBACKS]

        def _initialize_and_run_controller(self, **parts: Any) -> Any:
            parts["scaling_policy"] = LanePolicy(self.scaling_config)
            return ray.get(self.controllers.run.remote(parts))

    return LaneTrainer


def lane_loop(config: dict[str, Any]) -> None:
    """Run one rank of one lane until it is sent home."""
    import torch
    from ray.train import get_context
    from ray.train.torch import get_device

    from carray.training.compute.out_of_memory import is_crowded
    from carray.training.ranks import SoloRanks, TorchRanks
    from carray.training.runner import TrialRunner

    context = get_context()
    world_size = context.get_world_size()
    shape: LaneShape = config["shape"]
    own = ray.get_runtime_context().get_node_id()
    num_threads = shape.threads_on(_resources_of(own))
    torch.set_num_threads(num_threads)
    ranks = TorchRanks() if world_size > 1 else SoloRanks()
    incarnation = ranks.broadcast_object(uuid.uuid4().hex)
    mailbox: MailboxClient = config["mailbox"]
    mailbox.arrive(config["lane"], incarnation, own)
    if shape.gpus_per_worker and not torch.cuda.is_available():
        mailbox.depart(config["lane"], "torch sees no GPU there, though Ray has given one")
        return
    device = get_device()
    LaneRank(
        lane=config["lane"],
        incarnation=incarnation,
        mailbox=mailbox,
        runner=_with_files(config, TrialRunner(ranks, device, num_threads), ranks),
        ranks=ranks,
        memory=LaneMemory(shape.allowed_growth),
        is_crowded=partial(is_crowded, device),
    ).serve()


def _with_files(config: dict[str, Any], runner: TrialRunner, ranks: Ranks) -> Runner:
    """Return the runner as it works where the driver's folders may not be seen."""
    places, depot = config["places"], config["depot"]
    if places is None:
        return runner
    from carray.lanes.sent_files import NodeFolders, SendingRunner

    return SendingRunner(runner, ranks, NodeFolders(places, depot))


def _resources_of(node_id: str) -> dict[str, float]:
    found = (node["Resources"] for node in ray.nodes() if node["NodeID"] == node_id)
    return next(found, {})


def forwarded_environment(besides: Collection[str] = ()) -> dict[str, str]:
    """Return what every process of the study has of the driver's environment, on any node.

    Ray writes it to its logs, so keys of AWS aren't among it: nodes have their own, or a role.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name in (*FORWARDED_VARIABLES, *besides)
        or (name.startswith(FORWARDED_PREFIXES) and not is_secret_name(name))
    }


def _worker_environment(shape: LaneShape) -> dict[str, str]:
    """Return the environment of a rank: threads by plan, where weights are, Ray's address."""
    return (
        {"OMP_WAIT_POLICY": "PASSIVE"}
        | forwarded_environment(shape.variables)
        | {
            "OMP_NUM_THREADS": str(shape.num_threads),
            "MALLOC_ARENA_MAX": "1",  # one heap: what one thread frees serves another
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
            "PYTHONWARNINGS": "ignore",
        }
    )


def _set_train_environment() -> None:
    """Set what Ray Train reads from the driver's environment, where the user hasn't."""
    for name, value in {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1.0",  # a dead rank is seen within a second
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # our own watchdog says what is missing
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a lost rank costs one epoch anyway
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
        "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    }.items():
        os.environ.setdefault(name, value)
