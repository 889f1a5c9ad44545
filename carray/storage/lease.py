"""`Lease`: who works on what lies at a URL; one machine at a time, as a lock file is for one disk.

The holder writes a beat now and then. Whoever comes later waits for one: a holder that lives is
left alone, one that has gone is succeeded. Only beats are compared, so no two clocks are.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from carray.errors import StorageError
from carray.storage.remote import RemoteFolder

BEAT_SECONDS = 10.0
LOST_SECONDS = 35.0  # without a beat: the holder has gone
LOOK_SECONDS = 1.0


class Holder(BaseModel):
    """Who holds a lease, as written at its URL."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    id: str
    host: str = ""
    beat: int = 0
    has_ended: bool = False
    """Whether the holder gave it back."""


class Lease:
    """A file at a URL that says who works there."""

    def __init__(self, remote: RemoteFolder, name: str) -> None:
        self._remote, self._name = remote, name

    def holder(self) -> Holder | None:
        """Return who holds it, or held it last; None where nobody ever did."""
        content = self._remote.read(self._name)
        try:
            return None if content is None else Holder.model_validate_json(content)
        except ValidationError:
            return None  # torn by whoever was killed

    def is_alive(self, holder: Holder, lost_seconds: float | None = None) -> bool:
        """Wait for a sign of life of `holder`; False where it gave the lease back, or has gone."""
        deadline = time.monotonic() + (LOST_SECONDS if lost_seconds is None else lost_seconds)
        while not holder.has_ended and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            now = self.holder()
            if now is None or now.has_ended:
                return False
            if (now.id, now.beat) != (holder.id, holder.beat):
                return True
        return False

    @contextmanager
    def held(self, on_lost: Callable[[Holder], None]) -> Iterator[Holder]:
        """Hold it, with a beat every `BEAT_SECONDS`; `on_lost` is told of who took it meanwhile.

        A beat that can't be written is left out.
        """
        own = Holder(id=uuid.uuid4().hex, host=socket.gethostname())
        self._write(own)
        is_over = threading.Event()
        beating = threading.Thread(target=self._beat, args=(own, is_over, on_lost), daemon=True)
        beating.start()
        try:
            yield own
        finally:
            is_over.set()
            beating.join()

    def _beat(
        self, own: Holder, is_over: threading.Event, on_lost: Callable[[Holder], None]
    ) -> None:
        beat = 0
        while True:
            has_ended = is_over.wait(BEAT_SECONDS)
            beat += 1
            try:
                now = self.holder()
                if now is not None and now.id != own.id:
                    on_lost(now)
                    return
                self._write(own, beat=beat, has_ended=has_ended)
            except StorageError:
                pass  # uploads say so, and the next beat may do
            if has_ended:
                return

    def _write(self, own: Holder, **changes: Any) -> None:
        text = json.dumps(own.model_copy(update=changes).model_dump())
        self._remote.write(self._name, text.encode())
