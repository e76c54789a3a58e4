-- What every task costs is kept small: ids are their 16 bytes, an endpoint or a state that
-- many rows name is a number, and an index holds only what is looked for in it.

-- Endpoints that this service provisioned.
CREATE TABLE endpoints (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    queue_kind    TEXT    NOT NULL,
    -- 0 until the broker has its queue; until then the kind may still change.
    declared      INTEGER NOT NULL DEFAULT 0,
    created_at_ms INTEGER NOT NULL,
    -- How long a state of this endpoint that another took over from may be silent before
    -- it is given up.
    lost_after_ms INTEGER NOT NULL DEFAULT 3600000,
    -- How many messages that steer the endpoint were numbered.
    steering_number INTEGER NOT NULL DEFAULT 0,
    -- The number of the last of them that is a drain or a resume, whether it is a drain, since
    -- when, until when, and whether the broker has it.
    drain_number      INTEGER NOT NULL DEFAULT 0,
    draining          INTEGER NOT NULL DEFAULT 0,
    drain_since_ms    INTEGER,
    drain_deadline_ms INTEGER,
    drain_confirmed   INTEGER NOT NULL DEFAULT 1
) STRICT;

-- Single values: the service's id, the kind of the shared queues, the places provisioned, the
-- bounds of what was forgotten.
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Ids of endpoints and states that many rows name.
CREATE TABLE interned_ids (
    n  INTEGER PRIMARY KEY,
    id TEXT    NOT NULL UNIQUE
) STRICT;

-- A submission is identified by its key.
CREATE TABLE submissions (
    id            INTEGER PRIMARY KEY,
    key           TEXT    NOT NULL UNIQUE,
    endpoint_id   TEXT    NOT NULL,
    total         INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    -- How many of its tasks are forgotten: their rows are gone, and `counts` has them still.
    forgotten     INTEGER NOT NULL DEFAULT 0,
    -- If its tasks are scheduled: when they are due, and when they were released, all of them.
    due_at_ms      INTEGER,
    released_at_ms INTEGER
) STRICT;

CREATE INDEX submissions_due ON submissions (due_at_ms)
WHERE due_at_ms IS NOT NULL AND released_at_ms IS NULL;

-- Every task, in the order of recording. `state` is scheduled (it is due later, with its
-- submission), unplaced (it is of a topic, and no member has it), waiting (the current attempt was not
-- handed to the link, or the broker did not take it), submitting (it was handed over, and the
-- broker has not answered), submitted or an outcome; `attempt` is the one whose result decided
-- the state; `current_attempt` the one under way, or the last one. `priority` is 0 for a normal
-- one, larger for a higher level. An external task, which another program submitted over AMQP,
-- has no submission.
CREATE TABLE tasks (
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
    submitted_at_ms INTEGER,
    priority        INTEGER NOT NULL DEFAULT 0,
    cores           INTEGER NOT NULL DEFAULT 1,
    -- The number of its topic, if it was submitted to one.
    topic           INTEGER
) STRICT;

CREATE UNIQUE INDEX tasks_by_id ON tasks (id);
CREATE UNIQUE INDEX tasks_by_submission ON tasks (submission, idx) WHERE submission IS NOT NULL;
CREATE INDEX tasks_by_endpoint ON tasks (endpoint);
-- It has none of the normal ones, and no state changes it.
CREATE INDEX tasks_with_priority ON tasks (endpoint, priority) WHERE priority <> 0;
-- The states that few tasks are in. For the common ones the rows themselves are gone
-- through: an index of them would be changed with every task. The condition is no
-- `NOT IN`: that list would be made a table of its own for every row that is written.
CREATE INDEX tasks_in_uncommon_states ON tasks (state)
WHERE state <> 'submitting' AND state <> 'submitted' AND state <> 'succeeded';

-- The task as its first attempt is published (JSON), apart, so that listings stay small.
CREATE TABLE payloads (
    task INTEGER PRIMARY KEY,
    body TEXT    NOT NULL
) STRICT;

-- How many tasks of a submission are in each state, those that are forgotten among them.
CREATE TABLE counts (
    submission INTEGER NOT NULL,
    state      TEXT    NOT NULL,
    tasks      INTEGER NOT NULL,
    PRIMARY KEY (submission, state)
) STRICT, WITHOUT ROWID;

