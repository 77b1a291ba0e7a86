"""Python imports this at start-up where the tests put its folder on the path: it notes calls to other computers.

MTL_CONNECTIONS names the file that they are noted in. MTL_REFUSE=calls refuses them as well, MTL_REFUSE=programs also
any program that is started. Python processes that such a one starts are watched like it. What opens its sockets
outside Python (a Rust or C library) is not seen.
"""

import ipaddress
import os
import shlex
import sys
from collections.abc import Iterator

# Of the audit events that look for or write to a computer, which argument names it.
ADDRESSES = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
}
PROGRAMS = {"subprocess.Popen": 1, "os.exec": 1, "os.posix_spawn": 1, "os.spawn": 2, "os.system": 0}
DOWNLOADERS = {"aria2c", "curl", "ftp", "git", "hf", "nc", "ncat", "pip", "pip3", "rsync", "scp", "ssh", "uv", "wget"}


def _is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = os.fsdecode(host)
    if not isinstance(host, str) or host in ("", "localhost", "0.0.0.0", "::"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _words(command: object) -> Iterator[str]:
    """The words of a command line, those of a shell's within it too."""
    for part in command if isinstance(command, list | tuple) else [command]:
        text = os.fsdecode(part) if isinstance(part, bytes | os.PathLike) else str(part)
        try:
            yield from shlex.split(text)
        except ValueError:
            yield from text.split()


def _call(event: str, arguments: tuple[object, ...]) -> str:
    """What is called, empty where it is nothing outside this computer."""
    if event in ADDRESSES:
        address = arguments[ADDRESSES[event]]
        # Of a connection, an address that is no tuple is a socket's in the file system.
        host = address[0] if isinstance(address, tuple) else address
        goes_out = isinstance(address, tuple) or "host" in event or event == "socket.getaddrinfo"
        return repr(host) if goes_out and not _is_local(host) else ""
    if event in PROGRAMS:
        words = list(_words(arguments[PROGRAMS[event]]))
        downloads = DOWNLOADERS & {os.path.basename(word) for word in words}
        return " ".join(words) if downloads or os.environ.get("MTL_REFUSE") == "programs" else ""
    return ""


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if call := _call(event, arguments):
        with open(os.environ["MTL_CONNECTIONS"], "a", encoding="utf-8") as notes:
            notes.write(f"{event} {call}\n")
        if os.environ.get("MTL_REFUSE"):
            raise PermissionError(f"the tests' guard refuses {event} {call}")


if "MTL_CONNECTIONS" in os.environ:
    with open(os.environ["MTL_CONNECTIONS"], "a", encoding="utf-8") as notes:
        # Programs started by a watched one find it there.
        if notes.tell() == 0:
            notes.write("watching\n")
    sys.addaudithook(_watch)
