"""Globus Compute's endpoint on the broker of this run, without its cloud: Python
no-ops per second, and how long one takes when it is alone. This script stands in
for the cloud: it declares the queues, publishes tasks as the cloud does, and takes
results. Queues and messages are durable; the endpoint acknowledges a task once it is
in its engine's memory, and keeps a result in memory until the broker has it."""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid

import pika
from globus_compute_common.messagepack import pack, unpack
from globus_compute_common.messagepack.message_types import Result, Task
from globus_compute_sdk.serialize import ComputeSerializer

WORKERS = 2
PERSISTENT = {"delivery_mode": 2}


def nothing(number):
    return number


def names(endpoint):
    return {what: f"{endpoint}.{what}" for what in ["tasks", "results", "heartbeats"]}


def endpoint(url, endpoint_id, engine):
    """What the process of the endpoint does."""
    from globus_compute_endpoint import engines
    from globus_compute_endpoint.endpoint.config import UserEndpointConfig
    from globus_compute_endpoint.endpoint.interchange import EndpointInterchange

    options = {
        "GlobusComputeEngine": {"max_workers_per_node": WORKERS, "address": "127.0.0.1"},
        "ProcessPoolEngine": {"max_workers": WORKERS},
        "ThreadPoolEngine": {"max_workers": WORKERS},
    }
    queues = names(endpoint_id)

    def info(what):
        return {
            "connection_url": url,
            "exchange": queues["results"],
            "queue": queues[what],
            "queue_publish_kwargs": {
                "exchange": queues["results"],
                "routing_key": queues[what],
                "mandatory": True,
                "properties": PERSISTENT,
            },
        }

    credentials = {
        "amqp_creds": {
            "task_queue_info": info("tasks"),
            "result_queue_info": info("results"),
            "heartbeat_queue_info": info("heartbeats"),
        }
    }
    EndpointInterchange(
        config=UserEndpointConfig(engine=getattr(engines, engine)(**options[engine])),
        cred_fn=lambda: credentials,
        ep_info={},
        endpoint_id=endpoint_id,
    ).start()


class Cloud:
    """The far side of the endpoint, as far as it is needed."""

    def __init__(self, url, endpoint_id):
        self.queues = names(endpoint_id)
        self.channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
        self.channel.exchange_declare(self.queues["results"], "topic", durable=True)
        for what, queue in self.queues.items():
            self.channel.queue_declare(queue, durable=True)
            if what != "tasks":
                self.channel.queue_bind(queue, self.queues["results"], queue)
        serializer = ComputeSerializer()
        parts = [serializer.serialize(part) for part in (nothing, (1,), {})]
        self.task = serializer.pack_buffers(parts)
        self.results = self.channel.consume(self.queues["results"], auto_ack=True)

    def submit(self):
        task_id = uuid.uuid4()
        headers = {"function_uuid": str(uuid.uuid4()), "task_uuid": str(task_id)}
        self.channel.basic_publish(
            "",
            self.queues["tasks"],
            pack(Task(task_id=task_id, task_buffer=self.task)),
            pika.BasicProperties(headers=headers, **PERSISTENT),
        )

    def take(self, count):
        for _, (_, _, body) in zip(range(count), self.results):
            result = unpack(body)
            if not isinstance(result, Result) or result.error_details:
                sys.exit(f"a task did not succeed: {result}")


def main():
    url, engine, count, sequential = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    endpoint_id = str(uuid.uuid4())
    cloud = Cloud(url, endpoint_id)
    # An engine starts its workers by their names.
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory() as folder:
        daemon = subprocess.Popen(
            [sys.executable, __file__, "endpoint", url, endpoint_id, engine],
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(20):
                cloud.submit()
            cloud.take(20)
            started = time.monotonic()
            for _ in range(count):
                cloud.submit()
            cloud.take(count)
            seconds = time.monotonic() - started
            times = []
            for _ in range(sequential):
                started = time.monotonic()
                cloud.submit()
                cloud.take(1)
                times.append((time.monotonic() - started) * 1000)
            times.sort()
            figures = {"per_second": count / seconds, "p50_ms": times[len(times) // 2]}
            print(json.dumps(figures))
        finally:
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


if __name__ == "__main__":
    if sys.argv[1] == "endpoint":
        endpoint(*sys.argv[2:])
    else:
        main()
