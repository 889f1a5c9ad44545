"""What ranks on other nodes get of the driver's environment."""

from __future__ import annotations

import pytest

from carray.lanes.network import network_error
from carray.lanes.ray_groups import forwarded_environment

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [1]"
NCCL = """NCCL error in: ProcessGroupNCCL.cpp:3356, remote process exited or a network error
ncclRemoteError: A call failed possibly due to a network error or a remote process exiting.
Last error:
socketPollConnect: Connect to 10.0.0.7<41027> returned 113(No route to host)"""


def test_what_gloo_and_nccl_say_names_the_interface_and_the_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    said = network_error(RuntimeError(GLOO), "127.0.0.1")
    assert "interface lo" in said
    assert "Connection closed by peer" in said
    assert "export GLOO_SOCKET_IFNAME" in said
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth1")
    said = network_error(RuntimeError(NCCL))
    assert "interface eth1: socketPollConnect: Connect to 10.0.0.7<41027>" in said
    assert "--env NCCL_DEBUG" in said
    assert network_error(RuntimeError("shapes don't match")) == ""


def test_networks_threads_and_storage_are_forwarded_but_no_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = {
        "NCCL_SOCKET_IFNAME": "eth1",
        "GLOO_SOCKET_IFNAME": "eth1",
        "OMP_PROC_BIND": "true",
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "CARRAY_CACHE": "/scratch/carray",
    }
    for name, value in (wanted | {"AWS_SECRET_ACCESS_KEY": "k" * 20, "EDITOR": "vi"}).items():
        monkeypatch.setenv(name, value)
    assert forwarded_environment(["EDITOR"])["EDITOR"] == "vi"
    found = forwarded_environment()
    assert wanted.items() <= found.items()
    assert not {"AWS_SECRET_ACCESS_KEY", "EDITOR"} & found.keys()
