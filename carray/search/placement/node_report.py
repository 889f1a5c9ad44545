"""What a node is like before it gets a lane: asked of it in one task, judged by the driver."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from carray.config import Fit
from carray.data.manifest import Manifest
from carray.data.pixels.store import SPARE_BYTES, is_stored, store_bytes, store_place, store_side
from carray.data.remote_data import sent_folder
from carray.disk import existing
from carray.errors import CarrayError
from carray.provenance import module_hash, source_hash, versions
from carray.storage.cache import cache_folder
from carray.storage.mirror import mirror_of
from carray.typing import GIB

SHARED_MEMORY = Path("/dev/shm")
SAME = "python", "torch", "torchvision", "timm", "ray"  # what a trial's result depends on
CLOCK_SECONDS = 60.0  # a clock further off is mentioned: nothing but the order of use reads it


@dataclass(frozen=True)
class NodeQuestion:
    """What a study asks of a node; "" and () ask nothing."""

    data: str = ""
    manifest_hash: str = ""
    inputs: tuple[tuple[int, Fit], ...] = ()
    """(image size, fit) of every pixel store that is known to be needed."""
    runs: str = ""
    """The folder that the node must share with the driver."""
    nonce: str = ""
    """Name of a file that the driver has put into `runs`, and where its pixel stores are built."""
    weights: tuple[tuple[str, bool | str], ...] = ()
    """(backbone, pretrained) of every source of weights that a trial may have."""
    weights_folder: str | None = None
    sends_weights: tuple[str, ...] = ()
    """Backbones whose weights the driver sends to nodes without them."""
    transforms: tuple[tuple[str, str], ...] = ()
    """(name, hash of its file) of every transform of the user's own that a trial may have."""
    gpus: float = 0.0
    """GPUs that Ray says the node has."""
    sends_runs: bool = False
    """Whether a node that doesn't share `runs` may send the driver what its trials leave."""
    sends_images: int = 0
    """Images of a data set that is sent to nodes without it; 0 where none is."""


class NodeReport(BaseModel):
    """What a node says of itself; a text says what is wrong, "" that nothing is."""

    model_config = ConfigDict(frozen=True)
    host: str
    host_address: str
    """What the host's own name stands for there; 127.0.1.1 is nobody's address elsewhere."""
    versions: dict[str, str]
    source: str
    """Hash of carray's own code."""
    shared_memory_gib: float
    data: str = ""
    runs: str = ""
    shares_runs: bool = True
    """Whether the driver's folder is seen there."""
    cache: str = ""
    store: str = ""
    weights: str = ""
    transforms: str = ""
    gpus_seen: int | None = None
    """GPUs that torch sees; None where Ray says that there are none."""
    clock: float
    """Unix time there, when the report was sent."""
    ahead_seconds: float = 0.0
    """By which the driver, when it came, found that clock ahead of its own."""


def node_report(question: NodeQuestion) -> NodeReport:
    """Look around on the node that this process is on."""
    manifest, data = _data(question)
    shares_runs, runs = _runs(question)
    is_sent = bool(data) and question.sends_images > 0
    return NodeReport(
        host=socket.gethostname(),
        host_address=_host_address(),
        versions=own_versions(),
        source=source_hash(),
        shared_memory_gib=free_shared_memory_gib(),
        data=data,
        runs=runs,
        shares_runs=shares_runs,
        cache=_cache() if is_sent or not shares_runs else "",
        store=_store(manifest, question) if manifest else _sent_store(question) * is_sent,
        weights=_weights(question),
        transforms=_transforms(question),
        gpus_seen=_gpus_seen() if question.gpus >= 1 else None,
        clock=time.time(),
    )


def own_versions() -> dict[str, str]:
    """Return {name: version} of carray's packages and of Python here."""
    return {"python": platform.python_version(), **versions()}


def problems(report: NodeReport, question: NodeQuestion) -> list[str]:
    """Return why a node gets no lane, judged beside this process; empty where it gets some."""
    found = _differences(report.versions, own_versions())
    if report.source != source_hash():
        theirs, own = (each.get("carray", "unknown") for each in (report.versions, own_versions()))
        found.append(
            f"another carray ({theirs}, code {report.source}; here {own}, code {source_hash()})"
        )
    data = "" if question.sends_images else report.data
    runs = report.runs if report.shares_runs or not question.sends_runs else ""
    cache = report.cache if question.sends_runs else ""
    found += filter(None, (data, runs, cache, report.store, report.weights, report.transforms))
    if report.gpus_seen is not None and report.gpus_seen < question.gpus:
        found.append(f"torch sees {report.gpus_seen} GPU of its {question.gpus:g}")
    return found


def _differences(theirs: Mapping[str, str], own: Mapping[str, str]) -> list[str]:
    """Name the packages whose versions differ; builds of one version (`+cpu`) don't."""
    pairs = {name: (theirs.get(name, "none"), own.get(name, "none")) for name in SAME}
    return [
        f"{name} {there}, here {here}"
        for name, (there, here) in pairs.items()
        if there.partition("+")[0] != here.partition("+")[0]
    ]


