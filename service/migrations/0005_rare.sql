-- A list of three values would be made a table of its own for every row that is written.
DROP INDEX tasks_rare;
CREATE INDEX tasks_rare ON tasks (state)
WHERE state <> 'submitting' AND state <> 'submitted' AND state <> 'succeeded';
