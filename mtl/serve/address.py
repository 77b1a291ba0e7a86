"""Where the page listens, and by which names it may be asked for.

A name that is not this server's in a request means that a page of somebody else has pointed its own name here (DNS
rebinding) [https://en.wikipedia.org/wiki/DNS_rebinding].
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping

import psutil

from mtl.errors import AddressError
from mtl.place import Place

PASSWORD_VARIABLE = "MTL_AUTH"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)


def read_password(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """User and password out of MTL_AUTH; None where it is unset. Raises AddressError, never with the value in it."""
    if not (given := environ.get(PASSWORD_VARIABLE, "")):
        return None
    user, _, password = given.partition(":")
    # gradio strips what is typed as a name.
    if not user.strip() or user != user.strip() or not password:
        raise AddressError(f'{PASSWORD_VARIABLE}: not a name and a password; needed in the form "user:password"')
    return user, password


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach what listens on `host`, a name or an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_address(host: str, *, place: Place, auth: tuple[str, str] | None, allow_anyone: bool) -> None:
    """Raises AddressError where strangers could use the page, and what is on this computer, unasked."""
    if is_loopback(host) or place.on_space or auth or allow_anyone:
        return
    raise AddressError(
        f"--host {host or '(empty)'}: other computers could use the page without a password; set "
        f'{PASSWORD_VARIABLE}="user:password", give --allow-anyone, or listen on 127.0.0.1'
    )


def own_hosts(host: str, place: Place, allowed: Iterable[str] = ()) -> frozenset[str]:
    """The names, lower case and without a port, by which this server may be asked for."""
    names = {*LOOPBACK_NAMES, as_host(host), *given_hosts(place, allowed)}
    return frozenset(names if is_loopback(host) else names | _computer_hosts())


def given_hosts(place: Place, allowed: Iterable[str] = ()) -> frozenset[str]:
    """Those that were given on purpose. A Space with a domain of its own has several, comma-separated."""
    return frozenset(as_host(name) for name in (*place.space_host.split(","), *allowed) if name.strip())


def as_host(name: str) -> str:
    """As it stands in a Host header, without the port: an IPv6 address in brackets."""
    name = name.strip().lower()
    if ":" in name and not name.startswith("["):
        return f"[{name}]" if name.count(":") > 1 else name.partition(":")[0]
    return name


def host_of(header: str) -> str:
    """The host in a Host header or in what follows an origin's scheme; empty where it has not that form."""
    match = HOST.fullmatch(header.lower())
    return match.group(1) if match else ""


def _computer_hosts() -> set[str]:
    """This computer's names and addresses; nobody is asked over the network."""
    name = socket.gethostname()
    addresses = (
        address.address for each in psutil.net_if_addrs().values() for address in each if _is_internet(address)
    )
    return {as_host(host) for host in (name, f"{name}.local", *(address.partition("%")[0] for address in addresses))}


def _is_internet(address: object) -> bool:
    return getattr(address, "family", None) in (socket.AF_INET, socket.AF_INET6)
