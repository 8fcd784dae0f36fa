"""Errors as the API tells them: a status and `{"message", "detail", "validations"}`, always as JSON.

Clients show an error only when it is JSON; they compare few texts, and those stand here as constants.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocketState

from coder.errors import CoderError

log = structlog.get_logger(__name__)

DATABASE_UNREACHABLE = "database not reachable"
"""Compared by clients that dial the coordinate socket."""
_DATABASE_REMEDIES = {
    "database or disk is full": "The disk of the server's state directory is full; its administrator must make room.",
    "database is locked": "Another program holds the server's database; try again when it is done.",
}
"""By what the database says."""
UNSUPPORTED_VERSION = "Unknown or unsupported API version"
"""Compared by clients and agents."""
RESUME_FIELD = "resume_token"
"""Clients whose 401 names this field in a validation dial again without the token."""

_TOO_LARGE = "The request body is too large."
_GOING_AWAY = 1001  # RFC 6455, section 7.4.1


class Json(JSONResponse):
    """JSON as the protocol labels it."""

    media_type = "application/json; charset=utf-8"


class Problem(Exception):  # noqa: N818  it is an answer, told to a client
    """An answer that refuses. `validations` are pairs of a field and what is wrong with it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        detail: str = "",
        validations: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.detail = detail
        self.validations = tuple(validations)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return what the answer says."""
        body: dict[str, Any] = {"message": self.message}
        if self.detail:
            body["detail"] = self.detail
        if self.validations:
            body["validations"] = [{"field": field, "detail": detail} for field, detail in self.validations]
        return body

    def response(self) -> Json:
        """Return the answer itself."""
        return Json(self.body(), self.status, self.headers)


def not_found() -> Problem:
    """Return the answer for what is not there, and for what the caller may not know of: one cannot tell which."""
    return Problem(404, "There is no such resource, or you have no access to it.")


def invalid(*validations: tuple[str, str]) -> Problem:
    """Return the answer for a request with unusable fields."""
    return Problem(400, "The request is not valid.", validations=validations)


def forbidden(detail: str) -> Problem:
    """Return the answer for what this caller may not do."""
    return Problem(403, "Forbidden.", detail=detail)


def too_large() -> Problem:
    """Return the answer for a body of more bytes than are read."""
    return Problem(413, _TOO_LARGE)


def upgrade_required() -> Problem:
    """Return the answer for a plain request to a route that is a WebSocket."""
    return Problem(426, "This route is a WebSocket.", headers={"Upgrade": "websocket"})


def too_many(message: str, seconds: float) -> Problem:
    """Return the answer for who asked too often and may ask again in so many seconds."""
    whole = int(seconds) + 1
    return Problem(429, f"{message} Wait {whole} seconds.", headers={"Retry-After": str(whole)})


def install(app: FastAPI) -> None:
    """Make the app answer every kind of error this way."""
    handlers: dict[type[Exception], Any] = {
        Problem: _on_problem,
        CoderError: _on_coder_error,
        RequestValidationError: _on_validation,
        WebSocketRequestValidationError: _on_validation,
        HTTPException: _on_http,
        OperationalError: _on_database,
        UnicodeEncodeError: _on_half_a_character,
        Exception: _on_exception,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _answer(connection: HTTPConnection, problem: Problem) -> Response | None:
    """Return the answer; a WebSocket that is open already can only be closed."""
    if isinstance(connection, WebSocket) and connection.application_state is not WebSocketState.CONNECTING:
        await connection.close(_GOING_AWAY)
        return None
    return problem.response()


async def _on_problem(connection: HTTPConnection, problem: Exception) -> Response | None:
    assert isinstance(problem, Problem)
    return await _answer(connection, problem)


async def _on_coder_error(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, CoderError)
    return await _answer(connection, Problem(error.status, error.message, detail=error.remedy))


async def _on_validation(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, (RequestValidationError, WebSocketRequestValidationError))
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return await _answer(connection, Problem(400, "The request body must be JSON.", detail=_json_fault(faults)))
    return await _answer(connection, invalid(*((_field(fault), str(fault["msg"])) for fault in faults)))


def _json_fault(faults: Sequence[Any]) -> str:
    return str(faults[0].get("ctx", {}).get("error", ""))


def _field(fault: Any) -> str:
    return ".".join(str(part) for part in fault["loc"][1:]) or str(fault["loc"][0])


async def _on_http(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, HTTPException)
    message = {
        404: "Route not found.",
        405: "This route does not take that method.",
        413: _TOO_LARGE,
    }.get(error.status_code, error.detail)
    return await _answer(connection, Problem(error.status_code, message, headers=error.headers))


async def _on_database(connection: HTTPConnection, error: Exception) -> Response | None:
    cause = str(getattr(error, "orig", None) or error)
    log.error("database.failed", fault=cause)
    return await _answer(connection, Problem(500, DATABASE_UNREACHABLE, detail=_DATABASE_REMEDIES.get(cause, "")))


async def _on_half_a_character(connection: HTTPConnection, _error: Exception) -> Response | None:
    # JSON can hold one half of a surrogate pair (RFC 8259, section 8.2), which is no text that could be kept.
    return await _answer(connection, Problem(400, "The request holds text that is not Unicode."))


async def _on_exception(request: Request, _error: Exception) -> Response:
    number = getattr(request.state, "request_id", "")
    return Problem(500, "The server failed at this.", detail=f"The log has it under request {number}.").response()
