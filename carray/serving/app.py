"""The HTTP interface: `/v1/predict`, `/v1/models`, health, metrics, and the page at `/`."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.security.utils import get_authorization_scheme_param
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from carray.inference.level_answers import SURE
from carray.serving.answers import Answer, ModelCard, Problem, image_answer
from carray.serving.gauges import Gauges
from carray.serving.limits import Limits, Refused
from carray.serving.rate import Rate
from carray.serving.served import Asked, Said, ServedModel, Version
from carray.serving.uploads import Upload, decode, read_body, uploads_of

_logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page.html")
WATCH_SECONDS = 5.0
AskedLevel = Literal["auto", "make", "model", "generation", "body", "year"]
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_TEXTS = {"type": "array", "items": {"type": "string", "format": "byte"}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "properties": {"images": _FILES}}},
            "application/json": {"schema": {"type": "object", "properties": {"images": _TEXTS}}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 413, 415, 422, 429, 503)
}


def build_app(
    models: Mapping[str, ServedModel],
    gauges: Gauges,
    limits: Limits,
    token: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
) -> FastAPI:
    """Return the application that answers for `models`, by name; the first one if none is asked.

    Args:
        models: what is served.
        gauges: what Prometheus reads.
        limits: what is refused.
        token: what `Authorization: Bearer` must be; None asks nobody.
        hosts: names by which the server may be called, `*` for all: a page elsewhere must not
            reach a server on this machine by a name of its own.
    """

    def measure() -> None:
        for name, served in models.items():
            version = served.current
            gauges.waits(name, version.batcher.waiting)
            if version.reliability:
                gauges.drifts(name, version.model.classes, version.reliability.train_counts)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(_watch(list(models.values()), measure))
        yield
        watching.cancel()
        for served in models.values():
            await run_in_threadpool(served.close)

    app = FastAPI(
        title="carray",
        version="1",
        description="Classes of photographs, with calibrated probabilities.",
        lifespan=life,
        docs_url=None,  # its scripts come from elsewhere
        redoc_url=None,
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.exception_handler(Refused)
    async def refuse(request: Request, refused: Refused) -> JSONResponse:
        headers = {"Retry-After": str(refused.retry_after)} if refused.retry_after else {}
        if refused.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"detail": refused.why}, refused.status, headers)

    @app.exception_handler(RequestValidationError)
    async def explain(request: Request, error: RequestValidationError) -> JSONResponse:
        said = "; ".join(
            f"{each['loc'][-1]}={each.get('input')!r}: {each['msg'].lower()}"
            for each in error.errors()
        )
        return JSONResponse({"detail": said}, 422)

    @app.exception_handler(HTTPException)
    async def lead_on(request: Request, error: HTTPException) -> JSONResponse:
        what = f"{request.method} {request.url.path[:80]}"
        why = f"{what} is not answered here: /openapi.json tells what is"
        return JSONResponse({"detail": why}, error.status_code, error.headers)

    def allow(request: Request) -> None:
        scheme, given = get_authorization_scheme_param(request.headers.get("authorization"))
        is_right = hmac.compare_digest(given.encode(), (token or "").encode())
        if token is not None and not (is_right and scheme.lower() == "bearer"):
            raise Refused(401, "this server wants its token: send `Authorization: Bearer TOKEN`")

    def chosen(model: str | None) -> ServedModel:
        if model is None:
            return next(iter(models.values()))
        if model not in models:
            raise Refused(404, f"there is no model {model!r} here: ask {', '.join(models)}")
        return models[model]

    known, rate = [Depends(allow)], Rate(limits.rate_per_minute)

    @app.post(
        "/v1/predict", openapi_extra=BODY, responses=PROBLEMS, dependencies=known, tags=["Predict"]
    )
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="Default: the first.")] = None,
        top: Annotated[int, Query(ge=1, le=1000, description="Classes an image.")] = 5,
        heat: Annotated[bool, Query(description="Show where the model looked.")] = False,
        neighbours: Annotated[
            int, Query(ge=0, le=12, description="Nearest training images, where they are kept.")
        ] = 0,
        level: Annotated[
            AskedLevel | None,
            Query(
                description="Answer at this level of the classes' names; `auto`: at the deepest "
                "that is sure."
            ),
        ] = None,
        threshold: Annotated[
            float | None,
            Query(
                ge=0,
                le=1,
                description=f"From which probability on a level is sure; default: {SURE:g} of "
                "`auto`, else any.",
            ),
        ] = None,
    ) -> Answer:
        """Name the classes of one or several images."""
        start, status = time.perf_counter(), 500
        try:
            rate.take(request.client.host if request.client else "")
            served = chosen(model)
            served.current.reader(level, threshold)  # before the images are looked at
            length = request.headers.get("content-length")
            body = await read_body(request.stream(), length, limits.request_bytes)
            uploads = await uploads_of(body, request.headers, limits)
            version, answers = await _ask(served, uploads, limits, heat, neighbours)
            name, reader = version.name, version.reader(level, threshold)
            said = [
                image_answer(upload.name, each, version, top, reader)
                for upload, each in zip(uploads, answers, strict=True)
            ]
            for each in said:
                gauges.answered(name, each.classes[0].name, bool(each.unknown))
            status = 200
            took = 1000 * (time.perf_counter() - start)
            return Answer(
                model=name, version=version.number, images=said, milliseconds=round(took, 2)
            )
        except Refused as refused:
            status = refused.status
            raise
        finally:
            gauges.requested(status, time.perf_counter() - start)

    @app.get(
        "/v1/models", dependencies=known, responses={401: {"model": Problem}}, tags=["Predict"]
    )
    async def list_models() -> list[ModelCard]:
        """List what can be asked."""
        found = [served.current for served in models.values()]
        return [
            ModelCard(
                name=each.name,
                version=each.number,
                classes=list(each.model.classes),
                what=each.model.card.what,
                knows_unknown=bool(each.reliability and each.reliability.energy_limit is not None),
                has_neighbours=each.neighbours is not None,
                levels=each.levels.parts.levels if each.levels else (),
                is_calibrated=each.is_calibrated,
            )
            for each in found
        ]

    @app.get("/metrics", dependencies=known, response_class=Response, tags=["Operate"])
    async def metrics() -> Response:
        """Give Prometheus its counters."""
        measure()
        return Response(gauges.text(), media_type="text/plain; version=0.0.4")

    @app.get("/healthz", tags=["Operate"])
    async def healthz() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["Operate"], responses={503: {"model": Problem}})
    async def readyz() -> dict[str, str]:
        """Say that requests are taken: models are loaded, and the queues aren't full."""
        for name, served in models.items():
            if served.current.batcher.waiting >= limits.waiting:
                raise Refused(503, f"the queue of {name} is full", limits.retry_after_seconds)
        return {"status": "ready"}

    page = PAGE.read_text(encoding="utf-8").replace("{{token}}", "yes" if token else "no")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers=SECURITY)

    app.openapi()  # kept: what is taken beside needs no description
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods == {"GET"}:
            route.methods = {"GET", "HEAD"}  # as load balancers ask
    return app


async def _ask(
    served: ServedModel, uploads: Sequence[Upload], limits: Limits, heat: bool, neighbours: int
) -> tuple[Version, list[Said]]:
    """Return the version that answered, and what it said of each image.

    One that was replaced while images were decoded has its successor asked.
    """
    while True:
        version = served.current
        squares = [
            await run_in_threadpool(decode, upload, version.model, limits) for upload in uploads
        ]
        try:
            futures = version.batcher.submit([Asked(each, heat, neighbours) for each in squares])
        except Refused:
            if version is served.current:
                raise
            continue
        return version, [await asyncio.wrap_future(future) for future in futures]


async def _watch(models: Sequence[ServedModel], measure: Callable[[], None]) -> None:
    """Look now and then whether there is a newer version; one that can't be read is passed over.

    Why it can't is logged, once for each reason.
    """
    told = set()
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        measure()
        for served in models:
            try:
                if await run_in_threadpool(served.refresh):
                    version = served.current
                    _logger.info(f"model {version.name}, version {version.number} answers now")
            except Exception as error:  # of a file that somebody wrote anything may be said
                if str(error) not in told:
                    told.add(str(error))
                    _logger.warning(f"a newer {served.current.name} isn't taken: {error}")
