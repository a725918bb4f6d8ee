-- Managed sessions, and what they are made of. This file never changes again: what comes later is another file.
--
-- Runs with foreign keys off, as SQLite asks for where a table is rebuilt; they are checked before the commit.

CREATE TABLE agents (
    org_id TEXT NOT NULL REFERENCES orgs (id),
    id TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1), -- the newest
    created_us INTEGER NOT NULL CHECK (created_us >= 0),
    archived_us INTEGER CHECK (archived_us >= 0),
    PRIMARY KEY (org_id, id)
) STRICT;

CREATE INDEX agents_by_time ON agents (org_id, created_us, id);

CREATE TABLE agent_versions (
    org_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    created_us INTEGER NOT NULL CHECK (created_us >= 0),
    definition TEXT NOT NULL, -- JSON
    PRIMARY KEY (org_id, agent_id, version),
    FOREIGN KEY (org_id, agent_id) REFERENCES agents (org_id, id)
) STRICT;

CREATE TABLE environments (
    org_id TEXT NOT NULL REFERENCES orgs (id),
    id TEXT NOT NULL,
    created_us INTEGER NOT NULL CHECK (created_us >= 0),
    updated_us INTEGER NOT NULL CHECK (updated_us >= 0),
    archived_us INTEGER CHECK (archived_us >= 0),
    definition TEXT NOT NULL, -- JSON
    PRIMARY KEY (org_id, id)
) STRICT;

CREATE INDEX environments_by_time ON environments (org_id, created_us, id);

-- A file outlives the session that it is scoped to, so it names it without needing it.
CREATE TABLE files (
    org_id TEXT NOT NULL REFERENCES orgs (id),
    id TEXT NOT NULL,
    user_id TEXT,
    filename TEXT NOT NULL,
    mime_type TEXT NOT NULL,
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    created_us INTEGER NOT NULL CHECK (created_us >= 0),
    expires_us INTEGER CHECK (expires_us >= 0),
    session_id TEXT,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, user_id) REFERENCES users (org_id, id)
) STRICT;

CREATE INDEX files_by_time ON files (org_id, created_us, id);
CREATE INDEX files_of_session ON files (org_id, session_id, created_us, id) WHERE session_id IS NOT NULL;
CREATE INDEX files_of_user ON files (org_id, user_id, created_us, id) WHERE user_id IS NOT NULL;
CREATE INDEX files_expiring ON files (expires_us) WHERE expires_us IS NOT NULL;

-- Rebuilt: managed sessions are sessions, but may be running without a turn of their own.
CREATE TABLE new_sessions (
    org_id TEXT NOT NULL REFERENCES orgs (id),
    id TEXT NOT NULL,
    user_id TEXT,
    status TEXT NOT NULL,
    runs INTEGER NOT NULL,
    active_run TEXT,
    last_seq INTEGER NOT NULL,
    created_us INTEGER NOT NULL CHECK (created_us >= 0),
    updated_us INTEGER NOT NULL CHECK (updated_us >= 0),
    fence INTEGER NOT NULL DEFAULT 0 CHECK (fence >= 0), -- grows each time that it is taken
    agent_id TEXT, -- NULL for a session of runs, like all below
    agent_version INTEGER,
    environment_id TEXT,
    wake_us INTEGER CHECK (wake_us >= 0),
    archived_us INTEGER CHECK (archived_us >= 0),
    lease_owner TEXT, -- the process that has it
    leased_us INTEGER CHECK (leased_us >= 0),
    raw_last INTEGER NOT NULL DEFAULT 0, -- number of its newest line in session_raw
    raw_bytes INTEGER NOT NULL DEFAULT 0, -- of all its lines there
    state TEXT, -- JSON; last, since it may be large
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, user_id) REFERENCES users (org_id, id),
    CHECK (agent_id IS NOT NULL OR (active_run IS NULL) = (status IN ('idle', 'terminated'))),
    CHECK ((agent_id IS NULL) = (agent_version IS NULL)
        AND (agent_id IS NULL) = (environment_id IS NULL)
        AND (agent_id IS NULL) = (state IS NULL)),
    CHECK (agent_id IS NOT NULL OR (wake_us IS NULL AND archived_us IS NULL AND lease_owner IS NULL))
) STRICT;

INSERT INTO new_sessions (org_id, id, user_id, status, runs, active_run, last_seq, created_us, updated_us)
SELECT org_id, id, user_id, status, runs, active_run, last_seq, created_us, updated_us
FROM sessions ORDER BY rowid;

DROP TABLE sessions;
ALTER TABLE new_sessions RENAME TO sessions;

CREATE INDEX sessions_by_time ON sessions (org_id, created_us, id) WHERE agent_id IS NOT NULL;
CREATE INDEX sessions_of_agent ON sessions (org_id, agent_id, created_us, id) WHERE agent_id IS NOT NULL;
CREATE INDEX sessions_of_user ON sessions (org_id, user_id, created_us, id) WHERE user_id IS NOT NULL;
CREATE INDEX sessions_of_environment ON sessions (org_id, environment_id) WHERE environment_id IS NOT NULL;
CREATE INDEX sessions_to_wake ON sessions (wake_us, org_id, id) WHERE wake_us IS NOT NULL;

-- Apart from the session's row, which is written anew with every commit.
CREATE TABLE session_definitions (
    org_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    definition TEXT NOT NULL, -- JSON
    PRIMARY KEY (org_id, session_id),
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
) STRICT;

-- Sessions that are gone, and of whose log there may be rows yet: a long one is deleted in steps.
CREATE TABLE deleted_sessions (
    org_id TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;

-- Rebuilt: an event may have several rows, which share its id and name the first of them. Rows may outlive their session
-- for a moment, see above.
CREATE TABLE new_events (
    org_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    seq INTEGER NOT NULL CHECK (seq >= 1),
    first_seq INTEGER NOT NULL CHECK (first_seq >= 1 AND first_seq <= seq),
    id TEXT NOT NULL,
    request_id TEXT,
    kind TEXT NOT NULL,
    at_us INTEGER NOT NULL CHECK (at_us >= 0),
    payload TEXT NOT NULL, -- JSON
    PRIMARY KEY (org_id, session_id, seq)
) STRICT;

INSERT INTO new_events (org_id, session_id, seq, first_seq, id, request_id, kind, at_us, payload)
SELECT org_id, session_id, seq, seq, id, request_id, kind, at_us, payload FROM events ORDER BY rowid;

DROP TABLE events;
ALTER TABLE new_events RENAME TO events;

CREATE INDEX events_by_id ON events (org_id, session_id, id, seq);

-- Lines of agents as they came: the newest of each session. May outlive it like its events.
CREATE TABLE session_raw (
    org_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 1),
    line TEXT NOT NULL,
    PRIMARY KEY (org_id, session_id, number)
) STRICT;

CREATE TABLE idempotent (
    org_id TEXT NOT NULL REFERENCES orgs (id),
    key_id TEXT NOT NULL,
    key TEXT NOT NULL,
    route TEXT NOT NULL,
    request_sha256 BLOB NOT NULL,
    seed BLOB NOT NULL,
    owner TEXT NOT NULL, -- the process that does it
    at_us INTEGER NOT NULL CHECK (at_us >= 0),
    status INTEGER, -- NULL while it is being done, like all below
    ended_us INTEGER CHECK (ended_us >= 0),
    body BLOB,
    PRIMARY KEY (org_id, key_id, key),
    CHECK ((status IS NULL) = (body IS NULL) AND (status IS NULL) = (ended_us IS NULL))
) STRICT;

CREATE INDEX idempotent_by_time ON idempotent (at_us);
