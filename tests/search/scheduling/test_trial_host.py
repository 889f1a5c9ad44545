"""Many trials in one process: each takes its calls in turn, and none waits for another's."""

from __future__ import annotations

import asyncio
import os
import threading

import psutil
import pytest
import ray
from ray.tune.execution import tune_controller

from carray.search.scheduling.trial_host import TrialHost, hosted_trials


class Slow:
    """A trial whose steps wait until they are let go."""

    go = threading.Event()

    def __init__(self, name: str) -> None:
        self.calls = [name]

    def step(self, waits: bool) -> None:
        if waits:
            assert self.go.wait(10)
        self.calls.append(f"waits {waits}")

    def said(self, last: str) -> list[str]:
        return [*self.calls, last]


def test_calls_of_one_trial_come_in_turn_and_those_of_others_at_once() -> None:
    async def calls() -> list[list[str]]:
        host = TrialHost(Slow)
        begun = [asyncio.ensure_future(host.start(n, {"name": f"trial {n}"})) for n in (0, 1)]
        waits = asyncio.ensure_future(host.call(0, "step", (True,), {}))
        behind = asyncio.ensure_future(host.call(0, "said", (), {"last": "end"}))
        other = await asyncio.ensure_future(host.call(1, "said", ("end",), {}))
        assert not behind.done()
        Slow.go.set()
        await asyncio.gather(*begun, waits)
        return [await behind, other]

    Slow.go.clear()
    assert asyncio.run(calls()) == [["trial 0", "waits True", "end"], ["trial 1", "end"]]


def test_a_trial_that_was_let_go_answers_no_more_while_others_do() -> None:
    """As after the death of the process, which Tune takes for the trial's and begins it anew."""

    async def calls() -> list[str]:
        host = TrialHost(Slow)
        for number in (0, 1):
            await host.start(number, {"name": "trial"})
        await host.end(0)
        with pytest.raises(KeyError):
            await host.call(0, "said", ("end",), {})
        said: list[str] = await host.call(1, "said", ("end",), {})
        return said

    assert asyncio.run(calls()) == ["trial", "end"]


class Quick:
    """A trial that says in which process it is."""

    def process(self) -> int:
        return os.getpid()


@pytest.mark.ray
def test_a_trial_begun_while_its_host_starts_again_waits_for_it(ray_instance: None) -> None:
    """Tune takes a trial whose host doesn't answer for dead, and begins it anew only so often."""
    with hosted_trials(Quick):
        resources = tune_controller.RayActorManager(None)._resource_manager
        hosting = resources.acquire_resources(None)
        first = hosting.remote()
        ray.get(first.started)
        before = ray.get(first.process.remote())
        psutil.Process(before).kill()
        again = hosting.remote()
        ray.get(again.started)
        assert ray.get(again.process.remote()) != before
