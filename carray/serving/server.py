"""`serve_models`: load, check who may ask, say where, and answer until Ctrl-C."""

from __future__ import annotations

import ipaddress
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carray.data.label_parts import AUTO
from carray.errors import ConfigError, counted
from carray.extras import check_extra
from carray.ports import check_port
from carray.runs_folder import RunsFolder
from carray.serving.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

    from carray.serving.gauges import Meters

LEAST_TOKEN = 16
DEFAULT = Limits()

_logger = logging.getLogger(__name__)


def serve_models(
    models: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: str | os.PathLike[str] | None = None,
    limits: Limits = DEFAULT,
    device: str | None = None,
    label_parts: str = AUTO,
    runs: str | os.PathLike[str] | None = None,
) -> None:
    """Answer for models at `http://HOST:PORT` until Ctrl-C.

    Args:
        models: package names or folders, or trials (`STUDY/NUMBER`); a name alone is served in its
            newest version, a newer one is taken while requests come.
        host: the address to listen on; one that others reach needs a token.
        port: where to listen.
        token_file: a file that holds the token which requests must send.
        limits: what is refused.
        device: a torch device; None takes the GPU where there is one.
        label_parts: how make, model and year are read from class names, as for `predict`.
        runs: the runs folder.

    Raises:
        ConfigError: the address is taken, is open to others without a token, a model is named
            twice, or a library is missing.
        RecordError: there is no such model.
    """
    check_extra(("fastapi", "uvicorn", "python_multipart", "prometheus_client"), "serve")
    import uvicorn

    token = read_token(token_file)
    check_address(host, port, token)
    is_open = not is_loopback(host)
    app = build_service(
        models,
        limits=limits,
        token=token,
        is_open=is_open,
        device=device,
        label_parts=label_parts,
        runs=runs,
    )
    shown = f"[{host}]" if ":" in host else host
    _logger.info(f"open http://{shown}:{port}/  (API: /v1/predict, /openapi.json; Ctrl-C ends it)")
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=30)


def build_service(
    models: Sequence[str],
    *,
    limits: Limits,
    token: str | None,
    is_open: bool,
    device: str | None,
    label_parts: str = AUTO,
    runs: str | os.PathLike[str] | None,
    meters: Meters | None = None,
) -> FastAPI:
    """Load models, and return the application that answers for them.

    Args:
        models: as for `serve_models`, and so are all others.
        limits: what is refused.
        token: what requests must send; None: nothing.
        is_open: whether it may be called by any host's name, not only by those of this machine.
        device: a torch device.
        label_parts: as for `serve_models`.
        runs: the runs folder.
        meters: what keeps the figures that Prometheus reads; None: this process.

    Raises:
        ConfigError: a model is named twice.
        RecordError: there is no such model.
    """
    from carray.serving.app import LOOPBACK, build_app
    from carray.serving.gauges import Gauges
    from carray.serving.served import ServedModel

    gauges, where = Gauges(meters), RunsFolder.at(runs)
    served = [
        ServedModel(where, name, limits, device, gauges.batched, label_parts) for name in models
    ]
    by_name = {each.current.name: each for each in served}
    if len(by_name) < len(served):
        raise ConfigError(
            f"{' '.join(models)} name one model twice, and requests ask by name: name it once"
        )
    for each in served:
        version = each.current
        _logger.info(
            f"model {version.name}, version {version.number}, "
            f"{counted(len(version.model.classes), 'class')}"
        )
    return build_app(by_name, gauges, limits, token, ("*",) if is_open else LOOPBACK)


def read_token(file: str | os.PathLike[str] | None) -> str | None:
    """Return the token of a file, without the space around it; warn where others can read it.

    Raises:
        ConfigError: the file can't be read, or what it holds is too short or no ASCII.
    """
    if file is None:
        return None
    try:
        token = Path(file).read_text(encoding="ascii").strip()
        is_open = Path(file).stat().st_mode & stat.S_IROTH
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {file} can't be read ({error}): write one") from None
    if len(token) < LEAST_TOKEN or any(letter.isspace() for letter in token):
        raise ConfigError(
            f"--token-file {file} must hold one word of at least {LEAST_TOKEN} letters: "
            f"python -c 'import secrets; print(secrets.token_urlsafe())' > {file}"
        )
    if is_open:
        _logger.warning(f"--token-file {file} can be read by every user here: chmod 600 {file}")
    return token


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(host: str, port: int, token: str | None) -> None:
    """Refuse an address that others reach without a token, or that can't be listened on.

    Raises:
        ConfigError: it is one of these.
    """
    if not is_loopback(host) and token is None:
        raise ConfigError(
            f"--host {host} is reached by others: give --token-file FILE, or leave --host out"
        )
    check_port(host, port)
