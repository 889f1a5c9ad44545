"""The wait for the server that shows a study's trials."""

from __future__ import annotations

import http.server
import threading

import pytest

from carray.tracking.open_page import main, wait_for


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


def test_the_page_is_said_once_the_server_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        main(address, "#/experiments/7/runs", browser=False)
        server.shutdown()
    assert f"{address}/#/experiments/7/runs" in capsys.readouterr().out


def test_a_server_that_never_answers_is_not_waited_for_for_ever() -> None:
    assert not wait_for("http://127.0.0.1:9", patience_seconds=0.5)
