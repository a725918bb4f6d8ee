-- What the first program left in its store: a session at rest with its run, and one whose server was killed in the middle.
PRAGMA journal_mode = wal;
PRAGMA foreign_keys = OFF;
PRAGMA application_id = 0x57617264;
PRAGMA user_version = 1;
INSERT INTO sessions VALUES
    ('org_default', 'sesn_00000000000000000000000001', NULL, 'idle', 1, NULL, 2, 1795305600000000, 1795305660000000),
    ('org_default', 'sesn_00000000000000000000000002', NULL, 'running', 1, 'req_00000000000000000000000003', 1,
        1795305600000001, 1795305600000001);
INSERT INTO runs VALUES
    ('org_default', 'req_00000000000000000000000001', 'sesn_00000000000000000000000001', 'first', 1795305600000000,
        1795305660000000, 'completed', 0, 5, 3, 'end_turn', NULL, NULL),
    ('org_default', 'req_00000000000000000000000003', 'sesn_00000000000000000000000002', 'dead', 1795305600000001,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES
    ('org_default', 'sesn_00000000000000000000000001', 1, 'sevt_00000000000000000000000001',
        'req_00000000000000000000000001', 'run.started', 1795305600000000, '{}'),
    ('org_default', 'sesn_00000000000000000000000001', 2, 'sevt_00000000000000000000000002', NULL, 'run.ended', 0, '{}'),
    ('org_default', 'sesn_00000000000000000000000002', 1, 'sevt_00000000000000000000000009', NULL, 'x', 0, '9');
INSERT INTO usage VALUES ('org_default', 'req_00000000000000000000000007', NULL, 'sesn_00000000000000000000000001',
    'req_00000000000000000000000001', 'first', 'm', 1000, 1795305600000000, 'exact', 1795305601000000, NULL, NULL, 200,
    10, 5, 0, 0, 0, 0, 77000000, 'p', 0);
