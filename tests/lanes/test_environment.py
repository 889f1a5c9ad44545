"""What ranks on other nodes get of the driver's environment."""

from __future__ import annotations

import pytest

from carray.lanes.ray_groups import forwarded_environment


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
    found = forwarded_environment()
    assert wanted.items() <= found.items()
    assert not {"AWS_SECRET_ACCESS_KEY", "EDITOR"} & found.keys()
