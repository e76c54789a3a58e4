"""Workers as an endpoint drives them: a process of its own, spoken to through its pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parent.parent / "src"


class Worker:
    """A script in an interpreter that finds this package first, as an endpoint starts it."""

    def __init__(self, folder: Path, script: str, *others: Path) -> None:
        path = folder / "worker.py"
        path.write_text(script)
        places = os.pathsep.join(str(place) for place in (SOURCE, *others))
        self.process = subprocess.Popen(
            [sys.executable, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": places, "CLUTCH_WORKER": "0"},
        )
        self.calls = 0

    def line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The answer to a call, without the number of the call, which is checked."""
        assert self.process.stdin is not None
        self.calls += 1
        request = {"call": self.calls, "task": "t", "attempt": 2, "function": name}
        request.update({"args": args, "kwargs": kwargs, "later": "ignored"})
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        self.progress: list[Any] = []
        while True:
            answer = self.line()
            assert answer.pop("call") == self.calls
            if "progress" not in answer:
                return answer
            self.progress.append(answer["progress"])

    def end(self) -> str:
        """Closes the worker's input; what it wrote to standard error."""
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, errors
        return errors.decode()


def test_functions_are_called_under_their_names_and_values_come_back(tmp_path: Path) -> None:
    script = """
from clutch import attempt, function, serve, task_id

@function
def add(a, b=10):
    print("adding")
    return a + b

@function(name="who.am-i")
async def who():
    return [task_id(), attempt()]

serve()
"""
    worker = Worker(tmp_path, script)
    assert worker.line() == {"clutch": 2}
    assert worker.call("add", 1) == {"value": 11}
    assert worker.call("add", 1, b=2) == {"value": 3}
    assert worker.call("who.am-i") == {"value": ["t", 2]}
    assert worker.call("sub")["error"]["text"].endswith("'sub'; it has add, who.am-i")
    assert worker.end().startswith("adding\nadding\n")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise ValueError('not today')", "ValueError: not today"),
        ("return object()", "TypeError: 'f' returned a object that is not JSON"),
        ("return float('nan')", "ValueError: 'f' returned a float that is not JSON"),
    ],
)
def test_what_goes_wrong_is_the_end_of_one_call(tmp_path: Path, body: str, error: str) -> None:
    script = f"from clutch import function, serve\n@function\ndef f():\n    {body}\nserve()\n"
    worker = Worker(tmp_path, script)
    assert worker.line() == {"clutch": 2}
    assert worker.call("f")["error"]["text"].startswith(error)
    assert worker.call("f")["error"]["text"].startswith(error)
    told = worker.end()
    assert "clutch/worker.py" not in told, "the package's own frames are left out"


def test_an_error_has_a_shape_and_data_only_if_they_are_json(tmp_path: Path) -> None:
    script = """
from clutch import function, serve
import json

class Bad(Exception):
    def __init__(self, data):
        super().__init__("bad")
        self.data = data

class Worse(Bad):
    __clutch_data__ = [1]

@function
def f(how):
    if how == "json":
        raise Bad({"a": 1})
    if how == "worse":
        raise Worse(2)
    if how == "decode":
        json.loads("{")
    raise Bad(object())

serve()
"""
    worker = Worker(tmp_path, script)
    assert worker.line() == {"clutch": 2}
    bad = {"text": "Bad: bad", "type": "Bad", "message": "bad"}
    assert worker.call("f", "json")["error"] == {**bad, "data": {"a": 1}}
    assert worker.call("f", "object")["error"]["text"].endswith("Bad: bad")
    assert "data" not in worker.call("f", "object")["error"]
    assert worker.call("f", "worse")["error"]["data"] == [1]
    assert worker.call("f", "decode")["error"]["type"] == "json.decoder.JSONDecodeError"
    worker.end()


def test_progress_is_told_at_once_then_once_a_second_and_the_last_of_it_always(
    tmp_path: Path,
) -> None:
    script = """
from clutch import function, progress, serve
import os, threading, time

@function
def quick():
    for step in range(1000):
        progress(step / 1000, message=f"step {step}")
    return True

@function
def slow():
    progress(0.1)
    progress(data=[1])
    time.sleep(1.5)
    return True

@function
def late():
    def tell():
        while True:
            progress(0.5)
    threading.Thread(target=tell, daemon=True).start()
    if os.fork() == 0:
        progress(message="of a child")
        os._exit(0)
    return True

progress(1.0)
serve()
"""
    worker = Worker(tmp_path, script)
    assert worker.line() == {"clutch": 2}
    assert worker.call("quick") == {"value": True}
    first, last = {"fraction": 0.0, "message": "step 0"}, {"fraction": 0.999, "message": "step 999"}
    assert (worker.progress[0], worker.progress[-1]) == (first, last)
    assert len(worker.progress) < 100, "a slow machine may take seconds"
    assert worker.call("slow") == {"value": True}
    assert worker.progress == [{"fraction": 0.1}, {"data": [1]}]
    assert worker.call("quick") == {"value": True}
    assert worker.call("late") == {"value": True}
    assert {"message": "of a child"} not in worker.progress
    worker.end()


def test_nothing_that_is_printed_reaches_the_endpoint(tmp_path: Path) -> None:
    script = """
from clutch import function, serve
import os, sys
print("while importing")
os.write(1, b"raw\\n")
sys.stdout.close()

@function
def f():
    return sys.stdin.read()

serve()
"""
    worker = Worker(tmp_path, script)
    assert worker.line() == {"clutch": 2}
    assert worker.call("f") == {"value": ""}
    assert sorted(worker.end().split("\n")) == ["", "raw", "while importing"]


def test_a_forked_child_may_not_serve(tmp_path: Path) -> None:
    script = """
import os
from clutch import function, serve

@function
def f():
    child = os.fork()
    if child == 0:
        try:
            serve()
        except RuntimeError:
            os._exit(3)
        os._exit(4)
    return os.WEXITSTATUS(os.waitpid(child, 0)[1])

@function
def g():
    return os.fork() == 0

serve()
"""
    worker = Worker(tmp_path, script)
    assert worker.line() == {"clutch": 2}
    assert worker.call("f") == {"value": 3}
    assert worker.call("g") == {"value": False}
    assert worker.call("f") == {"value": 3}
    worker.end()


def test_other_modules_of_an_installed_package_are_found_beside_the_workers(tmp_path: Path) -> None:
    installed = tmp_path / "site"
    (installed / "clutch").mkdir(parents=True)
    (installed / "clutch" / "__init__.py").write_text("raise ImportError('it is shadowed')\n")
    (installed / "clutch" / "worker.py").write_text("raise ImportError('it is another one')\n")
    (installed / "clutch" / "client.py").write_text("NAME = 'client'\n")
    script = """
from clutch import client, function, serve

@function
def f():
    return client.NAME

serve()
"""
    worker = Worker(tmp_path, script, installed)
    assert worker.line() == {"clutch": 2}
    assert worker.call("f") == {"value": "client"}
    worker.end()
