"""The page of a study's trials, and the wait for the server that shows it."""

from __future__ import annotations

import http.server
import threading
from urllib.parse import parse_qs

import pytest

from carray.tracking.open_page import comparison_page, main, wait_for


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


def test_a_studys_page_has_its_trials_the_best_first() -> None:
    page = comparison_page("7", "val/top1", ascending=False)
    assert page.startswith("#/experiments/7/runs?")
    asked = {name: value for name, (value,) in parse_qs(page.partition("?")[2]).items()}
    assert asked["searchFilter"] == "tags.`carray.kind` = 'search'"
    assert asked["orderByKey"] == "metrics.`best/val/top1`"
    assert asked["orderByAsc"] == "false"


def test_the_page_is_said_once_the_server_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        main(address, "#/experiments/7/runs", browser=False)
        server.shutdown()
    assert f"{address}/#/experiments/7/runs" in capsys.readouterr().out


def test_a_server_that_never_answers_is_not_waited_for_for_ever() -> None:
    assert not wait_for("http://127.0.0.1:9", patience_seconds=0.5)
