"""A running task's own side of its endpoint: messages to other tasks, and more.

    from clutch import task

    task.send(other, "in", b"ready")          # returns once a process of it took the message
    message = task.receive("in", timeout=60)  # waits for one; it is taken when this returns
    print(message.source, message.body)

Works in the processes of tasks, and in the functions of workers, from any thread; `asend`,
`areceive` and `acancelled` are the same for asyncio. Needs Python 3.8 and nothing else. The
protocol is in docs/messages.md.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Callable, TypeVar
from urllib.parse import unquote, urlencode

from . import worker

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "Message",
    "NoMessage",
    "NotATask",
    "TaskError",
    "acancelled",
    "areceive",
    "asend",
    "cancelled",
    "log",
    "outcome",
    "progress",
    "receive",
    "send",
    "submit",
    "whoami",
]

# The most bytes of a message.
MAX_MESSAGE = 8 * 1024 * 1024
# How many connections are kept open for later calls.
_KEPT = 8
_ERROR = 400
_NO_CONTENT = 204

_T = TypeVar("_T")


class TaskError(Exception):
    """The endpoint did not do what was asked. `type` is a word for programs, as in
    docs/messages.md: `unknown`, `finished`, `not_listening`, `timed_out` and others."""

    def __init__(self, problem: dict[str, Any]) -> None:
        self.type: str = problem.get("type", "internal")
        self.detail: str = problem.get("detail", "")
        self.outcome: str | None = problem.get("outcome")
        self.attempt: int | None = problem.get("attempt")
        super().__init__(f"{self.type}: {self.detail}")


class NoMessage(TimeoutError):
    """No message came in time."""


class NotATask(RuntimeError):
    """This process is not of a task that an endpoint runs."""


class Message:
    """A message that was received.

    One that was received with `hold=True` is taken by `ack`, or at the end of a `with` block,
    and given back by `nack`, or by an exception in the block.
    """

    def __init__(self, headers: Any, body: bytes, held: _Connection | None) -> None:
        #: The task that sent it, as its endpoint says.
        self.source: str = headers["Clutch-Source"]
        self.source_attempt = int(headers["Clutch-Source-Attempt"])
        self.addressee = unquote(headers["Clutch-Addressee"])
        #: Its id.
        self.id: str = headers["Clutch-Message"]
        self.body = body
        self._delivery: str = headers["Clutch-Delivery"]
        self._held = held

    def ack(self) -> None:
        """Takes it: its sender is told that it was delivered."""
        self._settle("ack")

    def nack(self) -> None:
        """Gives it back: another receiver gets it, or this one again."""
        self._settle("nack")

    def _settle(self, how: str) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        try:
            held.ask("POST", f"/v1/messages/{self._delivery}/{how}").read()
        except BaseException:
            held.close()
            raise
        _keep(held)

    def __enter__(self) -> Message:
        return self

    def __exit__(
        self,
        kind: type | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        if kind is None:
            self.ack()
        else:
            self.nack()

    def __repr__(self) -> str:
        return f"<Message {self.id} from {self.source} to {self.addressee!r}>"


class _Connection(http.client.HTTPConnection):
    """A connection to the endpoint, by its Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("clutch-endpoint")
        self.path = path
        self.pid = os.getpid()

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)

    def abort(self) -> None:
        """Has a call of another thread end: what it holds is given back."""
        sock = self.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def ask(self, method: str, target: str, body: bytes = b"") -> http.client.HTTPResponse:
        headers = {"Authorization": "Bearer " + os.environ["CLUTCH_TOKEN"]}
        named = worker.task_id() or os.environ.get("CLUTCH_TASK_ID")
        if named:
            headers["Clutch-Task"] = named
        self.request(method, target, body, headers)
        response = self.getresponse()
        if response.status >= _ERROR:
            told = response.read()
            try:
                problem = json.loads(told)
            except ValueError:
                problem = {"detail": f"the endpoint answers {response.status}"}
            raise TaskError(problem)
        return response


_idle: list[_Connection] = []
_lock = threading.Lock()


