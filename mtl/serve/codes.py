"""The words by which programs tell refusals apart."""

from starlette.responses import Response

from mtl.errors import RequestError
from mtl.serve.answers import RETRY_AFTER_S, refusal

# code -> (HTTP status, meaning). Programs rely on these words, so they stay.
CODES = {
    "bad_parameter": (400, "a query parameter that there is not, or one out of its bounds"),
    "bad_request": (400, "a body that cannot be read as multipart"),
    "wrong_host": (400, "a Host header that names another server"),
    "no_file": (400, "no photo under the field `file`"),
    "unauthorized": (401, "no user and password, or wrong ones"),
    "cross_site": (403, "a page of another site asks"),
    "not_found": (404, "no such address"),
    "unknown_model": (404, "no model of the name given as `model`"),
    "method_not_allowed": (405, "this address answers to another method"),
    "too_slow": (408, "nothing came for a while"),
    "too_large": (413, "more bytes than one request may have"),
    "too_many_files": (413, "more photos than one request may have"),
    "unsupported_media_type": (415, "neither multipart/form-data nor an image"),
    "unreadable_photo": (422, "a file that is no photo, or not a whole one"),
    "too_many_requests": (429, "more from one client than a public server takes; Retry-After says when to go on"),
    "too_many_logins": (429, "too many wrong passwords; Retry-After says when to try again"),
    "fault": (500, "a fault of this program; its log has it"),
    "busy": (503, "too many photos wait, or the GPU is lent out; Retry-After says when to send it again"),
    "no_model": (503, "no model can be loaded"),
}


class RestError(RequestError):
    """An error for programs: one of CODES, and a line for a person."""

    def __init__(self, code: str, text: str, headers: dict[str, str] | None = None):
        super().__init__(text)
        self.code, self.status, self.headers = code, CODES[code][0], headers or {}

    def to_dict(self) -> dict[str, dict[str, str]]:
        return {"error": {"code": self.code, "message": str(self)}}

    def response(self) -> Response:
        return refusal(self.status, self.code, str(self), self.headers)


def busy(text: str) -> RestError:
    """For what may go well a little later."""
    return RestError("busy", text, {"Retry-After": str(RETRY_AFTER_S)})


def codes_of(status: int) -> str:
    """The codes of a status with their meanings, one line."""
    return "; ".join(f"{code}: {meaning}" for code, (its_status, meaning) in CODES.items() if its_status == status)
