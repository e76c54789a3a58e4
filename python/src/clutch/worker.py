"""Makes Python functions callable as Clutch tasks.

    from clutch import function, serve

    @function
    def add(a, b):
        return a + b

    serve()

Name the script in the endpoint's endpoint.toml, once for each function:

    [functions.add]
    command = ["python3", "/path/to/worker.py"]

and call it: clutch-service submit ENDPOINT --call add --json-arg 1 --json-arg 2 --wait

The endpoint keeps the process running and sends it one call at a time. What a
function prints, and its traceback, is kept with the task. While it works it may tell how
far it is, by `progress(0.5, "half way")`. Needs Python 3.8 and
nothing else. The protocol is in design/0009-workers.md.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Awaitable, Callable, TypeVar, overload

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["attempt", "function", "progress", "serve", "task_id"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# In the environment of a worker's children: the process that answers.
_WORKER_PID = "CLUTCH_WORKER_PID"

# How many characters of an error's words, and of its data, are told. The endpoint keeps less.
_KEPT = 1 << 20

# How often progress is told, in seconds.
_PAUSE = 1.0

_functions: dict[str, Callable[..., Any]] = {}
_current: dict[str, Any] = {}
_loop: AbstractEventLoop | None = None
_channel: _Channel | None = None
_progress: _Progress | None = None


@overload
def function(given: _Function, *, name: str | None = None) -> _Function: ...
@overload
def function(*, name: str | None = None) -> Callable[[_Function], _Function]: ...
def function(given: Any = None, *, name: str | None = None) -> Any:
    """Makes a function, an async one too, callable under its name or another."""

    def register(func: _Function) -> _Function:
        _functions[name or func.__name__] = func
        return func

    return register if given is None else register(given)


def task_id() -> str | None:
    """The id of the task that is being answered, as a string."""
    return _current.get("task")


def attempt() -> int | None:
    """Which attempt at the task this is; counts from 1."""
    return _current.get("attempt")


def progress(fraction: float | None = None, message: str | None = None, data: Any = None) -> None:
    """Tells how far the call is: a number from 0 to 1, a line for people, data as JSON.

    It is told at most once a second, and the last of what was said is never left out.
    Outside of a call, and in a child that was forked in one, it does nothing.
    """
    told = {"fraction": fraction, "message": message, "data": data}
    words = {name: value for name, value in told.items() if value is not None}
    if _progress is not None and _progress.channel.is_ours():
        _progress.tell(_encode(words))


def _call(request: dict[str, Any]) -> Any:
    name = request["function"]
    func = _functions.get(name)
    if func is None:
        has = ", ".join(sorted(_functions)) or "none"
        raise LookupError(f"this worker has no function '{name}'; it has {has}")
    kwargs = request.get("kwargs")
    value = func(*request["args"], **kwargs) if kwargs else func(*request["args"])
    if hasattr(value, "__await__"):
        value = _wait_for(value)
    return value


def _wait_for(awaitable: Awaitable[Any]) -> Any:
    import asyncio  # noqa: PLC0415 - most workers have no async function

    async def wait() -> Any:
        return await awaitable

    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    return _loop.run_until_complete(wait())


def _theirs(frames: TracebackType | None) -> TracebackType | None:
    """The frames of a traceback from the first on that is not of this module."""
    while frames and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return frames


def _flush() -> None:
    """Passes on what was printed, as far as there is still something to print to."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


def _note(text: str) -> None:
    """Writes to standard error, past whatever became of `sys.stderr`."""
    _flush()
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _shape(error: Exception, text: str) -> str:
    """An exception as JSON: its words, its type, its message, and its data if it has some."""
    kind = type(error)
    named = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        named = f"{kind.__module__}.{named}"
    try:
        message = str(error)
    except Exception:
        message = text
    shape: dict[str, Any] = {"text": text[:_KEPT], "type": named, "message": message[:_KEPT]}
    data = getattr(error, "__clutch_data__", None)
    if data is None:
        data = getattr(error, "data", None)
    if data is not None:
        try:
            told = _encode(data)
            if len(told) > _KEPT:
                data = {"omitted_bytes": len(told)}
            return _encode({**shape, "data": data})
        except Exception:
            pass  # it is not JSON
    return _encode(shape)


