"""Looks a machine or a cluster over before a study: what is there, what fails, and the cure."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import psutil
import ray
from pydantic import BaseModel

from carray.data.manifest import Manifest
from carray.data.pixels.store import store_place
from carray.disk import existing
from carray.errors import CarrayError, PlanError, counted
from carray.masking import masked
from carray.models.hub import hub_error
from carray.provenance import source_hash
from carray.runs_folder import RunsFolder
from carray.search.placement.node_checks import left_files
from carray.search.placement.node_report import (
    CLOCK_SECONDS,
    NodeQuestion,
    NodeReport,
    free_shared_memory_gib,
    own_versions,
    problems,
    sending_note,
)
from carray.search.placement.ray_cluster import ClusterNode, connected, knock
from carray.search.placement.ray_nodes import RayCluster
from carray.search.sampling.storage import check_database, without_password
from carray.storage.mirror import mirror_of
from carray.storage.remote import RemoteFolder
from carray.tracking.mlflow_client import check_server, is_default, tracking_uri
from carray.typing import GIB

State = Literal["ok", "note", "fails"]
PYTHONS = (3, 11), (3, 13)
FREE_GIB = 2.0  # of disk: a small study's pixels, checkpoints and weights
SHARED_GIB = 1.0  # NCCL's ranks of one machine meet there, and containers give it 64 MiB


class Finding(BaseModel):
    """One thing that was looked at. A `note` is worth knowing and keeps nobody from training."""

    name: str
    state: State
    text: str
    cure: str = ""
    report: NodeReport | None = None
    """What a node said of itself."""

    def line(self) -> str:
        """Say it on a line, the cure at its end."""
        shown = "FAILS" if self.state == "fails" else self.state
        return f"{shown:<6} {self.name:<9} {self.text}" + f"; {self.cure}" * bool(self.cure)


def look_over(
    data: Path | str | None = None, address: str | None = None, runs: RunsFolder | None = None
) -> Iterator[Finding]:
    """Look at this machine, then at a cluster's nodes where one is named; nothing is trained.

    Args:
        data: a prepared data set that is to be trained on; its folder or its URL.
        address: of Ray; `$RAY_ADDRESS` counts as one.
        runs: where studies are to be kept.
    """
    runs = runs or RunsFolder.unchecked()
    yield _versions()
    yield from _home()
    question = NodeQuestion(sends_runs=True)
    if data is not None:
        found = _data(data)
        yield found
        if found.state == "ok":
            manifest = Manifest.load(data)
            yield _folder("store", store_place(manifest), "name another one in CARRAY_STORE")
            question = replace(
                question,
                data=manifest.where,
                manifest_hash=manifest.hash,
                sends_images=0 if mirror_of(manifest.folder) else len(manifest.included),
            )
    yield _folder("runs", runs.path, "name another one with --runs or CARRAY_RUNS")
    if runs.mirror:
        yield _url(runs.mirror.remote)
    yield _shared_memory()
    yield _weights()
    yield _tracking(runs)
    if storage := os.environ.get("CARRAY_STORAGE"):
        yield _storage(storage)
    yield _gpus()
    yield _instances()
    if address or os.environ.get("RAY_ADDRESS"):
        yield from _cluster(address, question, runs)


def _versions() -> Finding:
    found = own_versions()
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    text = f"{listed}; carray's code {source_hash()}"
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        text = f"Python is {platform.python_version()}"
        return Finding(name="versions", state="fails", text=text, cure="take Python 3.11 to 3.13")
    return Finding(name="versions", state="ok", text=text)


def _home() -> Iterator[Finding]:
    """Say where the folder in which Ray and the hub look for files of theirs can't be read."""
    home = Path.home()
    try:
        (home / ".ray").stat()
    except FileNotFoundError:
        return
    except OSError as error:
        text = f"HOME={home} can't be read ({error.strerror})"
        cure = "set HOME to another folder, which you may read and write"
        yield Finding(name="home", state="fails", text=text, cure=cure)


def _url(remote: RemoteFolder) -> Finding:
    """Write a small file at the URL of the runs, and remove it."""
    name = f".carray-{uuid.uuid4().hex}"
    start = time.monotonic()
    try:
        remote.write(name, b"carray doctor")
        remote.remove(name)
    except CarrayError as error:
        text, _, cure = str(error).rpartition(": ")
        return Finding(name="url", state="fails", text=text, cure=cure)
    text = f"{remote} takes files ({time.monotonic() - start:.2f} s)"
    return Finding(name="url", state="ok", text=text)