-- The first result of every attempt; `duplicates` counts how often it came again. `n` is
-- the task's row times 2^32, plus the attempt.
CREATE TABLE results (
    n                 INTEGER PRIMARY KEY,
    attempt           INTEGER NOT NULL GENERATED ALWAYS AS (n & 4294967295) VIRTUAL,
    outcome           TEXT    NOT NULL,
    exit_code         INTEGER,
    signal            INTEGER,
    reason            TEXT,
    stdout_omitted    INTEGER NOT NULL,
    stderr_omitted    INTEGER NOT NULL,
    accepted_at_ms    INTEGER,
    started_at_ms     INTEGER,
    ended_at_ms       INTEGER NOT NULL,
    published_at_ms   INTEGER,
    cpu_ms            INTEGER,
    peak_memory_bytes INTEGER,
    endpoint          INTEGER NOT NULL,
    state             INTEGER,
    received_at_ms    INTEGER NOT NULL,
    duplicates        INTEGER NOT NULL DEFAULT 0,
    stdout            BLOB    NOT NULL,
    stderr            BLOB    NOT NULL,
    -- What a function returned (JSON); a process returns nothing.
    value             TEXT,
    -- The files that were removed with the sandbox (JSON).
    removed_files     TEXT,
    -- The shape of a failed call's error (JSON).
    error             TEXT
) STRICT;

-- What an endpoint's instances said of their states. `holds` is 0 once a standby has said
-- that nothing is left in its state. The active state is the one whose role is active and
-- that nothing superseded; there is at most one.
CREATE TABLE states (
    endpoint_id      TEXT    NOT NULL,
    id               TEXT    NOT NULL,
    instance         TEXT    NOT NULL,
    role             TEXT    NOT NULL,
    holds            INTEGER NOT NULL,
    active_since_ms  INTEGER,
    superseded_at_ms INTEGER,
    given_up_at_ms   INTEGER,
    -- The delivered attempt that no record was found of, when that was reported.
    missed           TEXT,
    known_since_ms   INTEGER NOT NULL DEFAULT 0,
    heard_at_ms      INTEGER NOT NULL DEFAULT 0,
    -- How many commits the state is known to have seen.
    commits          INTEGER NOT NULL DEFAULT 0,
    -- The instance that waits to be welcomed, and whether its state has seen fewer.
    asks             TEXT,
    behind           INTEGER NOT NULL DEFAULT 0,
    -- What its instance told of itself last (JSON), and the difference of its clock.
    details          TEXT,
    PRIMARY KEY (endpoint_id, id)
) STRICT, WITHOUT ROWID;

-- Attempts that are unaccounted for: it is not known which state has them, if any.
-- `asked` is the state that a roll call went to.
CREATE TABLE unaccounted (
    task           INTEGER PRIMARY KEY,
    endpoint_id    TEXT    NOT NULL,
    attempt        INTEGER NOT NULL,
    asked          TEXT,
    asked_at_ms    INTEGER,
    -- When the state that was asked had read the roll call, and not said that it is lost.
    answered_at_ms INTEGER
) STRICT;

CREATE INDEX unaccounted_to_ask ON unaccounted (endpoint_id) WHERE asked IS NULL;

-- When the service runs tasks of a submission again by itself: after which outcomes (with
-- commas between them), how often, and after what pauses.
CREATE TABLE retry_policies (
    submission       INTEGER PRIMARY KEY,
    retries          INTEGER NOT NULL,
    first_pause_ms   INTEGER NOT NULL,
    longest_pause_ms INTEGER NOT NULL,
    outcomes         TEXT NOT NULL
) STRICT;

