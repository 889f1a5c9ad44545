"""Connects to Ray with an explicit address and quiet settings, and disconnects cleanly."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import shlex
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
import ray.exceptions
from ray._private import worker
from ray._private.state import state

from carray.errors import ClusterError, PlanError, causes
from carray.lanes.lane import LANE_THREAD
from carray.lanes.mailbox_client import MAILBOX_ENDED
from carray.search.placement.plan import Node

LOCAL = "local"
KNOCK_SECONDS = 10.0
OBJECT_STORE_BYTES = 256 * 2**20  # pixels are mapped files; only orders and answers pass through
ATTEMPTS = 4  # to start a Ray, each of up to 30 s

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our records hold what those files would
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial ends without a metric
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `Interrupts` stops the study gently
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # Tune's own state is a cache
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "600",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
ACCELERATOR = "accelerator_type:"  # and the kind, the name of one of Ray's resources
DAEMONS = ("gcs_server", "raylet")
WATCH_MILLISECONDS = 200  # how late a watch notices that it is over


@dataclass(frozen=True)
class ClusterNode:
    """A node that is alive."""

    id: str
    address: str
    resources: Node
    is_own: bool = False
    """Whether this process is on it."""

    @property
    def accelerators(self) -> list[str]:
        """The kinds of its GPUs, as Ray names them: of each it has a resource."""
        names = (name.partition(ACCELERATOR) for name in self.resources)
        return [kind for _, found, kind in names if found and kind]


_ours: list[psutil.Process] = []
"""Processes of the Ray that this one has started."""


@contextlib.contextmanager
def connected(
    address: str | None = None, on_died: Callable[[], None] | None = None
) -> Iterator[None]:
    """Join the cluster at `address` or `$RAY_ADDRESS`, else start a local one; leave it after.

    A Ray that the caller has already started is used and left running. If the Ray of this node dies
    before that, `on_died` is called in a thread, and has no time to lose: the next object that this
    process asks of its store ends it, with exit code 1 and not a word.

    Raises:
        PlanError: nothing answers at the address.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    where = address or os.environ.get("RAY_ADDRESS") or LOCAL
    if ray.is_initialized():
        _refuse_silence(where)
        yield
        return
    _connect(where)
    try:
        with _watched(on_died) if on_died else contextlib.nullcontext():
            yield
    finally:
        _ours.clear()
        if not lanes_are_left():
            ray.shutdown()


def lanes_are_left() -> bool:
    """Say whether a lane's thread still asks Ray, as where it was interrupted on its way up.

    Beside a shutdown that ends this process, with exit code 1 and before its last sentence. Ray is
    then left to go with the process; the lanes go as soon as they hear that nobody wants them.
    """
    return any(thread.name.startswith(LANE_THREAD) for thread in threading.enumerate())


def starts_ray(address: str | None) -> bool:
    """Say whether `connected` starts a Ray of this machine alone, which no other node joins."""
    where = address or os.environ.get("RAY_ADDRESS") or LOCAL
    return where == LOCAL and not ray.is_initialized()