def _storage(url: str) -> Finding:
    """Say whether Optuna's database answers."""
    try:
        check_database(url)
    except CarrayError as error:
        text, _, cure = str(error).rpartition(": ")
        return Finding(name="storage", state="fails", text=text, cure=cure)
    return Finding(name="storage", state="ok", text=f"{without_password(url)} answers")


def _data(data: Path | str) -> Finding:
    try:
        manifest = Manifest.load(data)
    except CarrayError as error:
        text, _, cure = str(error).partition(": ")
        return Finding(name="data", state="fails", text=text, cure=cure)
    images, classes = len(manifest.included), len(manifest.classes)
    text = f"{manifest.where}: {images:,} images of {classes} classes, hash {manifest.hash[:8]}"
    return Finding(name="data", state="ok", text=text)


def _folder(name: str, folder: Path, cure: str) -> Finding:
    """Say whether a folder can be written, or made, and how much room there is."""
    there = existing(folder)
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        text = f"{folder} can't be written"
        return Finding(name=name, state="fails", text=text, cure=cure)
    free = shutil.disk_usage(there).free / GIB
    text = f"{folder}: {free:,.1f} GiB free"
    if free < FREE_GIB:
        return Finding(name=name, state="fails", text=text, cure=f"free some, or {cure}")
    return Finding(name=name, state="ok", text=text)


def _shared_memory() -> Finding:
    free = free_shared_memory_gib()
    text = f"/dev/shm has {free:,.2f} GiB free"
    if free < SHARED_GIB:
        cure = "a container gets more by --shm-size=2g; trials on several GPUs need it"
        return Finding(name="memory", state="note", text=text, cure=cure)
    total = psutil.virtual_memory()
    text += f"; {total.available / GIB:,.1f} of {total.total / GIB:,.1f} GiB of memory are free"
    return Finding(name="memory", state="ok", text=text)


def _weights() -> Finding:
    """Say where pretrained weights come from: a folder, the hub's cache, the hub."""
    from huggingface_hub import constants

    if (named := os.environ.get("CARRAY_WEIGHTS")) is not None:
        files = [f for f in Path(named).glob("*") if f.suffix in (".safetensors", ".pth")]
        text = f"CARRAY_WEIGHTS={named} holds {counted(len(files), 'file')} of weights"
        state: State = "ok" if files else "fails"
        cure = "" if files else "mend the path, or put timm's files there (resnet18.safetensors)"
        return Finding(name="weights", state=state, text=text, cure=cure)
    cache = Path(constants.HF_HUB_CACHE)
    models = len(list(cache.glob("models--*"))) if os.access(cache, os.R_OK) else 0
    text, why = f"the hub's cache {cache} holds {counted(models, 'model')}", hub_error()
    if not why:
        return Finding(name="weights", state="ok", text=f"{text}; the hub answers")
    cure = "bring others in a folder: CARRAY_WEIGHTS=/ABS/FOLDER; quick and scratch_cnn need none"
    return Finding(name="weights", state="note", text=f"{text}; {why}", cure=cure)


def _tracking(runs: RunsFolder) -> Finding:
    uri = masked(tracking_uri(runs))
    if is_default(runs) and not runs.tracking_file.exists():
        text = f"the first study makes {runs.tracking_file}"
        return Finding(name="tracking", state="ok", text=text)
    try:
        check_server(runs)
    except CarrayError as error:
        text, _, cure = str(error).partition("; ")
        return Finding(name="tracking", state="fails", text=text, cure=cure)
    return Finding(name="tracking", state="ok", text=f"{uri} answers")


def _gpus() -> Finding:
    """Say what torch computes on; a GPU that the system has and torch doesn't see is a failure."""
    import torch
    from torch import distributed

    count = torch.cuda.device_count()
    if count:
        name = torch.cuda.get_device_name(0)
        gib = torch.cuda.get_device_properties(0).total_memory / GIB
        has = distributed.is_nccl_available()
        nccl = ".".join(map(str, torch.cuda.nccl.version())) if has else ""  # type: ignore[no-untyped-call]
        text = f"{count} x {name}, {gib:.0f} GiB; " + (f"NCCL {nccl}" if has else "no NCCL")
        lacks = count > 1 and not has
        cure = "install torch's CUDA build, without it no trial takes several GPUs" * lacks
        return Finding(name="gpu", state="fails" if lacks else "ok", text=text, cure=cure)
    if Path("/dev/nvidia0").exists():
        text = f"the system has a GPU, but torch {torch.__version__} sees none"
        cure = (
            "see what `nvidia-smi` says; install torch's CUDA build; look at CUDA_VISIBLE_DEVICES"
        )
        return Finding(name="gpu", state="fails", text=text, cure=cure)
    return Finding(name="gpu", state="ok", text="none: trials run on CPUs, ranks talk over gloo")


