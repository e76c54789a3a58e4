"""Celery on the broker of this run: no-op round trips per second, and how long one
takes when it is alone. Two worker processes; messages are persistent and
confirmed, tasks are acknowledged late, results come by message (rpc)."""

import json
import subprocess
import sys
import time

from celery import Celery

app = Celery("peer", broker=sys.argv[1] if len(sys.argv) > 2 else None, backend="rpc://")
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    result_persistent=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
)


@app.task(name="peer.nothing")
def nothing(number):
    return number


def main():
    url, count, sequential = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_peer", "-b", url, "worker", "-c", "2"]
        + ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        nothing.delay(0).get(timeout=60)
        for number in range(20):
            nothing.delay(number).get(timeout=60)
        started = time.monotonic()
        waiting = [nothing.delay(number) for number in range(count)]
        for one in waiting:
            one.get(timeout=120)
        seconds = time.monotonic() - started
        times = []
        for number in range(sequential):
            started = time.monotonic()
            nothing.delay(number).get(timeout=60)
            times.append((time.monotonic() - started) * 1000)
        times.sort()
        print(json.dumps({"per_second": count / seconds, "p50_ms": times[len(times) // 2]}))
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main()
