"""The side of a running task, against an endpoint that answers as docs/messages.md says."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, Iterator

import pytest

from clutch import task

ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {}
SEEN: list[tuple[str, str, str, bytes]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "task"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        SEEN.append((self.command, self.path, self.headers["Authorization"], body))
        status, headers, answer = ANSWERS[self.path.split("?")[0]]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if answer:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@pytest.fixture(autouse=True)
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = tmp_path / "s"
    monkeypatch.setenv("CLUTCH_SOCKET", str(path))
    monkeypatch.setenv("CLUTCH_TOKEN", "secret")
    ANSWERS.clear()
    SEEN.clear()
    with Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def test_a_message_is_sent_as_it_is_and_the_answer_returned() -> None:
    ANSWERS["/v1/messages"] = (200, {}, b'{"message": "m", "delivered": {"attempt": 2}}')
    assert task.send("t", "a b", b"\x00\xff", wait=1.5)["delivered"] == {"attempt": 2}
    told = ("POST", "/v1/messages?to=t&addressee=a+b&wait=1500ms", "Bearer secret", b"\x00\xff")
    assert [told] == SEEN


def test_an_error_has_its_type_and_the_connection_goes_on() -> None:
    problem = {"type": "finished", "detail": "it ended", "outcome": "failed"}
    ANSWERS["/v1/messages"] = (410, {}, json.dumps(problem).encode())
    for _ in range(2):
        with pytest.raises(task.TaskError) as raised:
            task.send("t", "in")
        assert (raised.value.type, raised.value.outcome) == ("finished", "failed")


def test_a_message_is_taken_when_it_is_acknowledged_and_given_back_by_an_exception() -> None:
    headers = {
        "Clutch-Source": "s",
        "Clutch-Source-Attempt": "3",
        "Clutch-Addressee": "gr%C3%BC%C3%9F",
        "Clutch-Message": "m",
        "Clutch-Delivery": "7",
    }
    ANSWERS["/v1/messages"] = (200, headers, b"body")
    ANSWERS["/v1/messages/7/ack"] = ANSWERS["/v1/messages/7/nack"] = (204, {}, b"")
    told = task.receive("in", timeout=2)
    assert (told.source, told.source_attempt, told.addressee) == ("s", 3, "grüß")
    assert (told.body, SEEN[-1][1]) == (b"body", "/v1/messages/7/ack")
    with pytest.raises(KeyError), task.receive("in", hold=True):
        raise KeyError
    assert SEEN[-1][1] == "/v1/messages/7/nack"


def test_what_does_not_come_in_time_is_an_error_of_its_own() -> None:
    ANSWERS["/v1/messages"] = (204, {}, b"")
    ANSWERS["/v1/cancelled"] = (204, {}, b"")
    with pytest.raises(task.NoMessage):
        task.receive("in", timeout=0)
    assert task.cancelled() is None


def test_a_message_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(task.TaskError) as raised:
        task.send("t", "in", b"x" * (task.MAX_MESSAGE + 1))
    assert raised.value.type == "too_large"
    assert SEEN == []


def test_outside_of_a_task_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUTCH_TOKEN")
    with pytest.raises(task.NotATask, match="CLUTCH_TOKEN"):
        task.whoami()
