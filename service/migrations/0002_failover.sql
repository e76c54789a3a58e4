-- How long a state of this endpoint that another took over from may be silent
-- before it is given up.
ALTER TABLE endpoints ADD COLUMN lost_after_ms INTEGER NOT NULL DEFAULT 3600000;

-- The attempt that is under way, or was the last one; its payload is published
-- with this number.
ALTER TABLE tasks ADD COLUMN current_attempt INTEGER NOT NULL DEFAULT 1;

-- What an endpoint's instances said of their states. `holds` is 0 once a state
-- that waits has said that nothing is left in it. The active one is that whose
-- role is active and that nothing superseded; there is at most one.
CREATE TABLE states (
    endpoint_id      TEXT    NOT NULL REFERENCES endpoints (id),
    id               TEXT    NOT NULL,
    instance         TEXT    NOT NULL,
    role             TEXT    NOT NULL,
    holds            INTEGER NOT NULL,
    active_since_ms  INTEGER,
    superseded_at_ms INTEGER,
    given_up_at_ms   INTEGER,
    PRIMARY KEY (endpoint_id, id)
) STRICT, WITHOUT ROWID;

-- Attempts of which it is not known who has them, if anybody. `asked` is the
-- state that a roll call went to.
CREATE TABLE doubts (
    task        INTEGER PRIMARY KEY REFERENCES tasks (seq),
    endpoint_id TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    asked       TEXT
) STRICT;

CREATE INDEX doubts_to_ask ON doubts (endpoint_id) WHERE asked IS NULL;