def _data(question: NodeQuestion) -> tuple[Manifest | None, str]:
    if not question.data:
        return None, ""
    try:
        manifest = Manifest.load(question.data)
    except (CarrayError, OSError) as error:
        return None, str(error).partition(": ")[0]
    if manifest.hash != question.manifest_hash:
        there, here = manifest.hash[:8], question.manifest_hash[:8]
        return None, f"another data set at {question.data} ({there}, here {here})"
    return manifest, ""


def _runs(question: NodeQuestion) -> tuple[bool, str]:
    """Look for the driver's file: a folder of the same name may be the node's own."""
    if not question.runs:
        return True, ""
    folder = Path(question.runs)
    if not (folder / question.nonce).exists():
        return False, f"{folder} is not the driver's folder there: share --runs with every node"
    return True, "" if os.access(folder, os.W_OK) else f"{folder} can't be written there"


def sending_note(report: NodeReport, question: NodeQuestion) -> str:
    """Say what goes to and from a node since it shares no folder; "" where nothing does."""
    sent = ["gets the data"] if report.data and question.sends_images else []
    sent += ["sends what its trials leave"] if not report.shares_runs else []
    return f"shares no folder with the driver: {' and '.join(sent)}" if sent else ""


def _cache() -> str:
    """Say why what travels can't be kept here; "" where it can."""
    there = existing(cache_folder())
    can = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return "" if can else f"its cache can't be written below {there}: set CARRAY_CACHE there"


def _sent_store(question: NodeQuestion) -> str:
    """Say why a node that gets the data can't have the pixel stores."""
    place = sent_folder(question.manifest_hash) / "store"
    names = [(f"{store_side(size)}-{fit}", size) for size, fit in question.inputs]
    lacking = [size for name, size in names if not (place / name / "store.json").exists()]
    return _room(existing(place), question.sends_images, lacking)


def _store(manifest: Manifest, question: NodeQuestion) -> str:
    """Say why the node can't have the pixel stores: they are there, or built there if need be."""
    place = store_place(manifest)
    if (place / question.nonce).exists():
        return ""  # the driver builds them, or says itself why it can't
    lacking = [each for each in question.inputs if not is_stored(manifest, *each)]
    if not lacking:
        return ""
    used = () if mirror_of(manifest.folder) else manifest.included["path"].iloc[[0, -1]]
    lost = [path for path in used if not Path(path).exists()]
    if lost:
        return f"neither the pixel store nor {lost[0]}, which it would be built from"
    there = existing(place)
    if not os.access(there, os.W_OK):
        return f"the pixel store can't be written below {there}: set CARRAY_STORE there"
    return _room(there, len(manifest.included), [size for size, _ in lacking])


def _room(there: Path, images: int, sizes: Sequence[int]) -> str:
    """Say by how much a disk is too small for pixel stores; "" where it isn't."""
    need = SPARE_BYTES + sum(store_bytes(images, store_side(size)) for size in sizes)
    free = shutil.disk_usage(there).free
    if sizes and free < need:
        return f"the pixel store needs {need / GIB:.2f} GiB, {there} has {free / GIB:.2f} free"
    return ""


def _weights(question: NodeQuestion) -> str:
    wanted = [(backbone, source) for backbone, source in question.weights if source]
    if not wanted:
        return ""
    from carray.models.weights import check_obtainable

    lacking = {}
    for backbone, source in wanted:
        if source is True and backbone in question.sends_weights:
            continue
        try:
            check_obtainable(backbone, source, question.weights_folder)
        except CarrayError as error:
            lacking[backbone] = str(error)
    if not lacking:
        return ""
    why = next(iter(lacking.values())).partition(";")[0]
    return why if len(lacking) == 1 else f"no weights for {', '.join(lacking)}"


def _transforms(question: NodeQuestion) -> str:
    """Say which transform can't be imported here, or is another one than the driver's."""
    for name, wanted in question.transforms:
        from carray.data.pixels.own_transform import load_transform

        try:
            load_transform(name)
        except CarrayError as error:
            return str(error)
        if (found := module_hash(name)) != wanted:
            return f"augment.transform={name!r} is other code there ({found}, here {wanted})"
    return ""


def _gpus_seen() -> int:
    """Count torch's GPUs; Ray hides them from a task that asks for none."""
    if not os.environ.get("CUDA_VISIBLE_DEVICES", "all"):
        del os.environ["CUDA_VISIBLE_DEVICES"]
    import torch

    return torch.cuda.device_count()


def _host_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def free_shared_memory_gib() -> float:
    """Return what /dev/shm has free here, in GiB; 0 where there is none."""
    return shutil.disk_usage(SHARED_MEMORY).free / GIB if SHARED_MEMORY.is_dir() else 0.0