@contextlib.contextmanager
def _watched(on_died: Callable[[], None]) -> Iterator[None]:
    """Call `on_died`, in a thread, for each daemon of Ray's here that ends."""
    is_over = threading.Event()
    watch = threading.Thread(
        target=watch_processes, args=(_daemons(), is_over, on_died), daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        is_over.set()
        watch.join()


def _daemons() -> list[psutil.Process]:
    """Return what Ray can't do without here: the daemons of this process's own, else the raylet."""
    node = worker._global_node
    if _ours or node is None:  # a client's cluster has no process here
        return [each for each in _ours if _is_daemon(each)]
    socket_name = f"--raylet_socket_name={node.raylet_socket_name}"
    return [each for each in psutil.process_iter() if socket_name in _words(each)]


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def watch_processes(
    watched: Iterable[psutil.Process], is_over: threading.Event, on_ended: Callable[[], None]
) -> None:
    """Call `on_ended` for each process that ends before `is_over`."""
    with contextlib.ExitStack() as stack:
        ends = select.poll()
        for process in watched:
            try:
                file = os.pidfd_open(process.pid)
            except ProcessLookupError:
                on_ended()
                continue
            stack.callback(os.close, file)
            ends.register(file, select.POLLIN)
        while not is_over.is_set():
            for file, _ in ends.poll(WATCH_MILLISECONDS):
                ends.unregister(file)
                if not is_over.is_set():
                    on_ended()


def memory_error(error: BaseException) -> PlanError | None:
    """Return what `error` says of a node short of memory, on which Ray ends what it can.

    It is None if the error is of another kind. What took the memory may be no process of Ray's.
    """
    for each in causes(error):
        if isinstance(each, ray.exceptions.OutOfMemoryError):
            message = str(each)
            node = re.search(r"IP: ([^,]+),.*?was ([\d.]+)GB used / ([\d.]+)GB", message)
            user = re.search(r"COMMAND\n\d+\t([\d.]+)\t(.+)", message)
            where = f"node {node[1]} ran" if node else "a node ran"
            used = f" ({node[2]} of {node[3]} GiB used)" if node else ""
            most = f", most of it by {user[2][:60]!r} ({user[1]} GiB)" if user else ""
            return PlanError(
                f"{where} out of memory{used}{most}, and Ray ended the study's processes there; "
                "free some, or run fewer trials at once (--concurrent)"
            )
    return None


def lost_error(error: BaseException) -> ClusterError | None:
    """Return what `error` says of a process of the study's own that has ended; None of others."""
    if any(isinstance(each, ray.exceptions.RayActorError) for each in causes(error)):
        return ClusterError(MAILBOX_ENDED)
    return None


def cluster_nodes() -> list[ClusterNode]:
    """Return every node that is alive and not drained, this process's own first."""
    draining = state.get_draining_nodes()
    own = ray.get_runtime_context().get_node_id()
    found = [
        ClusterNode(
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
            resources=node["Resources"],
            is_own=node["NodeID"] == own,
        )
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in draining
    ]
    return sorted(found, key=lambda node: not node.is_own)


def started_processes() -> list[psutil.Process]:
    """Return Ray's processes that this one has started: its daemons, and their agents.

    An agent whose raylet is killed ends late: it waits for a GCS, which may be gone too.
    """
    return list(_ours)


def has_started_ray() -> bool:
    """Say whether this process has started the Ray that it uses: no node joins that one."""
    return bool(_ours)


def _connect(where: str) -> None:
    settings: dict[str, object] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if where == LOCAL:
        settings |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        if (python := shlex.quote(sys.executable)) != sys.executable:  # Ray has a shell start it
            settings["runtime_env"] = {"py_executable": python}
    _refuse_silence(where)
    try:
        _start_patiently(where, settings)
    except ray.exceptions.AuthenticationError:
        raise token_error(where) from None
    except Exception as error:  # Ray raises bare ones too
        if _came_too_late(error):
            raise PlanError(
                "Ray did not come up in time on this machine, which may be too busy: try again, or "
                "give --address of a Ray that is up"
            ) from None
        if not isinstance(error, OSError | ValueError | RuntimeError):
            raise
        if fault := _fault_of_sockets(error):
            raise PlanError(
                f"Ray can't open its sockets below {tempfile.gettempdir()}, whose path {fault}: "
                "set TMPDIR to another, as in TMPDIR=/tmp"
            ) from None
        raise _nobody_at(where, error, is_heard=where != LOCAL) from None
    _ours.extend(_with_descendants(filter(_is_rays, psutil.Process().children())))


def _fault_of_sockets(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError) and not tempfile.gettempdir().isascii():
        return "has letters beyond ASCII"
    return "is too long" if "AF_UNIX" in str(error) else ""


def _start_patiently(where: str, settings: dict[str, object]) -> None:
    """Start or join a Ray; again if it is late: it waits 30 s, too few on a busy machine."""
    for attempt in range(1, ATTEMPTS + 1):
        before = set(psutil.Process().children())
        try:
            ray.init(address=where, **settings)
            return
        except Exception as error:
            if attempt == ATTEMPTS or not _came_too_late(error):
                raise
        _end_daemons(set(psutil.Process().children()) - before)


def _came_too_late(error: Exception) -> bool:
    return "timed out during startup" in str(error)


def _end_daemons(processes: set[psutil.Process]) -> None:
    """End what an attempt to start a Ray has left, its helpers included."""
    ended = _with_descendants(processes)
    for each in ended:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(ended, timeout=10)


def _with_descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            found += [process, *process.children(recursive=True)]
    return found


def token_error(where: str) -> PlanError:
    """Say that the cluster at an address wants a token, which is missing or another one."""
    has = "another one" if os.environ.get("RAY_AUTH_MODE") == "token" else "none"
    return PlanError(
        f"{where} asks for a token, and got {has}: copy the head's ~/.ray/auth_token here, or name "
        "its file in RAY_AUTH_TOKEN_PATH, and export RAY_AUTH_MODE=token"
    )


def _is_rays(process: psutil.Process) -> bool:
    folder = str(Path(ray.__file__).parent)
    return any(word.startswith(folder) for word in _words(process))


def _is_daemon(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # gone meanwhile
        return process.name() in DAEMONS
    return False


def _refuse_silence(where: str) -> None:
    try:
        knock(where)
    except OSError as error:
        raise _nobody_at(where, error) from None


def _nobody_at(where: str, error: Exception, *, is_heard: bool = False) -> PlanError:
    """Say that no Ray answers; where somebody listens, it may want a token: Ray keeps that back."""
    reason = str(error).splitlines()[0]
    if is_heard and os.environ.get("RAY_AUTH_MODE") != "token":
        reason += "; if it wants a token, export RAY_AUTH_MODE=token"
    if where == os.environ.get("RAY_ADDRESS"):
        return PlanError(
            f"no Ray cluster answers at {where!r}, which RAY_ADDRESS names ({reason}); unset "
            "RAY_ADDRESS to run on this machine, or start one with `ray start --head`"
        )
    return PlanError(
        f"no Ray cluster answers at {where!r} ({reason}); start one with "
        "`ray start --head`, or leave --address out to run on this machine"
    )


def knock(where: str) -> None:
    """Raise OSError where nobody listens at `HOST:PORT`: Ray itself would try for minutes."""
    host, _, port = where.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
