"""Many of Tune's actors in a few processes: a process each would need a core and 150 MB each.

The driver sees no difference: it calls a method of a trial's actor and gets Ray's reference to the
answer, which is worked out in a process that does the same for other trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, cycle
from typing import Any

import ray
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources

MOST_AT_ONCE = 1000  # calls that one process answers side by side, a thread each


class Host:
    """A process that holds actors by number."""

    def __init__(self) -> None:
        self._actors: dict[int, Any] = {}

    def start(self, number: int, kind: type, words: dict[str, Any]) -> None:
        """Make an actor."""
        self._actors[number] = kind(**words)

    def call(self, number: int, method: str, args: tuple[Any, ...], words: dict[str, Any]) -> Any:
        """Call an actor's method."""
        return getattr(self._actors[number], method)(*args, **words)

    def end(self, number: int) -> None:
        """Let an actor go."""
        self._actors.pop(number, None)


class Method:
    """What `handle.method` is: something to call `remote` on."""

    def __init__(self, host: Any, number: int, name: str) -> None:
        self._host, self._number, self._name = host, number, name

    def remote(self, *args: Any, **words: Any) -> Any:
        """Call the method; return Ray's reference to its answer."""
        return self._host.call.remote(self._number, self._name, args, words)


class Handle:
    """What Tune holds of an actor."""

    def __init__(self, host: Any, number: int, ready: Any) -> None:
        self._host, self._number, self._ready = host, number, ready

    def __getattr__(self, name: str) -> Method:
        return Method(self._host, self._number, name)

    @property
    def __ray_ready__(self) -> Any:
        ready = self._ready
        return type("Ready", (), {"remote": staticmethod(lambda: ready)})


class HostedClass:
    """What stands in an actor class's place: makes its actors in the next process."""

    def __init__(self, hosts: Iterator[tuple[int, Any]], kind: type) -> None:
        self._hosts, self._kind = hosts, kind

    def remote(self, **words: Any) -> Handle:
        """Make an actor."""
        number, host = next(self._hosts)
        return Handle(host, number, host.start.remote(number, self._kind, words))


@contextmanager
def hosted_actors(num_hosts: int) -> Iterator[None]:
    """Have Tune's actors made in `num_hosts` processes while this lasts; Ray must be there."""
    actor = ray.remote(Host).options(num_cpus=0, max_concurrency=MOST_AT_ONCE)
    numbered = zip(count(), cycle([actor.remote() for _ in range(num_hosts)]), strict=False)
    kept = PlacementGroupAcquiredResources.annotate_remote_entities

    def annotate(self: Any, entities: list[Any]) -> list[Any]:
        return [HostedClass(numbered, e.__ray_metadata__.modified_class) for e in entities]

    PlacementGroupAcquiredResources.annotate_remote_entities = annotate
    try:
        yield
    finally:
        PlacementGroupAcquiredResources.annotate_remote_entities = kept
