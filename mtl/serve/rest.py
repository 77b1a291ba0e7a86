"""REST on the page's port: POST /api/v1/analyze/multitask, GET /health, GET /openapi.json.

A FastAPI application of its own stands behind these addresses, so that every answer and every error there has one form;
its routes are handed to the page's server.
"""

import base64
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
import orjson
from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBasic
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.routing import Route

from mtl import __version__
from mtl.errors import DeviceError, PhotoError
from mtl.serve.answer import Chosen, Models, answer_photo, choose_model, photo_error
from mtl.serve.codes import CODES, RestError, busy, codes_of
from mtl.serve.schema import Answer, Error, Health, NoHealth, Parameters, Results, told
from mtl.serve.uploads import BODY, Upload, receive

log = logging.getLogger(__name__)

ANALYZE = "/api/v1/analyze/multitask"
JSON = "application/json"


@dataclass(frozen=True)
class RestLimits:
    """How much programs may ask for at once."""

    max_files: int = 100  # in one request
    max_request_bytes: int = 200_000_000  # held by the guards
    at_once: int = 2  # analyses
    waiting: int = 16  # requests beside those whose photos are being analysed


class Gate:
    """Lets in as many requests as may wait or be analysed; the others are refused at once."""

    def __init__(self, limits: RestLimits):
        self._most = limits.at_once + limits.waiting
        self._inside = 0
        self._analyses = anyio.CapacityLimiter(limits.at_once)  # first come, first served

    def check(self) -> None:
        if self._inside >= self._most:
            raise busy("too many photos wait here; send it again later")

    @contextmanager
    def entered(self) -> Iterator[None]:
        self.check()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def run(self, request: Request, work: Callable[[], bytes]) -> bytes:
        """In a thread, when its turn comes. Raises ClientDisconnect where nobody waits for it by then."""
        async with self._analyses:
            if await request.is_disconnected():
                raise ClientDisconnect
            return await run_sync(work)


Asked = Annotated[Parameters, Query()]


def rest_routes(models: Models, *, auth: tuple[str, str] | None, limits: RestLimits | None = None) -> list[Route]:
    """Routes for the page's server, before its own; `auth`: the user and password that each request must carry."""
    rest = rest_app(models, auth=auth, limits=limits or RestLimits())
    # All methods, so that a wrong one is refused in the form of all errors.
    return [Route(path, rest) for path in ("/health", "/openapi.json", "/api/v1/{path:path}")]


