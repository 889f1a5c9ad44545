"""The command line: parse, one typed call, print, exit code. Nothing is computed here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from carray.errors import CarrayError

USAGE_ERROR = 2  # exit code of everything a user can mend
INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    from carray.cli.app import app

    run(app)


def run(command: Callable[[], None]) -> None:
    """Run what a person started; a `CarrayError` becomes one red sentence and exit code 2."""
    try:
        command()
    except CarrayError as error:
        from rich.console import Console

        Console(stderr=True, width=None).print(
            f"carray: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(USAGE_ERROR)
    except KeyboardInterrupt:
        _leave()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            _leave()
        raise


def _leave() -> NoReturn:
    """Exit with 130, and without the ten seconds that Ray's threads take to unwind."""
    sys.stdout.flush()
    sys.stderr.flush()
    if "ray" in sys.modules:
        os._exit(INTERRUPTED)
    sys.exit(INTERRUPTED)
