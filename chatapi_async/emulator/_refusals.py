"""How the emulator says no: HTTP errors, in the shape that the service sends."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class RefusedError(Exception):
    """The request is answered with an HTTP error."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = {"message": message} if code is None else {"message": message, "code": code}


def refused(error: RefusedError) -> Response:
    """Return the response that says so."""
    return JSONResponse(error.body, error.status, error.headers)


def _refuse(_: Request, error: Exception) -> Response:
    if not isinstance(error, RefusedError):
        raise error
    return refused(error)


def _refuse_route(http: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    message = f"there is no {http.method} {http.scope['path']}"
    if error.status_code == 405:
        message = f"{http.method} is not allowed here; use POST"
    return JSONResponse({"message": message}, error.status_code, headers=error.headers)


def _report_fault(_: Request, error: Exception) -> Response:
    return JSONResponse({"message": f"the emulator failed: {type(error).__name__}"}, 500)


HANDLERS = {RefusedError: _refuse, HTTPException: _refuse_route, Exception: _report_fault}
"""What answers each kind of exception, for Starlette."""
