"""Photos as programs send them: a form with files, or a body that is the photo."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mtl.analysis.names import printable
from mtl.serve.answer import short_name
from mtl.serve.codes import RestError

MAX_FIELDS = 10  # of text; none is needed
BINARY = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "array",
                        "minItems": 1,
                        "items": BINARY["schema"],
                        "description": "one photo, or the field once for each of several",
                    }
                },
            },
            "encoding": {"file": {"contentType": "image/*, application/dicom"}},
        },
        "image/*": BINARY,
        "application/dicom": BINARY,
    },
}


@dataclass(frozen=True)
class Upload:
    """A file as it came, in the memory or in a temporary file without a name."""

    name: str
    file: IO[bytes]


async def receive(request: Request, max_files: int) -> list[Upload]:
    """The photos of a request's body, to be closed by whoever takes them; the guards count its bytes.

    Raises RestError.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return await _receive_form(request, max_files)
    if media_type.startswith("image/") or media_type == "application/dicom":
        return await _receive_file(request)
    came = printable(media_type)[:60] or "no content type"
    raise RestError("unsupported_media_type", f"got {came}; needed: multipart/form-data with photos under `file`")


class _WholeForm(MultiPartParser):
    """Refuses a form without its end: starlette leaves the file that was cut off out, and open."""

    _ended = False

    def on_end(self) -> None:
        self._ended = True

    async def parse(self) -> FormData:
        self.stream = self._to_its_end(self.stream)
        return await super().parse()

    async def _to_its_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._ended:
            raise MultiPartException("The form is cut short.")


async def _receive_form(request: Request, max_files: int) -> list[Upload]:
    parser = _WholeForm(request.headers, request.stream(), max_files=max_files, max_fields=MAX_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise RestError("too_many_files", f"more than {max_files} photos in one request; send fewer") from error
        raise RestError("bad_request", f"multipart: {error.message.rstrip('.')}; send it as a browser does") from error
    try:
        return _photos_of(form)
    except RestError:
        await form.close()
        raise


def _photos_of(form: FormData) -> list[Upload]:
    """The files under `file`; a field that would be left out unnoticed is refused."""
    uploads = []
    for field, value in form.multi_items():
        if isinstance(value, str) and field != "file":
            raise RestError("bad_parameter", f"{short_name(field)}: came in the body; needed in the address, after a ?")
        if isinstance(value, str) or field != "file":
            came = "text" if isinstance(value, str) else "a file"
            raise RestError(
                "no_file", f"got {came} under `{short_name(field)}`; needed: a photo as a file under `file`"
            )
        if value.filename or value.size:
            uploads.append(Upload(short_name(value.filename or "photo"), value.file))
        else:  # an empty field of a page's form
            value.file.close()
    if not uploads:
        raise RestError("no_file", "no photo came; needed: at least one under the field `file`")
    return uploads


async def _receive_file(request: Request) -> list[Upload]:
    """A body that is the photo itself."""
    file = SpooledTemporaryFile(max_size=MultiPartParser.spool_max_size)  # noqa: SIM115 - closed by who takes it
    try:
        async for chunk in request.stream():
            file.write(chunk)
        if not file.tell():
            raise RestError("no_file", "no photo came; needed: one as the body")
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return [Upload("photo", file)]