def _connection() -> _Connection:
    path = os.environ.get("CLUTCH_SOCKET")
    if not path or not os.environ.get("CLUTCH_TOKEN"):
        raise NotATask(
            "CLUTCH_SOCKET and CLUTCH_TOKEN are not set: this works in a task that an endpoint "
            "runs, and in what that starts with its environment"
        )
    with _lock:
        while _idle:
            found = _idle.pop()
            # A child that was forked has connections of its own.
            if found.pid == os.getpid() and found.path == path:
                return found
    return _Connection(path)


def _keep(connection: _Connection) -> None:
    with _lock:
        if len(_idle) < _KEPT and connection.sock is not None:
            _idle.append(connection)
            return
    connection.close()


class _Call:
    """One request, which another thread may end."""

    def __init__(self, method: str, target: str, body: bytes = b"") -> None:
        self.method, self.target, self.body = method, target, body
        self.connection = _connection()

    def answer(self) -> bytes:
        """The body of the answer."""
        connection = self.connection
        try:
            told = connection.ask(self.method, self.target, self.body).read()
        except BaseException:
            connection.close()
            raise
        _keep(connection)
        return told

    def message(self) -> Message:
        """The message that was received, held by its connection."""
        connection = self.connection
        try:
            response = connection.ask(self.method, self.target)
            body = response.read()
            if response.status == _NO_CONTENT:
                raise NoMessage("no message came in time")
            return Message(response.headers, body, connection)
        except BaseException:
            connection.close()
            raise


def _target(path: str, *more: Any, **parameters: Any) -> str:
    pairs = [*more, *((name, value) for name, value in parameters.items() if value is not None)]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _span(seconds: float | None) -> str | None:
    return None if seconds is None else f"{max(0, round(seconds * 1000))}ms"


def _sending(  # noqa: PLR0913, PLR0917 - they are all of a message
    to: str,
    addressee: str,
    body: bytes | str,
    wait: float,
    attempt: int | None,
    id: str | None,
    mailbox: bool,
) -> _Call:
    data = body.encode() if isinstance(body, str) else bytes(body)
    if len(data) > MAX_MESSAGE:
        detail = f"a message has at most {MAX_MESSAGE} bytes: nothing was sent"
        raise TaskError({"type": "too_large", "detail": detail})
    kept = "true" if mailbox else None
    target = _target(
        "/v1/messages",
        to=str(to),
        addressee=addressee,
        wait=_span(wait),
        attempt=attempt,
        id=id and str(id),
        mailbox=kept,
    )
    return _Call("POST", target, data)


def _receiving(addressees: tuple[str, ...], timeout: float | None, from_task: str | None) -> _Call:
    names = [("addressee", name) for name in addressees]
    span = _span(timeout)
    target = _target("/v1/messages", *names, hold="connection", timeout=span)
    if from_task is not None:
        target += "&" + urlencode({"from": str(from_task)})
    return _Call("GET", target)


def whoami() -> dict[str, Any]:
    """This task: `task`, `attempt`, `endpoint`, `endpoint_name`, `cores`, and where it has them
    `name`, `parent` and `walltime_ends_ms`."""
    told: dict[str, Any] = json.loads(_Call("GET", "/v1/whoami").answer())
    return told


def send(  # noqa: PLR0913
    to: str,
    addressee: str,
    body: bytes | str = b"",
    *,
    wait: float = 90.0,
    attempt: int | None = None,
    id: str | None = None,
    mailbox: bool = False,
) -> dict[str, Any]:
    """Sends a message to a task, and returns once a process of it has taken the message.

    `wait` is in seconds. What is sent again with the same `id` is taken once. With `mailbox` the
    service keeps the message, and this does not wait until it is taken. Raises `TaskError`.
    """
    call = _sending(to, addressee, body, wait, attempt, id, mailbox)
    told: dict[str, Any] = json.loads(call.answer())
    return told


