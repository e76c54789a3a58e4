-- Since when a state is known, and when it said last what it is: what is kept is bounded.
ALTER TABLE states ADD COLUMN known_since_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE states ADD COLUMN heard_at_ms INTEGER NOT NULL DEFAULT 0;
UPDATE states SET heard_at_ms = CAST(strftime('%s', 'now') AS INTEGER) * 1000;
