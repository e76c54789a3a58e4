"""Classes and functions that a command line names, served as an endpoint starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parent.parent / "src"

MODULE = """
class Sum:
    def __init__(self):
        self.calls = 0

    def execute(self, *args, **kwargs):
        self.calls += 1
        return [self.calls, sum(args) + kwargs.get("more", 0)]

class Bad:
    pass

def double(number):
    return 2 * number
"""


def start(folder: Path, spec: str, name: str) -> subprocess.Popen[bytes]:
    (folder / "jobs.py").write_text(MODULE)
    return subprocess.Popen(
        [sys.executable, "-m", "clutch.named", spec],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(SOURCE), str(folder)]),
            "CLUTCH_WORKER": "0",
            "CLUTCH_FUNCTION": name,
        },
    )


def calls(process: subprocess.Popen[bytes], name: str, *requests: dict[str, Any]) -> list[Any]:
    """The answers to calls, each of which gives its arguments, once the worker has said hello."""
    lines = [
        json.dumps({"call": number, "task": "t", "attempt": 1, "function": name, **request})
        for number, request in enumerate(requests, 1)
    ]
    out, errors = process.communicate("".join(f"{line}\n" for line in lines).encode(), timeout=30)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines()[1:]]


def test_a_class_is_executed_on_a_new_instance_for_each_call(tmp_path: Path) -> None:
    process = start(tmp_path, "jobs:Sum", "jobs.Sum")
    first, second = calls(
        process, "jobs.Sum", {"args": [1, 2]}, {"args": [3], "kwargs": {"more": 4}}
    )
    assert first["value"] == [1, 3]
    assert second["value"] == [1, 7]


def test_a_function_is_called(tmp_path: Path) -> None:
    (answer,) = calls(start(tmp_path, "jobs:double", "jobs.double"), "jobs.double", {"args": [4]})
    assert answer["value"] == 8


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("jobs", "write module:Class"),
        ("jobs:Bad", "has no method execute"),
        ("jobs:__name__", "neither a class nor a function"),
        ("jobs:Missing", "has no attribute 'Missing'"),
        ("nothere:Class", "No module named 'nothere'"),
    ],
)
def test_a_name_that_cannot_be_served_says_why(tmp_path: Path, spec: str, told: str) -> None:
    process = start(tmp_path, spec, "x")
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert told in errors.decode()
