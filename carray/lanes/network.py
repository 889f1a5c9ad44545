"""What ranks talk over: the interface, and what gloo and NCCL mean when they fail."""

from __future__ import annotations

import os
import re
import socket
from itertools import pairwise

import psutil

_GLOO = re.compile(r"gloo/|connectFullMesh|Connection (?:closed|reset) by peer", re.IGNORECASE)
_NCCL = re.compile(r"ncclUnhandledCudaError|ncclSystemError|ncclRemoteError|ncclInternalError")


def interface_of(address: str) -> str:
    """Return the network interface that has an address; "" where none of this machine's has."""
    found = psutil.net_if_addrs().items()
    return next((name for name, has in found if address in (each.address for each in has)), "")


def network_error(error: BaseException, address: str = "") -> str:
    """Say what an error of gloo's or NCCL's is about, with the interface and the cure.

    It is "" of any other error. `address` is the one that this node is reached by.
    """
    text = str(error)
    library = "NCCL" if _NCCL.search(text) else "gloo" if _GLOO.search(text) else ""
    if not library:
        return ""
    variable = f"{library.upper()}_SOCKET_IFNAME"
    named = os.environ.get(variable) or interface_of(address) or "the one that it found by itself"
    more = "; NCCL_DEBUG=INFO with --env NCCL_DEBUG says more" if library == "NCCL" else ""
    return (
        f"ranks lost each other ({library} on {socket.gethostname()}, interface {named}: "
        f"{_told(text)}): if nodes are all up, export {variable} with the interface that reaches "
        f"the others, as `ip address` names it{more}"
    )


def _told(text: str) -> str:
    """Return the telling line of what a library says."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    after = next((b for a, b in pairwise(lines) if a == "Last error:"), "")
    found = after or next((line for line in lines if "nccl" in line), lines[0])
    return re.sub(r"^\[[^\]]*\]\s*", "", found)[:160]