def _instances() -> Finding:
    """Say how many Rays run on this machine; several share ports and confuse those who join."""
    running = sum(each.info["name"] == "gcs_server" for each in psutil.process_iter(["name"]))
    named = os.environ.get("RAY_ADDRESS")
    text = f"{running} on this machine" if running else "none runs here; `carray tune` starts one"
    text += f"; RAY_ADDRESS={named}" if named else ""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if running > 1:
        cure = "their dashboard agents share port 52365, so `ray job submit` may get no answer"
        return Finding(name="ray", state="note", text=text, cure=f"end one; {cure}")
    if running and os.access(token, os.R_OK) and not os.environ.get("RAY_AUTH_MODE"):
        text += f"; there is a token in {token}"
        cure = "where Ray refuses you with 401, export RAY_AUTH_MODE=token"
        return Finding(name="ray", state="note", text=text, cure=cure)
    return Finding(name="ray", state="ok", text=text)


def _cluster(address: str | None, question: NodeQuestion, runs: RunsFolder) -> Iterator[Finding]:
    """Join the cluster and ask each of its nodes, this one too."""
    try:
        with connected(address):
            yield _dashboard()
            places = [runs.path] if runs.path.is_dir() else []
            with left_files(places) as nonce:
                shared = str(runs.path) if places else ""
                yield from _nodes(replace(question, nonce=nonce, runs=shared))
    except PlanError as error:
        text, _, cure = str(error).partition("; ")
        yield Finding(name="cluster", state="fails", text=text, cure=cure)


def _dashboard() -> Finding:
    """Say whether the dashboard answers, through which jobs are submitted."""
    context = ray.init(ignore_reinit_error=True, logging_level=logging.ERROR)  # it is joined
    url = str(context.address_info.get("webui_url") or "")
    cure = "`ray job submit` needs it: ray start --head --include-dashboard=true"
    if not url:
        return Finding(name="dashboard", state="note", text="Ray has none", cure=cure)
    try:
        knock(url)
    except OSError as error:
        text = f"{url} doesn't answer ({error.strerror or error})"
        return Finding(name="dashboard", state="note", text=text, cure=cure)
    return Finding(name="dashboard", state="ok", text=f"http://{url} answers")


def _nodes(question: NodeQuestion) -> Iterator[Finding]:
    cluster = RayCluster()
    nodes = cluster.nodes()
    asked = [(node, replace(question, gpus=node.resources.get("GPU", 0))) for node in nodes]
    answers = cluster.ask(asked)
    for node, about in asked:
        yield _node(node, about, answers[node.id])


def _node(node: ClusterNode, question: NodeQuestion, answer: NodeReport | str) -> Finding:
    have = [f"{node.resources.get(name, 0):g} {name}" for name in ("CPU", "GPU")]
    text = f"{node.address} ({', '.join(have)})"
    if isinstance(answer, str):
        cure = "is carray installed there, for the Python that started Ray?"
        return Finding(name="node", state="fails", text=f"{text}: {answer}", cure=cure)
    if found := problems(answer, question):
        text = f"{text}: {'; '.join(found)}"
        return Finding(name="node", state="fails", text=text, report=answer)
    notes = [*filter(None, [sending_note(answer, question)]), *_node_notes(node, answer)]
    text += f": {'; '.join(notes) or 'fine'}"
    return Finding(name="node", state="note" if notes else "ok", text=text, report=answer)


def _node_notes(node: ClusterNode, report: NodeReport) -> list[str]:
    notes = []
    if abs(report.ahead_seconds) > CLOCK_SECONDS:
        notes.append(f"its clock is {report.ahead_seconds:+.0f} s off")
    if report.host_address.startswith("127.") and not node.address.startswith("127."):
        notes.append(f"its name {report.host} is {report.host_address} in /etc/hosts")
    if report.shared_memory_gib < SHARED_GIB:
        notes.append(f"/dev/shm has {report.shared_memory_gib:.2f} GiB free")
    return notes
