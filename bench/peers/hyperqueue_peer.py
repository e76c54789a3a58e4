"""HyperQueue on this machine: /bin/true per second, output into files, two cores, by
its Python API and, where `hq` is given, by its command line. Its server keeps no
journal unless it is asked to: nothing is durable."""

import json
import os
import subprocess
import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

CORES = 2


def by_python(count):
    with tempfile.TemporaryDirectory() as folder, LocalCluster() as cluster:
        cluster.start_worker(WorkerConfig(cores=CORES))
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
        return count / (time.monotonic() - started)


def by_command_line(hq, count):
    """One array, output into files as it is by default: server and worker are up."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HQ_SERVER_DIR": os.path.join(folder, "server")}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = []

        def start(*arguments):
            running.append(
                subprocess.Popen([hq, *arguments], cwd=folder, env=environment, **quiet)
            )

        def tell(*arguments, check=True):
            command = [hq, "--output-mode", "json", *arguments]
            told = subprocess.run(
                command, cwd=folder, env=environment, check=check, capture_output=True
            )
            return json.loads(told.stdout or "null") if told.returncode == 0 else None

        try:
            start("server", "start")
            until(lambda: tell("server", "info", check=False))
            start("worker", "start", "--cpus", str(CORES))
            until(lambda: tell("worker", "list"))
            started = time.monotonic()
            tell("submit", f"--array=1-{count}", "/bin/true")
            tell("job", "wait", "1")
            seconds = time.monotonic() - started
            finished = tell("job", "info", "1")[0]["info"]["task_stats"]["finished"]
            if finished != count:
                sys.exit(f"{finished} of {count} tasks succeeded")
            return count / seconds
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait()


def until(look):
    """Waits until something is there."""
    for _ in range(600):
        if look():
            return
        time.sleep(0.05)
    sys.exit("HyperQueue does not come up")


def main():
    count = int(sys.argv[1])
    figures = {"python": by_python(count), "command_line": None}
    if len(sys.argv) > 2:
        figures["command_line"] = by_command_line(sys.argv[2], count)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
