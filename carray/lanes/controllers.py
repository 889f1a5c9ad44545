"""`LaneControllers`: all lanes' Ray Train controllers in one process of the driver's node.

Ray Train starts a process for each, and another that no lane needs: 224 MiB a lane of the head's
memory, whose lanes may be many. Both classes that this goes around are Ray's own.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.worker_group import state, worker_group

from carray.lanes.this_node import on_this_node

MOST_LANES = 1000  # that Ray lets an actor like this run at once


class LaneControllers:
    """An actor: a controller in a thread of its own for each lane that runs."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MOST_LANES)  # begun as they are needed
        worker_group.SynchronizationActor = NoActor()
        state._shutdown_sync_actor = lambda none: None

    @classmethod
    def begun(cls) -> Any:
        """Start the actor, on this process's node; return its handle."""
        quiet = {"RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0"}  # it is its threads that wait
        environment = {"env_vars": quiet | get_env_vars_to_propagate()}
        actor = ray.remote(cls).options(
            num_cpus=0,
            max_concurrency=MOST_LANES,
            scheduling_strategy=on_this_node(),
            runtime_env=environment,
        )
        return actor.remote()

    async def run(self, parts: dict[str, Any]) -> Any:
        """Run a worker group to its end; return Ray Train's result of it.

        Args:
            parts: what its controller is made of.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _run, parts)


class NoActor:
    """Stands for the actor over which ranks would agree on what they report; lanes' report nothing.

    It is the class, its options and its handle.
    """

    def options(self, **options: Any) -> NoActor:
        """Return itself."""
        return self

    def remote(self, **arguments: Any) -> NoActor:
        """Return itself."""
        return self


def _run(parts: dict[str, Any]) -> Any:
    controller = TrainController(**parts)
    asyncio.run(controller.run())
    return controller.get_result()
