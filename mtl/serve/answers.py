"""The one form in which a request is refused: {"error": {"code", "message"}}."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

RETRY_AFTER_S = 5


def refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer that says what came, what was needed and what to do; `code` is for programs."""
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def try_later(status: int, code: str, message: str, seconds: float = RETRY_AFTER_S) -> JSONResponse:
    """A refusal that holds for some seconds only."""
    return refusal(status, code, message, {"Retry-After": str(max(1, round(seconds)))})
