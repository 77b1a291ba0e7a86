"""Python imports this at start-up where the tests put its folder on the path: it notes calls to other computers."""

import ipaddress
import os
import sys

EVENTS = ("socket.connect", "socket.getaddrinfo")


def _is_local(host: object) -> bool:
    if not isinstance(host, str) or host in ("", "localhost", "0.0.0.0", "::"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event not in EVENTS:
        return
    address = arguments[1] if event == "socket.connect" else arguments[0]
    host = address[0] if isinstance(address, tuple) else address
    local_socket = event == "socket.connect" and not isinstance(address, tuple)
    if not local_socket and not _is_local(host):
        with open(os.environ["MTL_CONNECTIONS"], "a", encoding="utf-8") as notes:
            notes.write(f"{event} {host!r}\n")


if "MTL_CONNECTIONS" in os.environ:
    with open(os.environ["MTL_CONNECTIONS"], "w", encoding="utf-8") as notes:
        notes.write("watching\n")
    sys.addaudithook(_note)
