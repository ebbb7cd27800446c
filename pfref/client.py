"""Requests to a server, again where that can help, and errors in one line.

A key comes from the environment and goes into a header, and nowhere else.
"""

import os
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from .errors import UserError

KEY = "PFREF_API_KEY"  # the environment variable that holds a server's key
AGAIN = {408, 429, *range(500, 600)} - {501}  # these answers may be others in a while
PAUSES = (0.5, 1, 2, 4, 8, 16)  # seconds before each further try
CONNECT = 10  # seconds for a connection
LOOK = 20  # seconds for what needs no model
BAD_ANSWERS = (ValueError, KeyError, IndexError, TypeError, AttributeError)

Read = TypeVar("Read")
Task = tuple[Future[Any], Callable[[], Any]]


class Client:
    """A server at `url`, with or without /v1 at its end.

    patience   seconds for an answer
    pauses     before each further try of a request that failed for a reason that may
               pass: no connection, no answer in time, half an answer, 408, 429, 5xx but
               501
    variable   the environment variable that holds the server's key
    """

    def __init__(
        self,
        url: str,
        patience: float = 600,
        pauses: Sequence[float] | None = None,
        variable: str = KEY,
    ) -> None:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            httpx.URL(parts.geturl())  # is stricter
            right = parts.scheme in ("http", "https") and bool(parts.hostname)
            right = right and parts.port != 0
        except (ValueError, httpx.InvalidURL):  # such as a port that is none
            right = False
        if not right:
            raise UserError(
                f"{shown(url)} is no address of a server; give one such as "
                "http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query:
            raise UserError(
                f"keep keys out of the address; put yours into the variable {variable}"
            )
        self.root = f"{parts.scheme}://{parts.netloc}" + parts.path.rstrip("/")
        self.root = self.root.removesuffix("/v1")
        self.pauses = PAUSES if pauses is None else pauses
        self.patience = patience
        self.variable, self.key = variable, os.environ.get(variable, "").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise UserError(
                f"the key in {variable} is not one line of plain characters"
            )
        self.in_flight, self.peak = 0, 0  # now; at most since somebody looked
        self.retried = 0
        self.lock = threading.Lock()
        self.tls = httpx.create_ssl_context()
        self.own = threading.local()

    @property
    def http(self) -> httpx.Client:
        """This thread's own connection. Where threads share a pool, httpcore may close
        a connection that it has just given to a request (its issue 1110), and the
        request then waits until its patience is over.
        """
        if not hasattr(self.own, "http"):
            self.own.http = httpx.Client(
                headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
                timeout=httpx.Timeout(self.patience, connect=CONNECT),
                verify=self.tls,
            )
        return self.own.http

    def post(
        self,
        path: str,
        body: dict[str, Any],
        read: Callable[[Any], Read],
        stopped: threading.Event | None = None,
    ) -> Read:
        """What `read` makes of the answer; it raises KeyError or its kin if that is not
        what it should be, and UserError if another try would not mend it. Raises
        UserError also if all tries fail, if the server refuses, or if it is `stopped`
        before the next try.
        """
        response, found = self.trying(
            lambda: self.http.post(self.root + path, json=body), read, stopped
        )
        if response.status_code >= 400:
            raise UserError(self.refusal(response))
        return found

    def get(self, path: str) -> Any:
        """An answer as JSON; None if the server has none at this path."""
        response, found = self.trying(
            lambda: self.http.get(self.root + path, timeout=LOOK), as_it_is
        )
        if response.status_code in (401, 403):
            raise UserError(self.refusal(response))
        return found

    def trying(
        self,
        send: Callable[[], httpx.Response],
        read: Callable[[Any], Read],
        stopped: threading.Event | None = None,
    ) -> tuple[httpx.Response, Any]:
        """A response and what it says; None if it is an error that will stay."""
        problem, stopped = "", stopped or threading.Event()
        for pause in (0.0, *self.pauses):
            if pause:
                self.count(retried=1)
            if stopped.wait(pause * random.uniform(0.75, 1.25)):  # not all together
                raise UserError("stopped")
            self.count(in_flight=1)
            try:
                response = send()
                if response.status_code in AGAIN:
                    problem = f"answers {response.status_code} ({self.told(response)})"
                elif response.status_code >= 400:
                    return response, None
                elif response.has_redirect_location:
                    place = self.said(response.headers["location"].split("?")[0])
                    raise UserError(
                        f"the server at {self.root} sends to {place}; give that address"
                    )
                else:
                    return response, read(response.json())
            except UserError:  # of `read`: another try would not mend it
                raise
            except httpx.TimeoutException:
                problem = "does not answer in time"
            except httpx.RequestError as error:
                problem = f"cannot be reached ({self.said(error)})"
            except BAD_ANSWERS as error:
                problem = f"sends an answer that cannot be read ({self.said(error)})"
            finally:
                self.count(in_flight=-1)
        raise UserError(
            f"the server at {self.root} {problem}, after {1 + len(self.pauses)} tries; "
            "what was recorded is safe: see to the server and give the command again"
        )

    def count(self, in_flight: int = 0, retried: int = 0) -> None:
        with self.lock:
            self.in_flight += in_flight
            self.peak = max(self.peak, self.in_flight)
            self.retried += retried

    def refusal(self, response: httpx.Response) -> str:
        if response.status_code in (401, 403):
            return (
                f"the server at {self.root} wants a key; put it into the variable "
                f"{self.variable}"
            )
        return (
            f"the server at {self.root} refuses with {response.status_code}: "
            f"{self.told(response)}"
        )

    def told(self, response: httpx.Response) -> str:
        """The first line of what a server says of an error, without the key."""
        try:
            said = response.json()
            for name in ("error", "message", "detail"):
                if isinstance(said, dict) and name in said:
                    said = said[name]
        except ValueError:
            said = response.text
        return self.said(said)

    def said(self, thing: Any) -> str:
        text = str(thing).strip() or type(thing).__name__
        if self.key:  # before the line is cut, which might leave a part of it
            text = text.replace(self.key, "***")
        return text.splitlines()[0][:300]


def as_it_is(found: Any) -> Any:
    return found


class Pool:
    """Threads that do not outlive the program: whoever interrupts a run need not wait
    for the answers that are still to come.
    """

    def __init__(self, size: int) -> None:
        self.size, self.threads = size, 0
        self.waiting: SimpleQueue[Task | None] = SimpleQueue()

    def submit(self, task: Callable[..., Read], *args: Any) -> "Future[Read]":
        future: Future[Read] = Future()
        self.waiting.put((future, lambda: task(*args)))
        if self.threads < self.size:
            self.threads += 1
            threading.Thread(target=work, args=[self.waiting], daemon=True).start()
        return future

    def __del__(self) -> None:
        """The threads end once they have done what waits, else they would wait for
        ever, each with its connection.
        """
        for _ in range(self.threads):
            self.waiting.put(None)


def work(waiting: "SimpleQueue[Task | None]") -> None:
    """What each thread of a pool does. It holds neither the pool nor, while it waits,
    what it did last: else neither would ever be let go.
    """
    while (given := waiting.get()) is not None:
        future, task = given
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)
        del given, future, task


def in_flight(*models: Any) -> str:
    """What a line of progress says of requests; nothing if no model is served."""
    clients = [model.client for model in models if hasattr(model, "client")]
    most = 0
    for client in clients:
        most, client.peak = most + client.peak, client.in_flight
    return f"up to {most} requests in flight" if clients else ""


def shown(url: str) -> str:
    """An address without what stands before an @, or after a question mark."""
    return str(url).partition("?")[0].rpartition("@")[2]
