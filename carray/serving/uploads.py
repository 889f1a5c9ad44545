"""Bytes from strangers to squares: looked at before they are decoded, refused in one sentence."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from carray.data.pixels.decode import UnreadableImage
from carray.inference.predictor import Geometry, Model, Square, squares_of
from carray.serving.limits import FORMATS, Limits, Refused

BOMB = "it is {width} x {height} pixels, at most {most:,} are decoded: send a smaller one"
KINDS = "send a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF image"


@dataclass(frozen=True)
class Upload:
    """An image as it came."""

    name: str
    data: bytes


async def read_body(chunks: AsyncIterator[bytes], length: str | None, most: int) -> bytes:
    """Return a request's body, read no further than is allowed.

    Raises:
        Refused: 413, it is too large.
    """
    why = f"the request is over {most:,} bytes: send fewer or smaller images"
    if length and length.isdigit() and int(length) > most:
        raise Refused(413, why)
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > most:
            raise Refused(413, why)
    return bytes(body)


async def uploads_of(body: bytes, headers: Mapping[str, str], limits: Limits) -> list[Upload]:
    """Return the images of a body: multipart fields, JSON of base64, or an image as it is.

    Raises:
        Refused: 415 for another content type, 400 for a body that is none of its own, 422 without
            images or with a file's name that leads elsewhere, 413 for too many or too large ones.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = await _of_multipart(body, headers, limits)
    elif kind == "application/json":
        found = _of_json(body)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        found = [Upload("image", body)]
    else:
        raise Refused(
            415, f"content type {kind!r} isn't read: send multipart/form-data, JSON or an image"
        )
    if not found:
        raise Refused(422, "there is no image in the request: name the field or the key `images`")
    if len(found) > limits.images:
        raise Refused(413, f"{len(found)} images are more than the {limits.images} of a request")
    for upload in found:
        if not _is_harmless(upload.name):
            raise _refused(422, upload, "its name leads elsewhere: send a file's name alone")
    return found


def _is_harmless(name: str) -> bool:
    """Say whether a name can't lead out of a folder, whoever reads the answer and writes to it."""
    parts = name.replace("\\", "/").split("/")
    return name.isprintable() and ".." not in parts and parts[0] != ""


async def _of_multipart(body: bytes, headers: Mapping[str, str], limits: Limits) -> list[Upload]:
    from starlette.datastructures import Headers, UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = MultiPartParser(
        Headers(dict(headers)), stream(), max_files=10 * limits.images, max_fields=limits.images
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise Refused(400, f"the form can't be read: {error}") from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        return [Upload(file.filename or "image", await file.read()) for file in files]
    finally:
        await form.close()


def _of_json(body: bytes) -> list[Upload]:
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, 'the body is no JSON: send {"images": ["BASE64", ...]}') from None
    texts = found.get("images") if isinstance(found, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refused(422, '`images` must be a list of texts: {"images": ["BASE64", ...]}')
    return [Upload(f"image {place}", _of_base64(text, place)) for place, text in enumerate(texts)]


def _of_base64(text: str, place: int) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, f"image {place} isn't base64: encode the file's bytes") from None


def decode(upload: Upload, model: Model, limits: Limits) -> dict[Geometry, Square]:
    """Return an image as the squares that a model's members see.

    Raises:
        Refused: 413 where it is too large, 415 where it is no image of a known kind, 422 where it
            is broken; the image is named.
    """
    if len(upload.data) > limits.image_bytes:
        raise _refused(413, upload, f"it is over {limits.image_bytes:,} bytes: send a smaller one")
    _check_header(upload, limits)
    geometries = {member.geometry for member in model.members}
    try:
        return squares_of(upload.data, None, 0.0, geometries)
    except UnreadableImage as error:
        raise _refused(422, upload, f"{error}: send it again, or another") from None


def _check_header(upload: Upload, limits: Limits) -> None:
    if not upload.data:
        raise _refused(422, upload, "it is empty: send the file's bytes")
    try:
        with Image.open(io.BytesIO(upload.data), formats=FORMATS) as image:
            width, height = image.size
    except Exception:  # Pillow's readers raise whatever a broken file makes them
        raise _refused(415, upload, f"it is no image that can be read: {KINDS}") from None
    if width * height > limits.pixels:
        raise _refused(413, upload, BOMB.format(width=width, height=height, most=limits.pixels))


def _refused(status: int, upload: Upload, why: str) -> Refused:
    return Refused(status, f"{upload.name[:80]!r} can't be answered: {why}")
