"""The sandbox over HTTP, for trainers that speak to SandboxFusion: `POST /run_code`.

One thread per connection, which waits for its script with the interpreter's lock released; the
sandbox itself decides how many scripts compute at once. Everything a client can pile up is bounded:
connections, requests under way, bytes of bodies, time. Invariant: who cannot present the token gets
nothing run, and without a token only this machine is listened to. No TLS, no log of requests.
"""

import hmac
import ipaddress
import os
import resource
import selectors
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Self

from r1ci_engine.errors import ConfigError, SandboxError
from r1ci_engine.sandbox.connection import Answer, Connection, Patience
from r1ci_engine.sandbox.dispatch import ClientGone, Dispatch
from r1ci_engine.sandbox.fusion import (
    Refusal,
    answer,
    answer_fault,
    parse_run_code,
    to_execution,
)
from r1ci_engine.sandbox.pool import Sandbox
from r1ci_engine.sandbox.requests import Limits

RUN_CODE, PING = "/run_code", "/v1/ping"
_METHODS = {RUN_CODE: ("POST",), PING: ("GET", "HEAD")}

_BACKLOG = 1024
_SPARE_CONNECTIONS = 64
"""Beyond the requests under way: for those who are to be told that there is no room."""
_BODIES_AT_ONCE = 16
"""So many bodies of the largest size are held in memory at once."""


_ANSWER_BYTES = 256 << 20
"""Files that are on their way back, in all their forms, take at most so much memory."""
_FORMS = 4
"""A file is held as it is, as base64, as JSON and as bytes to send."""


class _Allowance:
    """So much of something that clients share."""

    def __init__(self, amount: int) -> None:
        self._left = amount
        self._lock = threading.Lock()

    def take(self, amount: int) -> bool:
        with self._lock:
            enough = self._left >= amount
            self._left -= amount if enough else 0
            return enough

    def give_back(self, amount: int) -> None:
        with self._lock:
            self._left += amount


