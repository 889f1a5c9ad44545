"""What Ray says of its nodes, in our words."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import psutil
import pytest
import ray
from ray.exceptions import OutOfMemoryError

from carray.errors import PlanError
from carray.lanes.lane import LANE_THREAD
from carray.search.placement.ray_cluster import (
    ATTEMPTS,
    connected,
    memory_error,
    watch_processes,
)

SAID = """9 worker(s) were killed due to the node running low on memory. Memory on the node \
(IP: 192.0.2.2, ID: 3942c4f8f7b3) was 23.27GB used / 23.54GB limit (0.988669)
OOM kill reason: Memory usage 24118616064B exceeded threshold of 24012259328B
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
13180\t19.02\t/usr/bin/python render.py --all ...
10985\t0.59\tray::RayTrainWorker
"""


def test_a_node_out_of_memory_is_said_with_what_holds_most_of_it() -> None:
    tune_error = RuntimeError(f"Caught unexpected exception: {SAID}")
    tune_error.__cause__ = OutOfMemoryError(SAID)
    assert str(memory_error(tune_error)) == (
        "node 192.0.2.2 ran out of memory (23.27 of 23.54 GiB used), most of it by "
        "'/usr/bin/python render.py --all ...' (19.02 GiB), and Ray ended the study's processes "
        "there; free some, or run fewer trials at once (--concurrent)"
    )
    assert memory_error(RuntimeError("another one")) is None


def test_it_is_said_without_numbers_where_ray_words_it_otherwise() -> None:
    said = str(memory_error(OutOfMemoryError("low on memory")))
    assert said.startswith("a node ran out of memory, and Ray ended")


class LateRay:
    """`ray.init` on a busy machine: `late` times it gives up, and leaves a process behind."""

    def __init__(self, late: int) -> None:
        self.left: list[subprocess.Popen[bytes]] = []
        self.late = late

    def init(self, **_: object) -> None:
        if len(self.left) == self.late:
            return
        self.left.append(subprocess.Popen(["sleep", "600"]))
        raise Exception("The current node timed out during startup. This could happen because ...")


@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
def test_a_ray_that_comes_up_too_late_is_started_once_more(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    late = LateRay(times)
    monkeypatch.setattr(ray, "init", late.init)
    with connected("local"):
        pass
    ended = [each.poll() is not None for each in late.left]
    assert ended == [True] * times, "what those attempts left has ended"
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_ray_that_is_always_too_late_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    late = LateRay(ATTEMPTS)
    monkeypatch.setattr(ray, "init", late.init)
    with pytest.raises(PlanError, match="Ray did not come up in time"), connected("local"):
        pass
    *others, last = late.left
    assert all(other.poll() is not None for other in others)
    last.kill()
    last.wait()


@pytest.mark.parametrize("ends", [0, 1, 2])
def test_the_end_of_rays_daemons_is_told_at_once_and_none_once_the_watch_is_over(
    ends: int,
) -> None:
    is_over = threading.Event()
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    with subprocess.Popen(["sleep", "60"]) as first, subprocess.Popen(["sleep", "60"]) as second:
        watched = [psutil.Process(first.pid), psutil.Process(second.pid)]
        tell = partial(told.put, "ended")
        watch = threading.Thread(target=watch_processes, args=(watched, is_over, tell))
        watch.start()
        for each in (first, second)[:ends]:
            each.kill()
            assert told.get(timeout=10) == "ended"
        is_over.set()
        watch.join(10)
        first.kill()
        second.kill()
    assert told.empty()
    assert not watch.is_alive()


@pytest.mark.parametrize("is_left", [True, False])
def test_a_lane_that_still_asks_ray_keeps_it_from_being_shut_down(
    is_left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends the process where a thread asks it for something beside its shutdown."""
    shut: list[bool] = []
    monkeypatch.setattr("carray.search.placement.ray_cluster._connect", lambda where: None)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: shut.append(True))
    lane = threading.Thread(name=f"{LANE_THREAD}0")
    left = [threading.main_thread(), *[lane] * is_left]  # whatever other tests have left
    monkeypatch.setattr("threading.enumerate", lambda: left)
    with connected("local"):
        pass
    assert shut == [True] * (not is_left)


@pytest.mark.parametrize(
    ("name", "fault"), [("ü", "has letters beyond ASCII"), ("long" * 40, "is too long")]
)
def test_a_folder_where_ray_cannot_open_its_sockets_is_named_with_the_cure(
    name: str, fault: str
) -> None:
    code = "from carray.search.placement.ray_cluster import connected\nwith connected(): pass"
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with tempfile.TemporaryDirectory(prefix=name) as folder:  # one of pytest's own is too long
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "TMPDIR": folder},
            capture_output=True,
            text=True,
        )
    assert f"below {folder}, whose path {fault}: set TMPDIR to another" in ran.stderr


WORKER = """
import os, sys, ray
from carray.search.placement.ray_cluster import connected

with connected():
    own = ray.remote(runtime_env={"env_vars": {"A": "1"}})
    task = own(lambda: (sys.executable, os.environ["A"]))
    print(*ray.get(task.remote(), timeout=60), sep="|")
"""


@pytest.mark.ray
def test_workers_start_in_an_environment_whose_folder_has_a_space(tmp_path: Path) -> None:
    """Ray has a shell start those that have an environment of their own, as all lanes have."""
    folder = tmp_path / "it's my cars"
    folder.symlink_to(sys.prefix)
    python = folder / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    ended = subprocess.run(
        [str(python), "-c", WORKER], capture_output=True, text=True, env=environment, timeout=200
    )
    assert ended.stdout.splitlines()[-1:] == [f"{python}|1"], ended.stderr