-- Waiting tasks that are not handed to the link before a time.
CREATE TABLE pauses (
    task      INTEGER PRIMARY KEY,
    due_at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX pauses_by_time ON pauses (due_at_ms);

-- When the last attempt at a task that was run again expires, if it does.
CREATE TABLE renewed_expiries (
    task          INTEGER PRIMARY KEY,
    expires_at_ms INTEGER NOT NULL
) STRICT;

-- The parents of tasks that tasks submitted. A parent is named by its id, which stays when it is
-- forgotten.
CREATE TABLE children (
    task   INTEGER PRIMARY KEY,
    parent BLOB    NOT NULL
) STRICT;

CREATE INDEX children_by_parent ON children (parent);

-- Messages to tasks that the service keeps until a process of the target has taken them, in the
-- order of `n`. `state` is kept, taken, superseded, or the outcome of a target that did not take
-- it; `attempt` is the one that took it, or the newer one. The body goes with the end.
CREATE TABLE messages (
    n              INTEGER PRIMARY KEY,
    id             TEXT    NOT NULL UNIQUE,
    task           INTEGER NOT NULL,
    source         BLOB    NOT NULL,
    source_attempt INTEGER NOT NULL,
    pinned         INTEGER,
    addressee      TEXT    NOT NULL,
    bytes          INTEGER NOT NULL,
    body           BLOB    NOT NULL,
    state          TEXT    NOT NULL DEFAULT 'kept',
    attempt        INTEGER,
    kept_at_ms     INTEGER NOT NULL,
    ended_at_ms    INTEGER
) STRICT;

CREATE INDEX messages_by_task ON messages (task);
CREATE INDEX messages_kept ON messages (n) WHERE state = 'kept';

-- Tasks without an outcome whose cancellation was requested. `attempt` is the one under way
-- then; `number` is that of the message that names it.
CREATE TABLE cancellations (
    task            INTEGER PRIMARY KEY,
    endpoint_id     TEXT    NOT NULL,
    attempt         INTEGER NOT NULL,
    number          INTEGER NOT NULL,
    requested_at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX cancellations_by_message ON cancellations (endpoint_id, number);

-- The messages that cancel tasks, until they are no longer in force; `confirmed` is 1 once the
-- broker has it.
CREATE TABLE cancels (
    endpoint_id TEXT    NOT NULL,
    number      INTEGER NOT NULL,
    confirmed   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (endpoint_id, number)
) STRICT, WITHOUT ROWID;

-- The messages in which instances last said what they are: one that was not acknowledged
-- before the link was lost comes again, when it may not be so any more.
CREATE TABLE presence_messages (
    n       INTEGER PRIMARY KEY,
    message TEXT    NOT NULL UNIQUE
) STRICT;

-- Schedules: what each does, and when (JSON); how far it is (JSON); when to look at it next,
-- if that is a matter of time; and why its record cannot be read, if so.
CREATE TABLE schedules (
    name        TEXT    NOT NULL PRIMARY KEY,
    owner       TEXT,
    spec        TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    due_at_ms   INTEGER,
    broken      TEXT,
    added_at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX schedules_due ON schedules (due_at_ms) WHERE due_at_ms IS NOT NULL;

-- The one record of each instant, or of many in a row that are skipped for one reason. `ending`
-- is task, queued, skipped or failed; `unsettled` is 1 until the end of its task is noted.
CREATE TABLE occurrences (
    schedule       TEXT    NOT NULL,
    instant_ms     INTEGER NOT NULL,
    last_ms        INTEGER,
    instants       INTEGER NOT NULL,
    ending         TEXT    NOT NULL,
    reason         TEXT,
    task           BLOB,
    unsettled      INTEGER NOT NULL,
    by_hand        INTEGER NOT NULL DEFAULT 0,
    recorded_at_ms INTEGER NOT NULL,
    due_at_ms      INTEGER NOT NULL,
    PRIMARY KEY (schedule, instant_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX occurrences_unsettled ON occurrences (schedule) WHERE unsettled = 1;

-- By the name of a schedule, the newest instant of which the record was forgotten with its task:
-- nothing up to it fires under that name again.
CREATE TABLE forgotten_instants (
    schedule  TEXT     NOT NULL PRIMARY KEY,
    newest_ms INTEGER  NOT NULL
) STRICT, WITHOUT ROWID;

-- Topics: `n` is the number that stands for one in `interned_ids`, `turn` that of the last of its
-- tasks that was placed.
CREATE TABLE topics (
    n    INTEGER PRIMARY KEY,
    name TEXT   NOT NULL UNIQUE,
    turn INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The kinds of tasks: those of a topic that ask for the same function, or for none (empty), in the
-- same version, or in any (empty).
CREATE TABLE topic_kinds (
    n        INTEGER PRIMARY KEY,
    topic    INTEGER NOT NULL,
    function TEXT   NOT NULL,
    version  TEXT   NOT NULL,
    UNIQUE (topic, function, version)
) STRICT;

-- Each task of a topic. `waits` is 1 while it is to be placed, in the order of its turn; `member`
-- is the number of the endpoint that its last attempt was given to, `claimed` 1 once that endpoint
-- has claimed it. One that ended in the transaction that took in its claim has no mark of it.
CREATE TABLE topic_tasks (
    task            INTEGER PRIMARY KEY,
    kind            INTEGER NOT NULL,
    priority        INTEGER NOT NULL,
    turn            INTEGER NOT NULL,
    cores           INTEGER NOT NULL,
    waits           INTEGER NOT NULL,
    start_within_ms INTEGER NOT NULL,
    place_within_ms INTEGER,
    place_by_ms     INTEGER,
    member          INTEGER,
    attempt         INTEGER,
    placed_at_ms    INTEGER,
    start_by_ms     INTEGER,
    claimed         INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX topic_tasks_that_wait ON topic_tasks (kind, priority, turn, task) WHERE waits = 1;
CREATE INDEX topic_tasks_by_patience ON topic_tasks (place_by_ms)
WHERE waits = 1 AND place_by_ms IS NOT NULL;

-- Earlier placements of tasks of topics, by which late results of them are known.
CREATE TABLE placements (
    task    INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    member  INTEGER NOT NULL,
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;
