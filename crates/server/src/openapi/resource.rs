//! What the document says of agents, environments and sessions.

use super::shape::{
    Shape, boolean, empty_list, id, list, list_of, literal, map, named, null, nullable, number, object,
    one_of, opaque, tagged, text, text_of, time, whole, whole_of, words,
};
use crate::wire::event::MAX_EVENTS;

/// All that has a name.
pub fn shapes() -> Vec<(&'static str, Shape)> {
    let mut shapes = tools();
    shapes.extend(agents());
    shapes.extend(environments());
    shapes.extend(files());
    shapes.extend(sessions());
    shapes
}

/// The tools of the toolset.
const TOOLS: [&str; 8] = ["bash", "edit", "read", "write", "glob", "grep", "web_fetch", "web_search"];

fn tools() -> Vec<(&'static str, Shape)> {
    let policy = || object([("type", words(&["always_allow", "always_ask", "auto"]))]);
    let asked = || [("enabled?", nullable(boolean())), ("permission_policy?", nullable(policy()))];
    let [enabled, asked_policy] = asked();
    let schema = || {
        let mut schema = opaque();
        if let utoipa::openapi::RefOr::T(utoipa::openapi::Schema::Object(object)) = &mut schema {
            object.properties.insert("type".to_owned(), literal("object"));
            object.properties.insert("properties".to_owned(), nullable(opaque()));
            object.properties.insert("required".to_owned(), one_of([list(text()), null()]));
            object.required.push("type".to_owned());
        }
        schema
    };
    let custom = || {
        tagged(
            "custom",
            [
                ("name", super::shape::pattern("^[A-Za-z0-9_-]{1,128}$")),
                ("description", text_of(0, 16 * 1024)),
                ("input_schema", schema()),
            ],
        )
    };
    vec![
        (
            "ToolParams",
            one_of([
                tagged(
                    crate::wire::tools::TOOLSET,
                    [
                        (
                            "configs?",
                            list_of(
                                object([
                                    ("name", words(&TOOLS)),
                                    ("type?", words(&TOOLS)),
                                    enabled,
                                    asked_policy,
                                ]),
                                0,
                                TOOLS.len(),
                            ),
                        ),
                        ("default_config?", nullable(object(asked()))),
                    ],
                ),
                custom(),
            ]),
        ),
        (
            "Tool",
            one_of([
                tagged(
                    crate::wire::tools::TOOLSET,
                    [
                        (
                            "configs",
                            list(object([
                                ("type", words(&TOOLS)),
                                ("name", words(&TOOLS)),
                                ("enabled", boolean()),
                                ("permission_policy", policy()),
                                ("url_sources?", null()),
                            ])),
                        ),
                        ("default_config", object([("enabled", boolean()), ("permission_policy", policy())])),
                    ],
                ),
                custom(),
            ]),
        ),
    ]
}

/// The pairs of a thing that is made.
fn pairs() -> Shape {
    map(text_of(0, 512))
}

/// The pairs of an update: null removes one.
fn patch() -> Shape {
    nullable(map(nullable(text_of(0, 512))))
}

fn identity() -> Shape {
    tagged("service_account", [])
}

