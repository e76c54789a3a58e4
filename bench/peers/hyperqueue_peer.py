"""HyperQueue on this machine: /bin/true per second, output into files, two cores.
Its server keeps no journal unless it is asked to: nothing is durable."""

import json
import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main():
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, LocalCluster() as cluster:
        cluster.start_worker(WorkerConfig(cores=2))
        client = cluster.client()
        job = Job(folder)
        for number in range(count):
            job.program(
                ["/bin/true"], stdout=f"{folder}/{number}.out", stderr=f"{folder}/{number}.err"
            )
        started = time.monotonic()
        submitted = client.submit(job)
        if not client.wait_for_jobs([submitted]):
            sys.exit("not all tasks succeeded")
        print(json.dumps({"per_second": count / (time.monotonic() - started)}))


if __name__ == "__main__":
    main()
