"""Hooks of schemathesis: they keep requests short, and requests that are meant to be taken to
rules about several values that a schema cannot say; and they have every second of these name
something that exists."""

import itertools
import os

import schemathesis
from schemathesis import GenerationMode

# How long a request may wait, in milliseconds.
SHORT = 50
# The submission of one task for the endpoint, which `cargo xtask schemathesis` makes.
ENDPOINT, KEY, TASK = "lab", "first", os.environ["CLUTCH_TASK"]

# A moment that is past, and a time that is short, in milliseconds.
LATEST = 10**12

calls = itertools.count()


def shorten(values, written):
    """Has a request that would wait wait for a moment only; `written` reads its numbers."""
    for name in ("timeout_ms", "wait_ms", "for_ms"):
        value = written(values.get(name))
        if value is not None and SHORT < value < 2**64:
            values[name] = SHORT


def in_json(value):
    is_whole = isinstance(value, float) and value.is_integer()
    return value if type(value) is int or is_whole else None


def in_query(value):
    return int(value) if str(value).isdecimal() else None


def whole(value):
    """Writes 16.0 as 16: to a schema both are integers, to the API only the second is."""
    if isinstance(value, dict):
        return {name: whole(member) for name, member in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def is_text(value):
    return isinstance(value, str) and value != "" and "\0" not in value


def runnable(task):
    """Makes a task one that can run: see `Task::validate` in common/src/task.rs."""
    if task.get("call") is not None:
        return
    argv = [word for word in task["argv"] if is_text(word)]
    task["argv"] = argv or ["true"]
    env = task.get("env", {})
    good = {name: value for name, value in env.items() if is_text(name) and "=" not in name}
    if "env" in task:
        task["env"] = {name: value for name, value in good.items() if is_text(value)}
    if task.get("cwd") is not None:
        task["cwd"] = "/tmp"


def pauses(retry):
    """Has the first pause of a retry policy be no longer than the longest."""
    if retry is not None:
        first, longest = retry.get("first_pause_ms", 1000), retry.get("longest_pause_ms", 60_000)
        retry["first_pause_ms"], retry["longest_pause_ms"] = sorted((first, longest))


def recipient(body):
    """Has a submission go to an endpoint, or to a topic: see service/src/api/recipient.rs."""
    if body.get("endpoint") is None and body.get("topic") is None:
        body["endpoint"] = ENDPOINT
    if body.get("endpoint") is not None:
        for name in ("topic", "function_version", "start_within_ms", "place_within_ms"):
            body.pop(name, None)
    else:
        body.pop("confirmed", None)


def submission(body):
    """Has the parts of a submission fit together."""
    recipient(body)
    body["total"] = max(body["total"], len(body["tasks"]))
    if "first" in body:
        body["first"] = min(body["first"], body["total"] - len(body["tasks"]))
    pauses(body.get("retry"))
    due = body.get("due")
    if due is not None:
        # No further ahead than 100 years, and the broker gets the tasks only then.
        body["due"] = {name: min(moment, LATEST) for name, moment in due.items() if type(moment) is int}
        body.pop("confirmed", None)
    for task in body["tasks"]:
        runnable(task)


def schedules(body):
    """Has the schedules of a set be taken: see `NamedSchedule::check` in
    service/src/model/schedules.rs."""
    body["replace"] = True
    # A set that was taken is looked for by the name of its first schedule.
    body.pop("dry_run", None)
    body["schedules"] = body["schedules"] or [
        {"name": "", "spec": {"endpoint": ENDPOINT, "rule": {}, "task": {"argv": ["true"]}}}
    ]
    if body.get("owner") is None:
        body.pop("prune", None)
    for number, schedule in enumerate(body["schedules"]):
        schedule["name"] = f"schedule-{number}"
        spec = schedule["spec"]
        spec["rule"] = {"recurrence": {"every_ms": 3_600_000}}
        pauses(spec.get("retry"))
        runnable(spec["task"])


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query if isinstance(case.query, dict) else {}
    body = case.body if isinstance(case.body, dict) else {}
    shorten(query, in_query)
    shorten(body, in_json)
    path = case.operation.path
    if path == "/v1/events":
        query.setdefault("for_ms", SHORT)
        case.query = query
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    if body:
        body = case.body = whole(body)
    # Of two parameters one is required, or at most one is allowed.
    if path == "/v1/progress" and "key" in query:
        query.pop("endpoint", None)
    if path == "/v1/cancel" and body.get("endpoint") is not None:
        body.pop("topic", None)
    if path == "/v1/results":
        if "key" in query:
            query.pop("task", None)
        elif "task" not in query:
            query["key"] = "first"
            case.query = query
    if path == "/v1/tasks" and case.method.upper() == "POST" and body:
        submission(body)
    if path == "/v1/schedules" and case.method.upper() == "POST" and body:
        schedules(body)
    if next(calls) % 2:
        return
    for values in (query, body):
        for name, known in (("key", KEY), ("endpoint", ENDPOINT), ("task", TASK)):
            # A submission with that key is of another task.
            if values.get(name) is not None and not (name == "key" and "total" in values):
                values[name] = known
    parameters = case.path_parameters or {}
    if "id" in parameters:
        parameters["id"] = TASK
    if "name" in parameters and not path.endswith("/remove"):
        parameters["name"] = ENDPOINT if path.startswith("/v1/endpoints") else "schedule-0"
