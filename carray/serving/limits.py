"""How much a server takes: of a request, of an image, and of requests that wait."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What is refused, and how images are gathered into batches."""

    image_bytes: int = 20 * MIB
    request_bytes: int = 64 * MIB
    images: int = 16
    """Of one request."""
    pixels: int = 50_000_000
    """Of one image, decoded: a small file may claim to be a huge image."""
    waiting: int = 64
    """Images that may wait for their turn; those of later requests are refused with 429."""
    batch: int = 32
    batch_on_cpu: int = 8
    """More gain nothing on a CPU, and fall out of its caches: 8 images of 128 px took a fifth less
    CPU time each than 32."""
    batch_wait_seconds: float = 0.004
    """How long the first image of a batch waits for others."""
    retry_after_seconds: int = 1
    rate_per_minute: int = 0
    """Requests to predict of one client's address; 0: as many as come."""


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO")
"""Pillow's names; its others include scripts that are run to be decoded."""


class Refused(Exception):
    """A request that is not answered: an HTTP status and one sentence."""

    def __init__(self, status: int, why: str, retry_after: int = 0) -> None:
        super().__init__(why)
        self.status, self.why, self.retry_after = status, why, retry_after
