-- What a function returned (JSON); nothing of a process.
ALTER TABLE results ADD COLUMN value TEXT;