def _answer(line: bytes, progress: _Progress) -> str:
    """The answer to a line, as text. An exception is one; leaving is not."""
    global _current
    _current = json.loads(line)
    progress.begin(_current["call"])
    head = f'{{"call":{_current["call"]},'
    try:
        value = _call(_current)
    except Exception as error:
        told = traceback.format_exception(type(error), error, _theirs(error.__traceback__))
        _note("".join(told))
        words = "".join(traceback.format_exception_only(type(error), error)).strip()
        return head + '"error":' + _shape(error, words) + "}"
    try:
        return head + '"value":' + _encode(value) + "}"
    except Exception as error:
        name = _current["function"]
        words = (
            f"{type(error).__name__}: '{name}' returned a {type(value).__name__} that is not "
            f"JSON: {error}"
        )
        return head + '"error":' + _shape(error, words) + "}"


class _Channel:
    """The two pipes to the endpoint. Only the process that took them has them."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.requests = os.dup(0)
        self.answers = os.dup(1)
        # Whatever is printed goes where the endpoint keeps it with the task, and
        # whoever reads finds nothing.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        try:
            os.dup2(2, 1)
        except OSError:  # standard error is closed
            os.dup2(nothing, 2)
            os.dup2(nothing, 1)
        os.close(nothing)
        os.environ[_WORKER_PID] = str(self.pid)
        os.register_at_fork(after_in_child=self.let_go)

    def let_go(self) -> None:
        """A child has no part in what its parent is asked."""
        os.close(self.requests)
        os.close(self.answers)

    def is_ours(self) -> bool:
        return self.pid == os.getpid()

    def say(self, text: str) -> None:
        rest = memoryview(text.encode() + b"\n")
        while rest:
            rest = rest[os.write(self.answers, rest) :]


class _Progress:
    """Tells the progress of one call after the other, at most once in a pause."""

    def __init__(self, channel: _Channel) -> None:
        self.channel = channel
        self.lock = threading.Lock()
        self.call: int | None = None
        self.waits: str | None = None
        self.told = 0.0
        self.timer: threading.Timer | None = None

    def begin(self, call: int) -> None:
        """A call begins: its first progress is told at once."""
        with self.lock:
            self.call, self.waits, self.told = call, None, 0.0

    def end(self) -> None:
        """The call is about to be answered: what waits is told, and nothing after that."""
        with self.lock:
            self.send()
            self.call = None
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    def tell(self, text: str) -> None:
        with self.lock:
            if self.call is None:
                return
            self.waits = text
            pause = self.told + _PAUSE - monotonic() if self.told else 0.0
            if pause <= 0:
                self.send()
            elif self.timer is None:
                self.timer = threading.Timer(pause, self.late, [self.call])
                self.timer.daemon = True
                self.timer.start()

    def late(self, call: int) -> None:
        """The pause is over."""
        with self.lock:
            if self.call == call:
                self.timer = None
                self.send()

    def send(self) -> None:
        if self.call is not None and self.waits is not None:
            self.channel.say(f'{{"call":{self.call},"progress":{self.waits}}}')
            self.waits, self.told = None, monotonic()


def _connect() -> _Channel:
    """Takes the pipes to the endpoint, once."""
    global _channel
    owner = os.environ.get(_WORKER_PID, str(os.getpid()))
    if owner != str(os.getpid()) or not (_channel is None or _channel.is_ours()):
        raise RuntimeError(
            f"only the process that the endpoint started, {owner}, may serve: it was forked, and "
            "this one is its child"
        )
    if _channel is None:
        _channel = _Channel()
    return _channel


def serve() -> None:
    """Answers calls until the endpoint has no more; then returns."""
    global _progress
    channel = _connect()
    _progress = _Progress(channel)
    channel.say('{"clutch":2}')
    for line in os.fdopen(channel.requests, "rb", closefd=False):
        answer = _answer(line, _progress)
        if not channel.is_ours():
            _note("a child that was forked in a function returned from it: it ends here\n")
            os._exit(1)
        _flush()
        _progress.end()
        channel.say(answer)


# At once, so that nothing that is imported after this module can write to the
# endpoint, or close what leads there. Not in the children of a worker.
if "CLUTCH_WORKER" in os.environ and _WORKER_PID not in os.environ:
    _connect()
