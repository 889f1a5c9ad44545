"""The services of a study, on this machine: S3, MLflow, and Postgres where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.nodes import HOST, REPOSITORY, command

S3_PORT, MLFLOW_PORT, POSTGRES_PORT = 9777, 9778, 9779
BUCKET = "chaos"
ACCOUNT = "postgres"  # Postgres refuses to run as root
KEYS = {
    "AWS_ACCESS_KEY_ID": "chaos",
    "AWS_SECRET_ACCESS_KEY": "planted-key",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": f"http://{HOST}:{S3_PORT}",
}
PASSWORD = "planted-password"
START_SECONDS = 120


class Services:
    """Started on entry, ended on exit; `environment` says to a node where they are."""

    def __init__(self, folder: Path, mlflow_in_postgres: bool = False) -> None:
        self._folder, self._mlflow_in_postgres = folder, mlflow_in_postgres
        self.s3_fails = folder / "s3-fails"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.postgres = Postgres(folder / "postgres") if Postgres.why_not() == "" else None

    def __enter__(self) -> Services:
        self._folder.mkdir(parents=True)
        fails = str(self.s3_fails)
        words = [sys.executable, "-m", "tests.chaos.s3_server", HOST, str(S3_PORT), fails]
        self._start("s3", words)
        if self.postgres:
            self.postgres.start()
        store = f"sqlite:///{self._folder / 'mlflow.db'}"
        if self._mlflow_in_postgres and self.postgres:
            store = self.postgres.url("mlflow").replace("postgresql:", "postgresql+psycopg:", 1)
        places = ["--backend-store-uri", store, "--artifacts-destination", f"{self._folder}/files"]
        here = ["--host", HOST, "--port", str(MLFLOW_PORT), "--workers", "1"]
        self._start("mlflow", [*command("mlflow"), "server", *places, *here])
        for url in (KEYS["AWS_ENDPOINT_URL"], self.mlflow):
            _wait_for(url)
        os.environ |= KEYS
        import boto3

        boto3.client("s3").create_bucket(Bucket=BUCKET)
        return self

    def __exit__(self, *error: object) -> None:
        if self.postgres:
            self.postgres.stop()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()

    @property
    def mlflow(self) -> str:
        return f"http://{HOST}:{MLFLOW_PORT}"

    def environment(self) -> dict[str, str]:
        return KEYS | {"MLFLOW_TRACKING_URI": self.mlflow}

    def _start(self, name: str, words: Sequence[str]) -> None:
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment = os.environ | KEYS | quiet | {"PYTHONPATH": str(REPOSITORY)}
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                words, env=environment, cwd=self._folder, stdout=log, stderr=subprocess.STDOUT
            )
        self._processes.append(process)


class Postgres:
    """A server in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def why_not() -> str:
        """Say why there is none; "" where it can be started."""
        lacking = [name for name in ("initdb", "pg_ctl", "runuser") if not shutil.which(name)]
        if lacking:
            return f"{', '.join(lacking)} not found"
        is_there = subprocess.run(["id", ACCOUNT], capture_output=True).returncode == 0
        return "" if is_there else f"no account {ACCOUNT!r}"

    def start(self) -> None:
        self._folder.mkdir(parents=True)
        for above in (self._folder, *self._folder.parents[:2]):
            above.chmod(0o755)
        shutil.chown(self._folder, ACCOUNT)
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        shutil.chown(secret, ACCOUNT)
        login = ["--username=carray", f"--pwfile={secret}", "--auth=scram-sha-256"]
        self._as_account("initdb", "--no-sync", *login, "-D", f"{self._folder}/data")
        with (self._folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.77.0.0/24 scram-sha-256\n")
        self._control("start")

    def url(self, study: str) -> str:
        """Make a database; return its address."""
        import psycopg

        server = f"postgresql://carray:{PASSWORD}@{HOST}:{POSTGRES_PORT}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f'create database "{study}"')
        return f"{server}/{study}"

    def stop(self) -> None:
        self._control("stop", "-m", "immediate")

    def go_on(self) -> None:
        self._control("start")

    def _control(self, *words: str) -> None:
        socket = f"-k {self._folder} -c listen_addresses={HOST} -c port={POSTGRES_PORT}"
        more = ["-o", f"{socket} -c fsync=off", "-l", f"{self._folder}/log"]
        more = more if words[0] == "start" else []
        self._as_account("pg_ctl", "-w", "-D", f"{self._folder}/data", *more, *words)

    def _as_account(self, *words: str) -> None:
        subprocess.run(
            ["runuser", "-u", ACCOUNT, "--", *words],
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
        )


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