class SandboxServer:
    """Listens from the start; answers while `serve` runs. A context manager."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str | None = None,
        limits: Limits | None = None,
        queue: int = 512,
        body_bytes: int = 16 << 20,
        drain_s: float = 5.0,
        patience: Patience | None = None,
    ) -> None:
        """Bind to `host` and `port` (0: any free one; `url` says which).

        `limits` (None: `Limits()`) are those of a script, and the most that a client can ask for.
        More than `queue` requests at once are turned away, and so are bodies above `body_bytes`.
        `drain_s` is how long scripts may go on after `stop`. Raises ConfigError when the address
        cannot be had, or is not this machine's own and there is no token.
        """
        self._token = None if token is None else token.encode()
        self._limits = limits or Limits()
        self._body_bytes = body_bytes
        self._drain_s = drain_s
        self._patience = patience or Patience()
        self._requests = _Allowance(queue)
        self._body_memory = _Allowance(_BODIES_AT_ONCE * body_bytes)
        self._answer_memory = _Allowance(_ANSWER_BYTES)
        # Half of the descriptors: the sandbox needs its own.
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_connections = min(queue + _SPARE_CONNECTIONS, descriptors // 2)
        # Those that nothing is lost by hanging up on; the longest waiting first, and then all.
        self._waiting: dict[socket.socket, None] = {}
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._parsing = threading.Lock()
        self._stops = 0
        self._listener = _listen(host, port, guarded=token is not None)
        self._host = host
        address, port, *_ = self._listener.getsockname()
        shown = f"[{address}]" if ":" in address else address
        self.url = f"http://{shown}:{port}{RUN_CODE}"
        """Where scripts are taken."""
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._dispatch: Dispatch | None = None

    def serve(self, sandbox: Sandbox) -> None:
        """Run what is asked for in `sandbox` until `stop` is called, then close it. Only once.

        Those whose script ends within `drain_s` still get their result, the others an answer that
        says that nothing is known. The script of a client that hangs up is taken back.
        """
        self._dispatch = dispatch = Dispatch(sandbox)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._bell, selectors.EVENT_READ)
                selector.register(self._listener, selectors.EVENT_READ)
                listening = True
                while not self._stops:
                    for key, _ in selector.select():
                        if key.fileobj is self._listener:
                            self._accept()
                        else:
                            os.eventfd_read(self._bell)
                    if self._make_room() == listening:
                        continue
                    listening = not listening
                    if listening:
                        selector.register(self._listener, selectors.EVENT_READ)
                    else:
                        selector.unregister(self._listener)
        finally:
            self._wind_up(sandbox, dispatch)

    def stop(self) -> None:
        """Let `serve` end; the second call does not wait for scripts. May be called from anywhere,
        signal handlers included."""
        self._stops += 1
        with suppress(OSError):  # `serve` has ended
            os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Give up the address. Connections that outlived `serve` are cut."""
        self._listener.close()
        with self._lock:
            for client in self._connections:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            if self._bell >= 0:
                os.close(self._bell)
                self._bell = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- connections

    def _make_room(self) -> bool:
        """Whether there is room for a connection; if not, one that only waits is asked to leave."""
        with self._lock:
            if len(self._connections) < self._most_connections:
                return True
            if self._waiting:
                longest = next(iter(self._waiting))
                del self._waiting[longest]
                with suppress(OSError):
                    longest.shutdown(socket.SHUT_RDWR)
            return False

    def _accept(self) -> None:
        try:
            client, address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # the client has given up, or descriptors are short: give others time
            time.sleep(0.05)
            return
        with self._lock:
            self._connections.add(client)
        thread = threading.Thread(target=self._attend, args=(client, address), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads to be had
            self._hang_up(client)

    def _attend(self, client: socket.socket, address: object) -> None:
        try:
            Connection(client, address, self, self._patience)
        finally:
            self._hang_up(client)

    def _hang_up(self, client: socket.socket) -> None:
        with self._lock:  # so that nobody shuts down what has this number next
            client.close()
            self._connections.discard(client)
            self._waiting.pop(client, None)
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def await_request(self, client: Connection) -> None:
        """For connections."""
        with self._lock:
            self._waiting[client.connection] = None

    def may_stay(self) -> bool:
        """For connections."""
        with self._lock:
            return not self._stops and 2 * len(self._connections) < self._most_connections

    def _wind_up(self, sandbox: Sandbox, dispatch: Dispatch) -> None:
        self._listener.close()
        dispatch.keep_all()
        with self._lock:
            for client in self._connections:  # nobody sends any more; answers still go out
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RD)
        self._wait_for_connections(self._drain_s, until_stops=2)
        dispatch.close()
        sandbox.close()
        self._wait_for_connections(1.0, until_stops=3)

    def _wait_for_connections(self, seconds: float, until_stops: int) -> None:
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            while self._connections and self._stops < until_stops:
                if (left := deadline - time.monotonic()) <= 0:
                    return
                if selector.select(left):
                    os.eventfd_read(self._bell)

    # --- requests

    def respond(self, client: Connection) -> Answer:
        """For connections."""
        path = client.path.partition("?")[0]
        if path not in _METHODS:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is only `/run_code` and `/v1/ping`")
        if client.command not in _METHODS[path]:
            allowed = ", ".join(_METHODS[path])
            return Answer(
                HTTPStatus.METHOD_NOT_ALLOWED,
                {"detail": f"`{path}` takes {allowed}"},
                {"Allow": allowed},
            )
        if path == PING:
            return Answer(HTTPStatus.OK, "pong")
        if (refused := self._check_caller(client)) is not None:
            return refused
        if self._stops:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping")
        if not self._requests.take(1):
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests are under way")
        try:
            with self._lock:
                self._waiting.pop(client.connection, None)
            return self._run_code(client)
        finally:
            self._requests.give_back(1)

    def _check_caller(self, client: Connection) -> Answer | None:
        """The answer to somebody who may not run anything; None for all others."""
        if self._token is not None:
            scheme, _, given = client.headers.get("Authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), self._token)
            if scheme.lower() != "bearer" or not same:
                return Answer(
                    HTTPStatus.UNAUTHORIZED,
                    {"detail": "this server wants its token as `Authorization: Bearer ...`"},
                    {"WWW-Authenticate": "Bearer"},
                )
        # Web pages can reach the loopback address too, and name it as they like.
        elif "Origin" in client.headers or not self._is_own_name(client.headers.get("Host")):
            raise Refusal(HTTPStatus.FORBIDDEN, "without a token, no requests from web pages")
        return None

    def _is_own_name(self, host_header: str | None) -> bool:
        if host_header is None:
            return True
        header = host_header.strip()
        inside, bracket, port = header.rpartition("]")
        if bracket and (not inside.startswith("[") or (port and not port.startswith(":"))):
            return False
        name = inside[1:] if bracket else header.partition(":")[0]
        return name.lower() in ("localhost", self._host.lower()) or _is_loopback(name)

    def _run_code(self, client: Connection) -> Answer:
        held = 0

        def reserve(size: int) -> None:
            nonlocal held
            if not self._body_memory.take(size):
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many large requests at once")
            held += size

        try:
            body = client.read_body(self._body_bytes, reserve)
            with self._parsing:  # a document can be small and its values large: one at a time
                asked = parse_run_code(body)
            del body
            if asked.language != "python":
                said = f"language `{asked.language[:100]}` is not offered: this server runs python"
                return Answer(HTTPStatus.OK, answer_fault(said))
            try:
                assert self._dispatch is not None, "requests are read while `serve` runs"
                result = self._dispatch.run(to_execution(asked, self._limits), client.connection)
            except ClientGone as gone:
                raise EOFError from gone
            except SandboxError as error:
                return Answer(HTTPStatus.OK, answer_fault(error.message))
            large = _FORMS * sum(map(len, result.files.values()))
            if not self._answer_memory.take(large):
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many large answers at once")
            release = partial(self._answer_memory.give_back, large)
            return Answer(HTTPStatus.OK, answer(asked, result), release=release)
        finally:
            self._body_memory.give_back(held)


def _listen(host: str, port: int, *, guarded: bool) -> socket.socket:
    """A listening socket. Raises ConfigError."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"`port` is `{port}`: it has to be from 0 to 65535")
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a machine"
        raise ConfigError(f"`host` is `{host}`: {reason}") from error
    if not guarded and not _is_loopback(str(address[0])):
        raise ConfigError(
            f"`host` is `{host}`, which others can reach: that takes a token",
            "name a file that holds one, --token-file FILE, or listen on 127.0.0.1",
        )
    try:
        listener = socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on `{host}` port `{port}`: {os.strerror(error.errno or 0)}",
            "--port 0 takes any free one",
        ) from error
    listener.setblocking(False)
    return listener


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
