-- When a roll call for this attempt was published last.
ALTER TABLE doubts ADD COLUMN asked_at_ms INTEGER;
-- The attempt that this state has delivered last and that no record was found of, when
-- that was told.
ALTER TABLE states ADD COLUMN missed TEXT;
