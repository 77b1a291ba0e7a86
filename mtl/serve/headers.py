"""What every answer carries."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtl.serve.answers import RETRY_AFTER_S

# Files that are the same for everybody; all else may show a photo, an answer or who asks.
PUBLIC = ("/assets/", "/static/", "/theme.css")
# gradio writes inline scripts and styles and compiles the functions of its components; pictures, fonts and the
# camera's films are data and blob addresses. Nothing may come from, or go to, another server.
CONTENT = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors {ancestors}"
)
OWN_ANCESTORS = "'self'"
SPACE_ANCESTORS = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
UNUSED = ("microphone", "geolocation", "display-capture", "payment", "usb", "serial", "hid", "midi")
PERMISSIONS = ", ".join(("camera=(self)", *(f"{feature}=()" for feature in UNUSED)))


class SecurityHeaders:
    """On every answer. `on_space`: the Hub shows the page in a frame of its own."""

    def __init__(self, app: ASGIApp, on_space: bool):
        self._app = app
        self._headers = {
            "Content-Security-Policy": CONTENT.format(ancestors=SPACE_ANCESTORS if on_space else OWN_ANCESTORS),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Permissions-Policy": PERMISSIONS,
            # The sign-in of the Hub may open in a window of its own.
            "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        public = scope["path"].startswith(PUBLIC)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                if not public or message["status"] >= 400:
                    headers["Cache-Control"] = "no-store"
                if message["status"] == 503:
                    headers.setdefault("Retry-After", str(RETRY_AFTER_S))
            await send(message)

        return await self._app(scope, receive, with_headers)
