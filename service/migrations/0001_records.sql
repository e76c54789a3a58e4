-- Endpoints this service provisioned.
CREATE TABLE endpoints (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    queue_kind    TEXT    NOT NULL,
    -- 0 until the broker has its queue; until then the kind may still change.
    declared      INTEGER NOT NULL DEFAULT 0,
    created_at_ms INTEGER NOT NULL
) STRICT;

-- What is known once: the kind of the queues that all endpoints share.
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- A submission is known by its key.
CREATE TABLE submissions (
    id            INTEGER PRIMARY KEY,
    key           TEXT    NOT NULL UNIQUE,
    endpoint_id   TEXT    NOT NULL,
    total         INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

-- Every task, in the order of recording. `state` is submitting, returned,
-- refused, submitted or an outcome; `attempt` is the one whose result is the
-- recorded one. A task that a stranger submitted over AMQP has no submission.
CREATE TABLE tasks (
    seq             INTEGER PRIMARY KEY,
    id              TEXT    NOT NULL UNIQUE,
    endpoint_id     TEXT    NOT NULL,
    submission      INTEGER REFERENCES submissions (id),
    idx             INTEGER,
    name            TEXT,
    command         TEXT,
    state           TEXT    NOT NULL,
    attempt         INTEGER,
    created_at_ms   INTEGER NOT NULL,
    submitted_at_ms INTEGER,
    ended_at_ms     INTEGER
) STRICT;

CREATE UNIQUE INDEX tasks_by_submission ON tasks (submission, idx) WHERE submission IS NOT NULL;
CREATE INDEX tasks_by_submission_state ON tasks (submission, state, idx) WHERE submission IS NOT NULL;
CREATE INDEX tasks_by_endpoint ON tasks (endpoint_id);
CREATE INDEX tasks_by_endpoint_state ON tasks (endpoint_id, state);
CREATE INDEX tasks_by_state ON tasks (state);

-- The task as it is published (JSON), apart, so that listings stay small.
CREATE TABLE payloads (
    task INTEGER PRIMARY KEY REFERENCES tasks (seq),
    body TEXT NOT NULL
) STRICT;

-- Every attempt's first result; `duplicates` counts how often it came again.
CREATE TABLE results (
    task              INTEGER NOT NULL REFERENCES tasks (seq),
    attempt           INTEGER NOT NULL,
    outcome           TEXT    NOT NULL,
    exit_code         INTEGER,
    signal            INTEGER,
    reason            TEXT,
    stdout_omitted    INTEGER NOT NULL,
    stderr_omitted    INTEGER NOT NULL,
    started_at_ms     INTEGER,
    ended_at_ms       INTEGER NOT NULL,
    cpu_ms            INTEGER,
    peak_memory_bytes INTEGER,
    endpoint_id       TEXT    NOT NULL,
    state_id          TEXT,
    received_at_ms    INTEGER NOT NULL,
    duplicates        INTEGER NOT NULL DEFAULT 0,
    stdout            BLOB    NOT NULL,
    stderr            BLOB    NOT NULL,
    PRIMARY KEY (task, attempt)
) STRICT;

-- How many tasks of a submission are in each state, kept by the triggers.
CREATE TABLE counts (
    submission INTEGER NOT NULL,
    state      TEXT    NOT NULL,
    tasks      INTEGER NOT NULL,
    PRIMARY KEY (submission, state)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER tasks_counted AFTER INSERT ON tasks WHEN new.submission IS NOT NULL BEGIN
    INSERT INTO counts (submission, state, tasks) VALUES (new.submission, new.state, 1)
    ON CONFLICT (submission, state) DO UPDATE SET tasks = tasks + 1;
END;

CREATE TRIGGER tasks_recounted AFTER UPDATE OF state ON tasks
WHEN new.submission IS NOT NULL AND new.state <> old.state BEGIN
    UPDATE counts SET tasks = tasks - 1 WHERE submission = old.submission AND state = old.state;
    INSERT INTO counts (submission, state, tasks) VALUES (new.submission, new.state, 1)
    ON CONFLICT (submission, state) DO UPDATE SET tasks = tasks + 1;
END;