def rest_app(models: Models, *, auth: tuple[str, str] | None, limits: RestLimits) -> FastAPI:
    """The application behind the routes."""
    rest = FastAPI(
        title="Skin analysis",
        version=__version__,
        description="Skin and hair type and the lesion's mask from a photo. Research use: not a diagnosis.",
        dependencies=[Depends(_Password(*auth))] if auth else [],
        responses=_error_responses(401) if auth else {},
        openapi_url=None,  # it stands behind the password, as a route of its own
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_error_handlers(rest)
    _add_analyze(rest, models, limits)
    _add_health(rest, models)

    @rest.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        return _json(rest.openapi())

    return rest


# ---- analyze


def _add_analyze(rest: FastAPI, models: Models, limits: RestLimits) -> None:
    gate = Gate(limits)

    def chosen(asked: Asked) -> Chosen:
        return choose_model(models, asked.model)

    # Named as a dependency to come first: what is wrong is told before the photos are read.
    async def uploads(request: Request, _: Annotated[Chosen, Depends(chosen)]) -> AsyncIterator[list[Upload]]:
        gate.check()
        files = await receive(request, limits.max_files)
        try:
            with gate.entered():
                yield files
        finally:
            for upload in files:
                upload.file.close()

    @rest.post(
        ANALYZE,
        summary="Analyse photos",
        operation_id="analyze_multitask",
        openapi_extra={"requestBody": BODY},
        response_class=Response,
        responses={
            200: {"model": Answer | Results, "description": "one photo's answer; of several, the answers in a list"},
            **_error_responses(400, 403, 404, 405, 408, 413, 415, 422, 429, 500, 503),
        },
    )
    async def analyze(
        request: Request,
        asked: Asked,
        model: Annotated[Chosen, Depends(chosen)],
        files: Annotated[list[Upload], Depends(uploads)],
    ) -> Response:
        async def answer(upload: Upload) -> bytes:
            return await gate.run(request, lambda: _analyse(upload, model, asked))

        if len(files) == 1:
            return Response(await answer(files[0]), media_type=JSON)
        return StreamingResponse(_results(files, answer), media_type=JSON)


async def _results(files: list[Upload], answer: Callable[[Upload], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    """Each answer goes out when it is there: a hundred masks as lists would fill the memory."""
    for number, upload in enumerate(files):
        yield b'{"results":[' if number == 0 else b","
        try:
            yield await answer(upload)
        except RestError as error:
            yield orjson.dumps({"file": upload.name, **error.to_dict()})
        except ClientDisconnect:
            return
    yield b"]}"


def _analyse(upload: Upload, chosen: Chosen, asked: Parameters) -> bytes:
    """An answer as JSON; orjson writes the mask from its array."""
    try:
        answer = answer_photo(upload.file.read(), upload.name, chosen, asked)
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    except PhotoError as error:
        raise RestError("unreadable_photo", str(photo_error(error, upload.name))) from error
    except DeviceError as error:
        log.warning("REST: %s", error)
        raise busy("the device that analyses gave no answer; send it again later") from error
    except Exception as error:  # the edge of a request: told without details, and the other photos go on
        log.exception("REST: a photo could not be analysed")
        raise RestError("fault", "a fault of this program; the log of the server has it") from error


# ---- the password


class _Password(HTTPBasic):
    """HTTP Basic with one user; FastAPI's own takes ASCII passwords only."""

    def __init__(self, user: str, password: str):
        super().__init__(scheme_name="password", realm="Skin analysis")
        self._wanted = f"{user}:{password}".encode()

    async def __call__(self, request: HTTPConnection) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            credentials = base64.b64decode(given.strip(), validate=True) if scheme.lower() == "basic" else b""
        except ValueError:
            credentials = b""
        if not secrets.compare_digest(credentials, self._wanted):
            challenge = {"WWW-Authenticate": 'Basic realm="Skin analysis", charset="UTF-8"'}
            raise RestError(
                "unauthorized", "user and password are missing or wrong; send them as HTTP Basic", challenge
            )


# ---- health


def _add_health(rest: FastAPI, models: Models) -> None:
    @rest.get(
        "/health",
        summary="Whether photos can be analysed",
        operation_id="health",
        response_class=Response,
        responses={
            200: {"model": Health, "description": "they can, by this model"},
            **_error_responses(400, 403, 405),
            503: {"model": NoHealth, "description": f"no_model: {CODES['no_model'][1]}"},
        },
    )
    def health() -> Response:
        try:
            chosen = choose_model(models, None)
        except RestError as error:
            return _json({"status": "no model", "version": __version__, **error.to_dict()}, error.status)
        revision, classes = chosen.model.checkpoint.revision, chosen.model.config.classes.names
        model = {"name": chosen.name, "revision": revision, "classes": classes}
        return _json({"status": "ok", "model": model, "version": __version__})


# ---- errors


def _add_error_handlers(rest: FastAPI) -> None:
    @rest.exception_handler(RestError)
    async def refused(request: Request, error: RestError) -> Response:
        return error.response()

    @rest.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        return RestError("bad_parameter", told(error.errors())).response()

    @rest.exception_handler(HTTPException)
    async def not_routed(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            wanted = headers.get("Allow", "another method")
            return RestError("method_not_allowed", f"got {request.method}; needed: {wanted}", headers).response()
        return RestError("not_found", f"there is nothing here; photos go to {ANALYZE}").response()

    @rest.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @rest.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return RestError("fault", "a fault of this program; the log of the server has it").response()


def _error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the schema: the codes of each status."""
    return {status: {"model": Error, "description": codes_of(status)} for status in statuses}


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type=JSON)
