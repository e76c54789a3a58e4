-- When the state that was asked had read the roll call, and not said that it is lost.
ALTER TABLE doubts ADD COLUMN answered_at_ms INTEGER;
