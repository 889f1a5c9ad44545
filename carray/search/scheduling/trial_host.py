"""Tune's trials in one process of the driver's node, in place of one each.

A thin trial waits for answers and computes nothing; as a process it takes 114 MiB of the head and
a second or two of a core to start, and a study has as many at once as lanes. Tune has no option
for it, so the class by which it starts and ends actors is Ray's own with another way to make them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution.resources.request import AcquiredResources
from ray.air.execution.resources.resource_manager import ResourceManager
from ray.tune.execution import tune_controller

from carray.lanes.this_node import on_this_node

MOST_TRIALS = 1000  # that Ray lets an actor like this run at once
STARTS = 20  # of a host that dies; its trials begin anew, each as often as Tune lets it


@contextmanager
def hosted_trials(trainable: type) -> Iterator[None]:
    """Have Tune's trials, all of one class, run in a process of this node while this lasts."""
    options = {"num_cpus": 0, "max_concurrency": MOST_TRIALS, "max_restarts": STARTS}
    environment = {"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}}
    actor = ray.remote(TrialHost).options(
        **options, scheduling_strategy=on_this_node(), runtime_env=environment
    )
    host = actor.remote(trainable)
    kept = tune_controller.RayActorManager
    tune_controller.RayActorManager = lambda resource_manager: HostedActors(NoResources(host))
    try:
        yield
    finally:
        tune_controller.RayActorManager = kept
        with suppress(Exception):  # Ray may be gone, which is told by what ended the search
            ray.kill(host)


class TrialHost:
    """An actor: trials by number, each with a thread while one of its methods is called."""

    def __init__(self, trainable: type) -> None:
        self._trainable = trainable
        self._trials: dict[int, Any] = {}
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._threads = ThreadPoolExecutor(MOST_TRIALS)  # begun as they are needed

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    async def start(self, number: int, words: dict[str, Any]) -> None:
        """Make a trial; of a host that is starting again it is awaited, however long that takes."""

        def make() -> None:
            self._trials[number] = self._trainable(**words)

        await self._in_turn(number, make)

    async def call(
        self, number: int, method: str, args: tuple[Any, ...], words: dict[str, Any]
    ) -> Any:
        """Call a method of a trial; calls of one trial come one after the other."""

        def work() -> Any:
            return getattr(self._trials[number], method)(*args, **words)

        return await self._in_turn(number, work)

    async def end(self, number: int) -> None:
        """Let a trial go, whatever it is at."""
        self._trials.pop(number, None)
        self._turns.pop(number, None)

    async def _in_turn(self, number: int, work: Any) -> Any:
        async with self._turns[number]:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)


@dataclass(frozen=True)
class HostedTrial:
    """What Tune holds of a trial: a handle like an actor's."""

    host: Any
    number: int
    started: Any

    def __getattr__(self, name: str) -> HostedMethod:
        return HostedMethod(self, name)


@dataclass(frozen=True)
class HostedMethod:
    """A method of a `HostedTrial`, or one of the two that every actor of Ray's has."""

    trial: HostedTrial
    name: str

    def remote(self, *args: Any, **words: Any) -> Any:
        """Call the method; return Ray's reference to its answer."""
        host, number = self.trial.host, self.trial.number
        if self.name == "__ray_ready__":
            return self.trial.started
        if self.name == "__ray_terminate__":
            return host.end.remote(number)
        return host.call.remote(number, self.name, args, words)


class HostedActors(RayActorManager):  # type: ignore[misc]
    """Tune's actors, all of them hosted."""

    def remove_actor(self, tracked_actor: Any, kill: bool = False, stop_future: Any = None) -> bool:
        """End a trial; one that Tune would kill is let go at once."""
        removed: bool = super().remove_actor(
            tracked_actor, kill=False, stop_future=None if kill else stop_future
        )
        return removed

    def cleanup(self) -> None:
        """Forget what is left: it ends with its host."""
        self._live_actors_to_ray_actors_resources.clear()
        super().cleanup()


class NoResources(ResourceManager):  # type: ignore[misc]
    """Gives at once what is asked for, since trials take nothing that Ray counts."""

    def __init__(self, host: Any) -> None:
        self._host, self._numbers = host, count()

    def request_resources(self, resource_request: Any) -> None:
        """Ask nobody."""

    def cancel_resource_request(self, resource_request: Any) -> None:
        """Ask nobody."""

    def has_resources_ready(self, resource_request: Any) -> bool:
        """Say yes."""
        return True

    def acquire_resources(self, resource_request: Any) -> Hosting:
        """Return what makes a trial of an actor class."""
        return Hosting(resource_request, self._host, self._numbers)

    def free_resources(self, acquired_resource: Any) -> None:
        """Free nothing."""

    def clear(self) -> None:
        """Free nothing."""


@dataclass
class Hosting(AcquiredResources):  # type: ignore[misc]
    """Has the class whose `remote` Tune calls make a trial in the host."""

    host: Any
    numbers: Iterator[int]

    def annotate_remote_entities(self, entities: list[Any]) -> list[Any]:
        """Return itself in the place of Tune's one class."""
        return [self]

    def remote(self, **words: Any) -> HostedTrial:
        """Make a trial."""
        number = next(self.numbers)
        return HostedTrial(self.host, number, self.host.start.remote(number, words))
