-- The messages in which instances last said what they are: one that was not
-- acknowledged before the link was lost comes again, when it may not be so any more.
CREATE TABLE heard (
    n       INTEGER PRIMARY KEY,
    message TEXT    NOT NULL UNIQUE
) STRICT;
