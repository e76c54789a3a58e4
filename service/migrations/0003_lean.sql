-- What every task costs is kept small: ids are their 16 bytes, an endpoint or a
-- state that many rows name is a number, an index holds only what is looked for
-- in it, and whoever moves tasks from state to state counts them at once.

-- Ids that many rows name.
CREATE TABLE names (
    n  INTEGER PRIMARY KEY,
    id TEXT    NOT NULL UNIQUE
) STRICT;

INSERT INTO names (id)
SELECT endpoint_id FROM tasks UNION SELECT endpoint_id FROM results
UNION SELECT state_id FROM results WHERE state_id IS NOT NULL;

DROP TRIGGER tasks_counted;
DROP TRIGGER tasks_recounted;

-- `state` is submitting, returned, refused, submitted, resubmitting or an outcome;
-- `attempt` is the one whose result is the recorded one; `current_attempt` the one
-- under way, or the last one. A task that a stranger submitted over AMQP has no
-- submission.
CREATE TABLE lean_tasks (
    seq             INTEGER PRIMARY KEY,
    id              BLOB    NOT NULL,
    endpoint        INTEGER NOT NULL,
    submission      INTEGER,
    idx             INTEGER,
    name            TEXT,
    command         TEXT,
    state           TEXT    NOT NULL,
    attempt         INTEGER,
    current_attempt INTEGER NOT NULL DEFAULT 1,
    created_at_ms   INTEGER NOT NULL,
    submitted_at_ms INTEGER
) STRICT;

INSERT INTO lean_tasks
SELECT t.seq, unhex(replace(t.id, '-', '')), n.n, t.submission, t.idx, t.name, t.command, t.state,
       t.attempt, t.current_attempt, t.created_at_ms, t.submitted_at_ms
FROM tasks t JOIN names n ON n.id = t.endpoint_id ORDER BY t.seq;

-- The task as its first attempt is published (JSON), apart, so that listings stay
-- small.
CREATE TABLE lean_payloads (
    task INTEGER PRIMARY KEY,
    body TEXT    NOT NULL
) STRICT;

INSERT INTO lean_payloads SELECT task, body FROM payloads ORDER BY task;

-- Every attempt's first result; `duplicates` counts how often it came again. `n` is
-- the task's row times 2^32, plus the attempt: rows are found and added without an
-- index beside them.
CREATE TABLE lean_results (
    n                 INTEGER PRIMARY KEY,
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
    endpoint          INTEGER NOT NULL,
    state             INTEGER,
    received_at_ms    INTEGER NOT NULL,
    duplicates        INTEGER NOT NULL DEFAULT 0,
    stdout            BLOB    NOT NULL,
    stderr            BLOB    NOT NULL
) STRICT;

INSERT INTO lean_results
SELECT (r.task << 32) | r.attempt, r.outcome, r.exit_code, r.signal, r.reason, r.stdout_omitted,
       r.stderr_omitted, r.started_at_ms, r.ended_at_ms, r.cpu_ms, r.peak_memory_bytes, e.n, s.n,
       r.received_at_ms, r.duplicates, r.stdout, r.stderr
FROM results r JOIN names e ON e.id = r.endpoint_id LEFT JOIN names s ON s.id = r.state_id
ORDER BY r.task, r.attempt;

CREATE TABLE lean_doubts (
    task        INTEGER PRIMARY KEY,
    endpoint_id TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    asked       TEXT
) STRICT;

INSERT INTO lean_doubts SELECT task, endpoint_id, attempt, asked FROM doubts;

DROP TABLE doubts;
DROP TABLE results;
DROP TABLE payloads;
DROP TABLE tasks;
ALTER TABLE lean_tasks RENAME TO tasks;
ALTER TABLE lean_payloads RENAME TO payloads;
ALTER TABLE lean_results RENAME TO results;
ALTER TABLE lean_doubts RENAME TO doubts;

CREATE UNIQUE INDEX tasks_by_id ON tasks (id);
CREATE UNIQUE INDEX tasks_by_submission ON tasks (submission, idx) WHERE submission IS NOT NULL;
CREATE INDEX tasks_by_endpoint ON tasks (endpoint);
-- What ended otherwise than most do. For the common states the rows themselves are
-- gone through: an index of them would be changed with every task.
CREATE INDEX tasks_rare ON tasks (state)
WHERE state NOT IN ('submitting', 'submitted', 'succeeded');
CREATE INDEX doubts_to_ask ON doubts (endpoint_id) WHERE asked IS NULL;
