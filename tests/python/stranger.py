"""Submits tasks to a Clutch endpoint and reads their results.

Written from design/0002-wire.md alone, with nothing but pika, a stock AMQP
client. Usage: stranger.py AMQP_URL ENDPOINT_ID

Prints the results as one JSON object: task name -> result, and under
"passed_by" what came that was no result of a task's end.
"""

import json
import sys
import time
import uuid

import pika
from pika.exceptions import UnroutableError

PATIENCE = 120.0


def bytes_of(value):
    """Bytes are a string where they are UTF-8, else {"base64": …}."""
    if isinstance(value, str):
        return value.encode()
    import base64

    return base64.b64decode(value["base64"])


def publish(channel, endpoint, tasks, version=1):
    one = tasks[0]["id"] if len(tasks) == 1 else None
    send(channel, endpoint, "clutch.tasks", {"version": version, "tasks": tasks}, one)


def send(channel, endpoint, kind, content, correlation_id=None):
    body = json.dumps({"type": kind, **content})
    channel.basic_publish(
        exchange="",
        routing_key=f"{endpoint}.tasks",
        body=body.encode(),
        properties=pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            type=kind,
            message_id=str(uuid.uuid4()),
            correlation_id=correlation_id,
            timestamp=int(time.time()),
        ),
        mandatory=True,
    )


def task(argv, **more):
    process = {"argv": argv}
    for name in ("env", "stdin"):
        if name in more:
            process[name] = more.pop(name)
    return {"id": str(uuid.uuid4()), "work": {"process": process}, **more}


def main(url, endpoint):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()

    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchange="results", routing_key=f"{endpoint}.results")

    # Several tasks in one message, and one alone.
    tasks = [
        task(["sha256sum"], stdin="abc", name="sum"),
        task(["sh", "-c", "echo $GREETING; exit 4"], env={"GREETING": "hello"}, name="greet"),
        task(["printf", "\\377\\376"], name="bytes"),
        task(["sleep", "60"], walltime_ms=300, name="slow"),
        task([], name="empty"),
    ]
    publish(channel, endpoint, tasks)
    tasks.append(task(["cat"], stdin={"base64": "/wA="}, name="cat", unknown_field=[1]))
    publish(channel, endpoint, tasks[-1:])
    # The same again: it runs once all the same.
    publish(channel, endpoint, tasks[-1:])

    # A control message that the endpoint does not know is passed by; tasks of a version that
    # it does not know are refused.
    send(channel, endpoint, "clutch.hint", {"version": 2, "hurry": True})
    tasks.append(task(["true"], name="later"))
    publish(channel, endpoint, tasks[-1:], version=2)

    try:
        publish(channel, str(uuid.uuid4()), [task(["true"])])
        raise SystemExit("an endpoint that does not exist took a task")
    except UnroutableError:
        pass

    wanted = {one["id"]: one["name"] for one in tasks}
    found = {}
    passed_by = set()
    deadline = time.monotonic() + PATIENCE
    while (len(found) < len(wanted) or len(passed_by) < 3) and time.monotonic() < deadline:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            connection.sleep(0.05)
            continue
        if properties.type != "clutch.results":
            # Between the service and its endpoints: to be passed by.
            passed_by.add(properties.type)
            continue
        envelope = json.loads(body)
        assert envelope["version"] == 1, envelope
        assert envelope["type"] == properties.type == "clutch.results", envelope
        assert properties.content_type == "application/json", properties
        assert method.routing_key == f"{endpoint}.results", method
        for result in envelope["results"]:
            if "lost" in result:
                # Not the task's end: another result follows.
                passed_by.add(result["lost"])
                continue
            assert result["endpoint_id"] == endpoint, result
            name = wanted[result["task_id"]]
            result["stdout_hex"] = bytes_of(result.get("stdout", "")).hex()
            found.setdefault(name, result)
    connection.close()
    json.dump({**found, "passed_by": sorted(passed_by)}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
