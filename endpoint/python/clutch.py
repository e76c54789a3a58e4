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
function prints, and its traceback, is kept with the task. Needs Python 3.8 and
nothing else. The protocol is in design/0009-workers.md.
"""

import json
import os
import sys
import traceback

__all__ = ["function", "serve", "task_id", "attempt"]

_functions = {}
_current = {}
_loop = None


def function(given=None, *, name=None):
    """Makes a function, an async one too, callable under its name or another."""

    def register(func):
        _functions[name or func.__name__] = func
        return func

    return register if given is None else register(given)


def task_id():
    """The id of the task that is being answered, as a string."""
    return _current.get("task")


def attempt():
    """Which attempt at the task this is; counts from 1."""
    return _current.get("attempt")


def _call(request):
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


def _wait_for(awaitable):
    import asyncio

    async def wait():
        return await awaitable

    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    return _loop.run_until_complete(wait())


def _theirs(frames):
    """The frames of a traceback from the first on that is not of this module."""
    while frames and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return frames


def _answer(line, encode):
    """The answer to a line, as text. An exception is one; leaving is not."""
    global _current
    try:
        _current = json.loads(line)
        value = _call(_current)
    except Exception as error:
        sys.stdout.flush()
        traceback.print_exception(type(error), error, _theirs(error.__traceback__))
        words = "".join(traceback.format_exception_only(type(error), error)).strip()
        return '{"error":' + encode(words) + "}"
    try:
        return '{"value":' + encode(value) + "}"
    except Exception as error:
        name = _current["function"]
        return '{"error":' + encode(
            f"{type(error).__name__}: '{name}' returned a {type(value).__name__} that is not "
            f"JSON: {error}"
        ) + "}"


def serve():
    """Answers calls until the endpoint has no more; then returns."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever functions print goes where the endpoint keeps it with the task, and
    # what they read is empty.
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    answers.write(b'{"clutch":1}\n')
    answers.flush()
    for line in requests:
        answer = _answer(line, encode)
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(answer.encode() + b"\n")
        answers.flush()
