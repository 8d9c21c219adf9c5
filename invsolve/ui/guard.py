"""Who may talk to the page: only a browser on its own address, and only with the token that the address holds.

- The token is the first part of every path, compared in constant time; without it nothing is served, so that another user
  or page of this machine cannot guess an address.
- The browser is opened on a ticket instead, which is good for one visit: what a program is started with, other users see.
- ``Host`` must be the address that is served. A page elsewhere whose name was made to lead here (DNS rebinding) has another.
- ``Origin`` and ``Sec-Fetch-Site``, where a browser sends them, must be the page's own: no other page can have something
  done here (CSRF).
- Every answer says that it loads nothing from elsewhere, is not to be framed, kept or guessed at, and gives no address away.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from invsolve.errors import OutputError, UsageError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

TICKET = "/open/"

LOOPBACK = ("127.0.0.1", "localhost", "::1")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


def new_token() -> str:
    """256 random bits, as they may stand in an address."""
    return secrets.token_urlsafe(32)


def check_host(host: str, *, remote: bool) -> None:
    """Refuse an address that other machines can reach, unless that is what was asked for.

    Raises
    ------
    UsageError : it is not this machine's own, and ``remote`` is off.
    """
    if host not in LOOPBACK and not remote:
        raise UsageError(
            f"--host {host} lets other machines reach this page",
            hint="leave --host out, or add --allow-remote if they shall: the address is then all that protects your pictures",
        )


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any that is free.

    Raises
    ------
    OutputError : the port is taken, or there is no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OutputError(f"cannot serve at {host}: {error.strerror or error}", hint="leave --host out") from None
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where two programs could share a port otherwise
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise OutputError(
            f"cannot serve at {host}, port {port}: {error.strerror or error}",
            hint="another program has it; give another --port, or --port 0 for any that is free",
        ) from None
    return bound


@dataclass(frozen=True)
class Address:
    """Where the page is."""

    host: str
    port: int
    token: str
    remote: bool = False

    @property
    def url(self) -> str:
        """What to open."""
        host = "localhost" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{self.token}/"

    def serves(self, host: str) -> bool:
        """Whether a ``Host`` header is of this page. Other machines may reach it by number or by this machine's name: a name
        that was made to lead here is neither."""
        name, number = split_port(host)
        if number != self.port:
            return False
        if name in LOOPBACK or name == self.host:
            return True
        return self.remote and (is_number(name) or name.lower() == socket.gethostname().lower())


def split_port(host: str) -> tuple[str, int]:
    """``[::1]:80`` -> ("::1", 80); without a port 80."""
    name, found, port = host.rpartition(":")
    if not found or host.endswith("]"):
        name, port = host, "80"
    return name.removeprefix("[").removesuffix("]"), int(port) if port.isascii() and port.isdigit() else -1


def is_number(name: str) -> bool:
    """Whether a host is an IP address and no name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """An ASGI application that passes on what may pass, the token taken off the path."""

    def __init__(self, application: Application, address: Address) -> None:
        self.application, self.address = application, address
        self.tickets: set[str] = set()

    def ticket(self) -> str:
        """An address that leads to the page once."""
        made = new_token()
        self.tickets.add(made)
        return self.address.url.replace(f"/{self.address.token}/", f"{TICKET}{made}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            return
        refusal = self.refusal(scope)
        ticket = scope["path"].removeprefix(TICKET)
        if ticket in self.tickets and not self.foreign(scope):
            self.tickets.remove(ticket)
            await redirect(f"/{self.address.token}/", send)
            return
        if refusal:
            await refuse(refusal, send)
            return
        prefix = f"/{self.address.token}"
        inner = {**scope, "path": scope["path"].removeprefix(prefix), "root_path": ""}
        inner["raw_path"] = inner["path"].encode()

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *encoded(HEADERS)]}
            await send(message)

        await self.application(inner, receive, with_headers)

    def refusal(self, scope: Scope) -> str:
        """Why a request may not pass; empty where it may."""
        given = scope["path"].split("/", 2)
        known = len(given) == 3 and secrets.compare_digest(given[1].encode(), self.address.token.encode())
        wrong = "the token is missing or wrong: open the whole address that invsolve ui printed"
        return self.foreign(scope) or ("" if known else wrong)

    def foreign(self, scope: Scope) -> str:
        """What says that a request comes from elsewhere; empty where nothing does."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self.address.serves(hosts[0]):
            return "this page has another address: open the one that invsolve ui printed"
        if any(origin != f"http://{hosts[0]}" for origin in headers.get("origin", [])):
            return "another page may not use this one"
        opened = scope["method"] == "GET" and headers.get("sec-fetch-mode") == [
            "navigate"
        ]  # a link to the page, followed
        if not opened and any(site not in ("same-origin", "none") for site in headers.get("sec-fetch-site", [])):
            return "another page may not use this one"
        return ""


def encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them."""
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def redirect(path: str, send: Send) -> None:
    """Answer 303: the page is elsewhere."""
    await send({"type": "http.response.start", "status": 303, "headers": encoded({**HEADERS, "Location": path})})
    await send({"type": "http.response.body", "body": b""})


async def refuse(reason: str, send: Send) -> None:
    """Answer 403 with the reason."""
    body = json.dumps({"error": reason, "hint": ""}).encode()
    sent = {**HEADERS, "Content-Type": "application/json", "Content-Length": str(len(body))}
    await send({"type": "http.response.start", "status": 403, "headers": encoded(sent)})
    await send({"type": "http.response.body", "body": body})