fn agents() -> Vec<(&'static str, Shape)> {
    let model_params = || {
        one_of([
            text_of(1, 128),
            object([("id", text_of(1, 128)), ("speed?", nullable(literal("standard")))]),
        ])
    };
    let model = || object([("id", text()), ("speed", literal("standard"))]);
    let rest = || {
        [
            ("description?", nullable(text_of(0, 2048))),
            ("system?", nullable(text_of(0, 100_000))),
            ("mcp_servers?", one_of([empty_list(), null()])),
            ("skills?", one_of([empty_list(), null()])),
            ("multiagent?", null()),
            ("execution_identity?", nullable(identity())),
        ]
    };
    let [description, system, servers, skills, multiagent, execution] = rest();
    let create = object([
        ("name", text_of(1, 256)),
        ("model", model_params()),
        ("tools?", one_of([list(named("ToolParams")), null()])),
        ("metadata?", nullable(pairs())),
        description,
        system,
        servers,
        skills,
        multiagent,
        execution,
    ]);
    let [description, system, servers, skills, multiagent, execution] = rest();
    let update = object([
        ("version?", nullable(whole(1))),
        ("name?", text_of(1, 256)),
        ("model?", model_params()),
        ("tools?", one_of([list(named("ToolParams")), null()])),
        ("metadata?", patch()),
        description,
        system,
        servers,
        skills,
        multiagent,
        execution,
    ]);
    let core = || {
        [
            ("id", id("agent")),
            ("type", literal("agent")),
            ("version", whole(1)),
            ("name", text()),
            ("description", nullable(text())),
            ("model", model()),
            ("system", nullable(text())),
            ("tools", list(named("Tool"))),
            ("mcp_servers", empty_list()),
            ("skills", empty_list()),
            ("multiagent", null()),
            ("execution_identity", identity()),
        ]
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l] = core();
    let whole_agent = object([
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
        j,
        k,
        l,
        ("metadata", map(text())),
        ("created_at", time()),
        ("updated_at", time()),
        ("archived_at", nullable(time())),
    ]);
    vec![
        ("CreateAgent", create),
        ("UpdateAgent", update),
        ("Agent", whole_agent),
        ("SessionAgent", object(core())),
        ("AgentPage", page("Agent")),
    ]
}

/// A page of a list.
pub fn page(of: &str) -> Shape {
    object([("data", list(named(of))), ("next_page", nullable(text()))])
}

fn environments() -> Vec<(&'static str, Shape)> {
    const MANAGERS: [&str; 6] = ["apt?", "cargo?", "gem?", "go?", "npm?", "pip?"];
    let none = |name: &'static str| (name, one_of([empty_list(), null()]));
    let [apt, cargo, gem, go, npm, pip] = MANAGERS.map(none);
    let packages_params = object([apt, cargo, gem, go, npm, pip, ("type?", literal("packages"))]);
    let networking_params = one_of([
        tagged("unrestricted", []),
        tagged(
            "limited",
            [
                ("allowed_hosts?", nullable_list(text_of(1, 253), 256)),
                ("allow_mcp_servers?", nullable(boolean())),
                ("allow_package_managers?", nullable(boolean())),
            ],
        ),
    ]);
    let config_params = tagged(
        "cloud",
        [("networking?", one_of([networking_params, null()])), ("packages?", nullable(packages_params))],
    );
    let [apt, cargo, gem, go, npm, pip] = MANAGERS.map(|name| (name.trim_end_matches('?'), empty_list()));
    let packages = object([apt, cargo, gem, go, npm, pip, ("type", literal("packages"))]);
    let networking = tagged(
        "limited",
        [
            ("allowed_hosts", list(text())),
            ("allow_mcp_servers", boolean()),
            ("allow_package_managers", boolean()),
        ],
    );
    let rest = |config: Shape| {
        [
            ("description?", nullable(text_of(0, 2048))),
            ("config?", nullable(config)),
            ("scope?", nullable(literal("organization"))),
        ]
    };
    let [description, config, scope] = rest(config_params.clone());
    let create =
        object([("name", text_of(1, 256)), ("metadata?", nullable(pairs())), description, config, scope]);
    let [description, config, scope] = rest(config_params);
    let update =
        object([("name?", nullable(text_of(1, 256))), ("metadata?", patch()), description, config, scope]);
    let environment = object([
        ("id", id("env")),
        ("type", literal("environment")),
        ("name", text()),
        ("description", nullable(text())),
        ("scope", literal("organization")),
        ("config", tagged("cloud", [("networking", networking), ("packages", packages)])),
        ("metadata", map(text())),
        ("created_at", time()),
        ("updated_at", time()),
        ("archived_at", nullable(time())),
    ]);
    vec![
        ("CreateEnvironment", create),
        ("UpdateEnvironment", update),
        ("Environment", environment),
        ("EnvironmentPage", page("Environment")),
        ("DeletedEnvironment", tagged("environment_deleted", [("id", id("env"))])),
    ]
}

