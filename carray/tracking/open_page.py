"""Waits until MLflow's server answers, then says where, and opens the page in the browser.

Run beside the server: `python -m carray.tracking.open_page ADDRESS PAGE [browser]`.
"""

from __future__ import annotations

import sys
import time
import urllib.request
import webbrowser
from urllib.error import URLError

PATIENCE_SECONDS = 600.0  # a busy machine takes minutes


def wait_for(address: str, patience_seconds: float = PATIENCE_SECONDS) -> bool:
    """Wait until a server answers at `address`; return whether it did."""
    end = time.monotonic() + patience_seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return True
        except (URLError, OSError):
            time.sleep(0.3)
    return False


def main(address: str, page: str, browser: bool) -> None:
    """Wait, say the page, and open it where a browser is asked for."""
    start = time.monotonic()
    if not wait_for(address):
        _say(f"MLflow doesn't answer at {address} after {PATIENCE_SECONDS:.0f} s")
        return
    url = f"{address}/{page}"
    _say(f"MLflow answers after {time.monotonic() - start:.0f} s: {url}")
    if browser:
        webbrowser.open(url)


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "browser" in sys.argv[3:])
