-- The first schema. This file never changes again: what comes later is another file.
--
-- Every row has its org. Times are integer microseconds since 1970 UTC (`_us`), money is integer nano-dollars (`_nano`).

CREATE TABLE orgs (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO orgs (id, name) VALUES ('org_default', 'default');

CREATE TABLE users (
    org_id TEXT NOT NULL REFERENCES orgs (id),
    id TEXT NOT NULL,
    PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (id),
    name TEXT NOT NULL,
    scopes TEXT NOT NULL, -- names with commas between
    user_id TEXT,
    secret_sha256 BLOB NOT NULL,
    created_us INTEGER NOT NULL CHECK (created_us >= 0),
    revoked_us INTEGER CHECK (revoked_us >= 0),
    FOREIGN KEY (org_id, user_id) REFERENCES users (org_id, id)
) STRICT;

CREATE INDEX keys_of_org ON keys (org_id, created_us);

CREATE TABLE sessions (
    org_id TEXT NOT NULL REFERENCES orgs (id),
    id TEXT NOT NULL,
    user_id TEXT,
    status TEXT NOT NULL,
    runs INTEGER NOT NULL,
    active_run TEXT,
    last_seq INTEGER NOT NULL,
    created_us INTEGER NOT NULL CHECK (created_us >= 0),
    updated_us INTEGER NOT NULL CHECK (updated_us >= 0),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, user_id) REFERENCES users (org_id, id),
    CHECK ((active_run IS NULL) = (status IN ('idle', 'terminated')))
) STRICT;

CREATE TABLE runs (
    org_id TEXT NOT NULL,
    id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    owner TEXT NOT NULL, -- the process that runs it
    started_us INTEGER NOT NULL CHECK (started_us >= 0),
    ended_us INTEGER CHECK (ended_us >= 0), -- NULL while it goes on, like all below
    status TEXT,
    is_error INTEGER,
    cost_nano INTEGER CHECK (cost_nano >= 0),
    num_turns INTEGER,
    stop_reason TEXT,
    exit_code INTEGER,
    detail TEXT,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
) STRICT;

CREATE INDEX runs_of_session ON runs (org_id, session_id, started_us);
CREATE INDEX runs_going_on ON runs (owner) WHERE ended_us IS NULL;

CREATE TABLE events (
    org_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    seq INTEGER NOT NULL CHECK (seq >= 1),
    id TEXT NOT NULL,
    request_id TEXT,
    kind TEXT NOT NULL,
    at_us INTEGER NOT NULL CHECK (at_us >= 0),
    payload TEXT NOT NULL, -- JSON
    PRIMARY KEY (org_id, session_id, seq),
    UNIQUE (org_id, id),
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
) STRICT;

-- Money outlives what it was spent on, so a record names its session and run without needing them.
CREATE TABLE usage (
    org_id TEXT NOT NULL REFERENCES orgs (id),
    id TEXT NOT NULL,
    user_id TEXT,
    session_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    owner TEXT NOT NULL, -- the process that settles it
    model TEXT NOT NULL, -- asked for
    bound_nano INTEGER NOT NULL CHECK (bound_nano >= 0),
    started_us INTEGER NOT NULL CHECK (started_us >= 0),
    settled TEXT, -- how; NULL while it is open, like all below
    ended_us INTEGER CHECK (ended_us >= 0),
    answered_model TEXT,
    upstream_id TEXT,
    status INTEGER,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cache_read_tokens INTEGER,
    cache_write_5m_tokens INTEGER,
    cache_write_1h_tokens INTEGER,
    web_search_requests INTEGER,
    cost_nano INTEGER CHECK (cost_nano >= 0),
    price_version TEXT,
    unpriced INTEGER,
    PRIMARY KEY (org_id, id),
    CHECK ((settled IS NULL) = (ended_us IS NULL) AND (settled IS NULL) = (cost_nano IS NULL))
) STRICT;

CREATE INDEX usage_by_time ON usage (org_id, started_us);
CREATE INDEX usage_of_session ON usage (org_id, session_id, started_us);
CREATE INDEX usage_of_run ON usage (org_id, run_id);
CREATE INDEX usage_of_user ON usage (org_id, user_id, started_us);
CREATE INDEX usage_open ON usage (owner) WHERE settled IS NULL;

-- Nothing of meaning: written to prove that a write is possible.
CREATE TABLE probes (
    id INTEGER PRIMARY KEY,
    filler BLOB NOT NULL
) STRICT;