fn files() -> Vec<(&'static str, Shape)> {
    let file = object([
        ("id", id("file")),
        ("type", literal("file")),
        ("filename", text()),
        ("mime_type", text()),
        ("size_bytes", whole(0)),
        ("created_at", time()),
        ("expires_at", nullable(time())),
        ("downloadable", boolean()),
        ("scope", nullable(tagged("session", [("id", id("sesn"))]))),
    ]);
    vec![
        (
            "Upload",
            object([
                ("file", super::shape::bytes()),
                ("expires_in_seconds?", super::shape::pattern("^[0-9]{4,7}$")),
            ]),
        ),
        ("File", file),
        ("FilePage", page("File")),
        ("ResourcePage", page("Resource")),
        ("UpdateResource", object([("authorization_token", text())])),
        ("DeletedResource", tagged("session_resource_deleted", [("id", id("sesrsc"))])),
        ("DeletedFile", tagged("file_deleted", [("id", id("file"))])),
    ]
}

fn nullable_list(items: Shape, max: usize) -> Shape {
    one_of([list_of(items, 0, max), null()])
}

fn sessions() -> Vec<(&'static str, Shape)> {
    let tools = || one_of([list(named("ToolParams")), null()]);
    let agent = one_of([
        id("agent"),
        tagged("agent", [("id", id("agent")), ("version?", nullable(whole(1)))]),
        tagged(
            "agent_with_overrides",
            [
                ("id", id("agent")),
                ("version?", nullable(whole(1))),
                (
                    "model?",
                    one_of([
                        text_of(1, 128),
                        object([("id", text_of(1, 128)), ("speed?", nullable(literal("standard")))]),
                    ]),
                ),
                ("system?", nullable(text_of(0, 100_000))),
                ("tools?", tools()),
                ("mcp_servers?", one_of([empty_list(), null()])),
                ("skills?", one_of([empty_list(), null()])),
            ],
        ),
    ]);
    let create = object([
        ("agent", agent),
        ("environment_id", id("env")),
        ("title?", nullable(text_of(0, 500))),
        ("metadata?", nullable(pairs())),
        ("budget?", one_of([named("Budget"), null()])),
        ("initial_events?", nullable_list(named("UserMessageParams"), MAX_EVENTS)),
        ("resources?", nullable_list(named("ResourceParams"), 100)),
        ("vault_ids?", one_of([empty_list(), null()])),
    ]);
    let update = object([
        ("title?", nullable(text_of(0, 500))),
        ("metadata?", patch()),
        ("budget?", one_of([named("Budget"), null()])),
        ("agent?", nullable(object([("tools?", tools()), ("mcp_servers?", one_of([empty_list(), null()]))]))),
        ("vault_ids?", one_of([empty_list(), null()])),
    ]);
    let session = object([
        ("id", id("sesn")),
        ("type", literal("session")),
        ("status", words(&["idle", "running", "rescheduling", "terminated"])),
        ("title", nullable(text())),
        ("agent", named("SessionAgent")),
        ("environment_id", id("env")),
        ("budget", one_of([named("Budget"), null()])),
        ("usage", named("SessionUsage")),
        ("stats", object([("active_seconds", number()), ("duration_seconds", number())])),
        ("resources", list(named("Resource"))),
        ("metadata", map(text())),
        ("vault_ids", empty_list()),
        ("outcome_evaluations", empty_list()),
        ("deployment_id", null()),
        ("queue_position", nullable(whole(1))),
        ("created_at", time()),
        ("updated_at", time()),
        ("archived_at", nullable(time())),
    ]);
    let page = object([
        ("data", list(named("Session"))),
        ("next_page", nullable(text())),
        ("prev_page", nullable(text())),
    ]);
    vec![
        ("CreateSession", create),
        ("UpdateSession", update),
        ("Session", session),
        ("SessionPage", page),
        ("DeletedSession", tagged("session_deleted", [("id", id("sesn"))])),
        (
            "ResourceParams",
            tagged("file", [("file_id", id("file")), ("mount_path?", nullable(text_of(1, 1024)))]),
        ),
        (
            "Resource",
            tagged(
                "file",
                [
                    ("id", id("sesrsc")),
                    ("file_id", id("file")),
                    ("mount_path", text()),
                    ("created_at", time()),
                    ("updated_at", time()),
                ],
            ),
        ),
    ]
}

/// A limit of a list.
pub fn limit(max: u32) -> Shape {
    whole_of(1, max)
}
