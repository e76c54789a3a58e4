-- How many commits a state is known to have seen; and the session of it that waits to be
-- told whether it has seen fewer.
ALTER TABLE states ADD COLUMN age INTEGER NOT NULL DEFAULT 0;
ALTER TABLE states ADD COLUMN asks TEXT;
ALTER TABLE states ADD COLUMN behind INTEGER NOT NULL DEFAULT 0;
