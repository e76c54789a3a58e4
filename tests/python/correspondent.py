"""A task that sends messages, or receives them, and notes each step in a log of its own.

correspondent.py receive FOLDER NAME
correspondent.py send FOLDER NAME TARGET COUNT

It uses nothing but the protocol of docs/messages.md. A message's bytes are its key, which no other
message has. FOLDER/targets has a line "NAME TASK" for each receiver; FOLDER/stop ends receivers.
A line of the log is written before the step after it: "got KEY" before the acknowledgement, "took
KEY" after it, "sent KEY" before a message is sent for the first time, and "answer KEY WORD" with the
final answer: delivered, the type of an error, or none if there was no answer in time.
"""

import http.client
import json
import os
import socket
import sys
import time
import urllib.parse
import uuid

WAIT = 20
"""How long a send waits, in seconds."""
PATIENCE = WAIT + 25
"""How long an answer may take."""


class Connection(http.client.HTTPConnection):
    def __init__(self, timeout):
        super().__init__("localhost", timeout=timeout)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.environ["CLUTCH_SOCKET"])


def request(method, path, query=None, body=None, timeout=PATIENCE):
    """Returns status, headers and body of the answer."""
    if query:
        path += "?" + urllib.parse.urlencode(query)
    connection = Connection(timeout)
    headers = {"Authorization": "Bearer " + os.environ["CLUTCH_TOKEN"]}
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


class Log:
    def __init__(self, folder, name):
        path = os.path.join(folder, "log", f"{name}-{uuid.uuid4()}")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.file = open(path, "a", encoding="utf-8")

    def note(self, *words):
        print(*words, file=self.file, flush=True)


def kind(body):
    """The word for an error, from its problem details."""
    return json.loads(body)["type"].replace("/", ":").rsplit(":", 1)[-1]


def receive(folder, name):
    log, stop = Log(folder, name), os.path.join(folder, "stop")
    while not os.path.exists(stop):
        query = {"addressee": "in", "timeout": "2s", "hold": "30s"}
        status, headers, body = request("GET", "/v1/messages", query)
        if status == 204:
            continue
        if status != 200:
            raise SystemExit(f"receiving: {status} {body}")
        key = body.decode()
        log.note("got", key)
        delivery = headers["Clutch-Delivery"]
        status, _, _ = request("POST", f"/v1/messages/{delivery}/ack")
        if status in (200, 204):
            log.note("took", key)


def target(folder, name):
    path = os.path.join(folder, "targets")
    while True:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                targets = dict(line.split() for line in file)
            return targets[name]
        time.sleep(0.1)


def answered(folder, name):
    """Returns how many messages of a sender were answered, in all its runs."""
    folder = os.path.join(folder, "log")
    count = 0
    for run in os.listdir(folder):
        if run.startswith(name + "-"):
            with open(os.path.join(folder, run), encoding="utf-8") as file:
                count += sum(line.startswith("answer ") for line in file)
    return count


def may_send(folder, number):
    """Whether a sender may send the message of this number, from 0 on."""
    try:
        with open(os.path.join(folder, "allowed"), encoding="utf-8") as file:
            return number < int(file.read())
    except FileNotFoundError:
        return True


def send(folder, name, to, count):
    log, task, run = Log(folder, name), target(folder, to), uuid.uuid4()
    for number in range(answered(folder, name), count):
        while not may_send(folder, number):
            time.sleep(0.05)
        key, message = f"{name}.{run}.{number}", str(uuid.uuid4())
        log.note("sent", key)
        query = {"to": task, "addressee": "in", "wait": f"{WAIT}s", "id": message}
        tries = 0
        while True:
            tries += 1
            try:
                status, _, body = request("POST", "/v1/messages", query, key.encode())
            except TimeoutError:
                log.note("answer", key, "none")
                break
            word = "delivered" if status == 200 else kind(body)
            # The same message again: whether it was taken is not known, or it was not sent.
            if word in ("timed_out", "unreachable") and tries < 200:
                time.sleep(0.2)
                continue
            log.note("answer", key, word)
            break


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(*sys.argv[2:4])
    else:
        send(*sys.argv[2:5], int(sys.argv[5]))
