"""A port that can't be listened on is told with what the system says."""

from __future__ import annotations

import socket

import pytest

from carray.errors import ConfigError
from carray.ports import check_port


@pytest.mark.parametrize("port", [0, 65536])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=rf"^--port {port} must be from 1 to 65535$"):
        check_port("127.0.0.1", port)


def test_a_port_is_taken_while_another_listens_on_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^port {port} of .*Address already in use.*--port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_what_the_system_refuses_for_another_reason_is_not_called_taken() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1 .*\(Cannot assign requested address\)"):
        check_port("192.0.2.1", 8000)  # an address that no machine has
