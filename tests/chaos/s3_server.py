"""S3 on this machine, by moto; answers 500 to everything while a file is there.

python -m tests.chaos.s3_server HOST PORT FILE
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def main(host: str, port: str, failing: str) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    serves, fails = DomainDispatcherApplication(create_backend_app), Path(failing)

    def answer(request: dict[str, Any], begin: Callable[..., Any]) -> Any:
        if not fails.exists():
            return serves(request, begin)
        request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
        begin("500 Internal Server Error", [("Content-Length", "0")])
        return [b""]

    run_simple(host, int(port), answer, threaded=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
