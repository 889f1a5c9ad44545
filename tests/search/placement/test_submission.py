"""`carray submit`: what goes with a job, and what doesn't."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from carray.cli.app import app
from carray.errors import ConfigError, PlanError
from carray.search.placement.submission import Package, packed, submit


def test_code_and_small_files_travel_and_every_option_reaches_the_job(tmp_path: Path) -> None:
    space = tmp_path / "my space.yaml"
    space.write_text("version: 1")
    words = [f"--space={space}", "--trials", "9", "--start-from", "autumn", "--set", "epochs=3"]
    with packed("s3://bucket/cars", words) as package:
        names = [name for _, name in package.files]
        assert "carray/cli/app.py" in names
        assert "search_spaces/quick.yaml" in names
        assert (package.folder / space.name).read_text() == "version: 1"
        assert not any("__pycache__" in name for name in names)
        assert package.lines()[0].startswith(f"sends {len(names)} files, ")
        assert package.entrypoint == (
            "python -m carray tune s3://bucket/cars --space 'my space.yaml' --trials 9 "
            '--start-from autumn --set epochs=3 --runs "${CARRAY_RUNS:-$HOME/carray}"'
        )
    assert not package.folder.exists()
    with packed("/abs/cars", ["--runs", "s3://bucket/runs"]) as package:
        assert package.entrypoint.endswith("tune /abs/cars --runs s3://bucket/runs")


@pytest.mark.parametrize(
    ("data", "words", "refused"),
    [
        ("cars", [], "the data set 'cars' doesn't travel with a job"),
        ("/abs/cars", ["--runs", "runs"], "--runs 'runs' doesn't travel with a job"),
        ("/abs/cars", ["--weights=weights"], "--weights 'weights' doesn't travel with a job"),
        ("/abs/cars", ["--start-from", "FOLDER"], "is a folder, which doesn't travel with a job"),
        ("/abs/cars", ["--space", "LARGE"], "what travels with a job at most 16"),
    ],
)
def test_folders_of_this_machine_are_refused(
    data: str, words: list[str], refused: str, tmp_path: Path
) -> None:
    (tmp_path / "FOLDER").mkdir()
    with (tmp_path / "LARGE").open("wb") as large:
        large.truncate(2**25)
    there = [str(tmp_path / word) if word in ("FOLDER", "LARGE") else word for word in words]
    with pytest.raises(ConfigError, match=refused), packed(data, there):
        pass


def test_the_command_says_what_it_would_send_and_refuses_what_tune_would() -> None:
    told = CliRunner().invoke(app, ["submit", "http://h:8265", "/cars", "--just-pack", "--refit=3"])
    assert told.exit_code == 0, told.output
    assert "runs: python -m carray tune /cars --refit=3" in told.output
    wrong = CliRunner().invoke(app, ["submit", "http://h:8265", "/cars", "--refits", "3"])
    assert wrong.exit_code == 2
    assert "--refits" in wrong.output


class Refusal(http.server.BaseHTTPRequestHandler):
    """A head that wants a token."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"Unauthorized")

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_missing_token_is_called_that_and_silence_too(
    refusing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)  # a Ray that this process started sets it
    package = Package(tmp_path, "true")
    with pytest.raises(PlanError, match="asks for a token, and got none: copy the head's"):
        submit(refusing, package)
    with pytest.raises(PlanError, match=r"no job can be sent to http://127\.0\.0\.1:9 "):
        submit("http://127.0.0.1:9", package)