def receive(
    *addressees: str,
    timeout: float | None = None,
    from_task: str | None = None,
    hold: bool = False,
) -> Message:
    """Waits for a message to one of these addressees, and takes it.

    With `hold` it is not taken before `Message.ack`. Raises `NoMessage` after `timeout` seconds.
    """
    message = _receiving(addressees, timeout, from_task).message()
    if not hold:
        message.ack()
    return message


def progress(fraction: float | None = None, message: str | None = None, data: Any = None) -> None:
    """Tells how far the task is: a number from 0 to 1, a line for people, data as JSON."""
    if worker.task_id() is not None:
        worker.progress(fraction, message, data)
        return
    told = {"fraction": fraction, "message": message, "data": data}
    words = {name: value for name, value in told.items() if value is not None}
    _Call("POST", "/v1/progress", json.dumps(words).encode()).answer()


def log(line: str) -> None:
    """Writes a line to the task's standard error."""
    _Call("POST", "/v1/log", line.encode()).answer()


def cancelled(timeout: float | None = 0.0) -> str | None:
    """Whether the task is to end, and why: `cancelled`, `walltime`, `shutdown` or `drained`.

    Waits for that for `timeout` seconds; without an end where that is None.
    """
    told = _Call("GET", _target("/v1/cancelled", timeout=_span(timeout))).answer()
    return json.loads(told)["reason"] if told else None


def submit(tasks: dict[str, Any], *, id: str | None = None) -> list[str]:
    """Submits tasks as children of this one, and returns their ids. `tasks` is a request as the
    service's API takes it; what is submitted again with the same `id` is one submission."""
    target = _target("/v1/tasks", id=id and str(id))
    told: list[str] = json.loads(_Call("POST", target, json.dumps(tasks).encode()).answer())[
        "tasks"
    ]
    return told


def outcome(of: str, *, wait: float = 0.0) -> dict[str, Any] | None:
    """A task as the service shows it, once it has an outcome; None if it has none in time."""
    told = _Call("GET", _target(f"/v1/tasks/{of}", wait=_span(wait))).answer()
    return json.loads(told) if told else None


async def _elsewhere(call: _Call, do: Callable[[], _T]) -> _T:
    """Does something in a thread of its own. One that is given up ends, and holds nothing."""
    import asyncio  # noqa: PLC0415 - most tasks do without

    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def tell(set_it: Callable[[Any], None], value: Any) -> None:
        if done.cancelled():
            if isinstance(value, Message):
                value.nack()
        else:
            set_it(value)

    def work() -> None:
        try:
            told: Any = do()
            set_it: Callable[[Any], None] = done.set_result
        except BaseException as error:
            told, set_it = error, done.set_exception
        try:
            loop.call_soon_threadsafe(tell, set_it, told)
        except RuntimeError:  # the loop is closed
            call.connection.abort()

    threading.Thread(target=work, name="clutch-task", daemon=True).start()
    try:
        return await done
    except asyncio.CancelledError:
        call.connection.abort()
        raise


async def asend(  # noqa: PLR0913
    to: str,
    addressee: str,
    body: bytes | str = b"",
    *,
    wait: float = 90.0,
    attempt: int | None = None,
    id: str | None = None,
    mailbox: bool = False,
) -> dict[str, Any]:
    """The same as `send`, for asyncio."""
    call = _sending(to, addressee, body, wait, attempt, id, mailbox)
    told: dict[str, Any] = json.loads(await _elsewhere(call, call.answer))
    return told


async def areceive(
    *addressees: str,
    timeout: float | None = None,
    from_task: str | None = None,
    hold: bool = False,
) -> Message:
    """The same as `receive`, for asyncio."""
    call = _receiving(addressees, timeout, from_task)
    message = await _elsewhere(call, call.message)
    if not hold:
        message.ack()
    return message


async def acancelled(timeout: float | None = None) -> str | None:
    """The same as `cancelled`, for asyncio; waits without an end unless it is told."""
    call = _Call("GET", _target("/v1/cancelled", timeout=_span(timeout)))
    told = await _elsewhere(call, call.answer)
    return json.loads(told)["reason"] if told else None
