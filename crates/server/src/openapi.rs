//! `GET /openapi.json`: every route as a document. `docs/openapi.json` is the same; a test compares the two.

mod event;
mod extension;
mod resource;
mod shape;

use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, ParameterStyle, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, Paths, Ref, Required,
    ResponseBuilder,
};

use self::shape::{Shape, boolean, id, list, list_of, named, or_empty, pattern, text_of, time, whole, words};
use crate::App;
use crate::auth::authenticate;
use crate::error::Error;
use crate::wire::event::EVENT_TYPES;

/// The document as text, made once.
static DOCUMENT: LazyLock<String> = LazyLock::new(text);

/// The handler. It needs a key of any scope, as every route but those of health.
pub async fn openapi(State(app): State<Arc<App>>, request: Request) -> Result<Response, Error> {
    authenticate(&app, request.headers(), request.extensions().get()).await?;
    crate::query::none(request.uri().query())?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((headers, Body::from(DOCUMENT.as_str())).into_response())
}

/// The document as it is committed.
fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("the document has string keys only");
    text.push('\n');
    text
}

fn document() -> OpenApi {
    let mut components = ComponentsBuilder::new();
    let shapes = [resource::shapes(), event::shapes(), event::usage_shapes(), extension::shapes()];
    for (name, shape) in shapes.into_iter().flatten() {
        components = components.schema(name, shape);
    }
    for (status, reason) in REASONS {
        let error = ResponseBuilder::new().description(reason);
        let error = error.content("application/json", Content::new(Some(named("Error"))));
        components = components.response(format!("Error{status}"), error.build());
    }
    components = components
        .security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-key"))))
        .security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let mut paths = Paths::new();
    for route in routes() {
        let item = PathItem::new(route.method.clone(), route.operation());
        match paths.paths.get_mut(route.path) {
            Some(known) => known.merge_operations(item),
            None => drop(paths.paths.insert(route.path.to_owned(), item)),
        }
    }
    let info = InfoBuilder::new().title("Wardian").version(env!("CARGO_PKG_VERSION"));
    let info = info.description(Some("Agents in sandboxes, with a budget that holds."));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

/// One route, in the words of this file.
struct Route {
    method: HttpMethod,
    path: &'static str,
    about: &'static str,
    query: Vec<(&'static str, Shape)>,
    headers: Vec<(&'static str, Shape)>,
    body: Sent,
    answer: Answer,
    keyed: bool,
}

/// What comes back when all is well.
enum Answer {
    /// JSON of a named shape.
    Json(&'static str),
    /// Events, as long as they come.
    Stream,
    /// JSON, or events where the body asks for them.
    JsonOrStream(&'static str),
    /// This document.
    Document,
    /// The bytes of a file, of its own type.
    Bytes,
}

/// What is sent.
#[derive(Clone, Copy)]
enum Sent {
    Nothing,
    /// JSON of a named shape.
    Json(&'static str),
    /// A form of a named shape.
    Form(&'static str),
}

fn route(method: HttpMethod, path: &'static str, about: &'static str, answer: Answer) -> Route {
    Route {
        method,
        path,
        about,
        query: Vec::new(),
        headers: Vec::new(),
        body: Sent::Nothing,
        answer,
        keyed: true,
    }
}

fn get(path: &'static str, about: &'static str, answer: &'static str) -> Route {
    route(HttpMethod::Get, path, about, Answer::Json(answer))
}

fn post(path: &'static str, about: &'static str, body: Option<&'static str>, answer: &'static str) -> Route {
    let body = body.map_or(Sent::Nothing, Sent::Json);
    Route { body, ..route(HttpMethod::Post, path, about, Answer::Json(answer)) }
}

fn delete(path: &'static str, about: &'static str, answer: &'static str) -> Route {
    route(HttpMethod::Delete, path, about, Answer::Json(answer))
}

impl Route {
    fn query<const N: usize>(mut self, query: [(&'static str, Shape); N]) -> Self {
        self.query.extend(query);
        self
    }

    /// A list: how long a page is, and which.
    fn paged(self, max: u32) -> Self {
        self.query([("limit", or_empty(resource::limit(max))), ("page", text_of(0, 512))])
    }

    fn operation(&self) -> OperationBuilder {
        let mut operation = OperationBuilder::new().summary(Some(self.about)).operation_id(Some(self.name()));
        for (name, shape) in self.path_parameters() {
            operation = operation.parameter(
                ParameterBuilder::new()
                    .name(name)
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .schema(Some(shape)),
            );
        }
        for (name, shape) in &self.query {
            operation = operation.parameter(
                ParameterBuilder::new()
                    .name(*name)
                    .parameter_in(ParameterIn::Query)
                    .required(Required::False)
                    .style(Some(ParameterStyle::Form))
                    .explode(Some(true))
                    .schema(Some(shape.clone())),
            );
        }
        for (name, shape) in self.all_headers() {
            operation = operation.parameter(
                ParameterBuilder::new()
                    .name(name)
                    .parameter_in(ParameterIn::Header)
                    .required(Required::False)
                    .schema(Some(shape)),
            );
        }
        let body = match self.body {
            Sent::Nothing => None,
            Sent::Json(name) => Some(("application/json", name)),
            Sent::Form(name) => Some(("multipart/form-data", name)),
        };
        if let Some((kind, name)) = body {
            let body = RequestBodyBuilder::new().required(Some(Required::True));
            let body = body.content(kind, Content::new(Some(named(name))));
            operation = operation.request_body(Some(body.build()));
        }
        operation = operation.response("200", self.success());
        for status in self.errors() {
            operation = operation.response(status, Ref::from_response_name(format!("Error{status}")));
        }
        if self.keyed {
            let none: [&str; 0] = [];
            operation = operation
                .security(SecurityRequirement::new("key", none))
                .security(SecurityRequirement::new("bearer", none));
        }
        operation
    }

    fn success(&self) -> utoipa::openapi::Response {
        let response = ResponseBuilder::new().description("Done.");
        let json = |name| Content::new(Some(named(name)));
        let stream = || Content::new(Some(shape::text()));
        match self.answer {
            Answer::Json(name) => response.content("application/json", json(name)).build(),
            Answer::Stream => response.content("text/event-stream", stream()).build(),
            Answer::JsonOrStream(name) => response
                .content("application/json", json(name))
                .content("text/event-stream", stream())
                .build(),
            Answer::Bytes => response.content("*/*", Content::new(Some(shape::bytes()))).build(),
            Answer::Document => {
                response.content("application/json", Content::new(Some(shape::opaque()))).build()
            }
        }
    }

    /// `get_v1_sessions_id`.
    fn name(&self) -> String {
        let method = match self.method {
            HttpMethod::Get => "get",
            HttpMethod::Post => "post",
            HttpMethod::Delete => "delete",
            _ => "other",
        };
        let words: Vec<_> = self.path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty()).collect();
        format!("{method}_{}", words.join("_"))
    }

    fn path_parameters(&self) -> Vec<(&'static str, Shape)> {
        let mut parameters = Vec::new();
        let parts: Vec<&'static str> = self.path.split('/').collect();
        for (index, part) in parts.iter().enumerate() {
            if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                let shape = match parts[index - 1] {
                    "agents" => id("agent"),
                    "environments" => id("env"),
                    "files" => id("file"),
                    "resources" => id("sesrsc"),
                    "users" => text_of(1, 128),
                    _ => id("sesn"),
                };
                parameters.push((name, shape));
            }
        }
        parameters
    }

    fn all_headers(&self) -> Vec<(&'static str, Shape)> {
        let mut headers = self.headers.clone();
        if self.method == HttpMethod::Post {
            headers.push(("Idempotency-Key", pattern("^[!-~]{1,255}$")));
        }
        headers
    }

    fn errors(&self) -> Vec<&'static str> {
        if !self.keyed {
            return vec!["400", "403"];
        }
        let mut errors = vec!["400", "401", "403", "404", "429", "500", "503"];
        if self.method != HttpMethod::Get {
            errors.push("409");
        }
        if self.method == HttpMethod::Post {
            errors.extend(["408", "413", "415", "422"]);
        }
        if matches!(self.answer, Answer::JsonOrStream(_)) {
            errors.push("504");
        }
        errors
    }
}

/// What an error's status means.
const REASONS: [(&str, &str); 13] = [
    ("400", "The request is wrong; every wrong field is named."),
    ("401", "No key, or none of this server."),
    ("403", "The key lacks a scope, or the request comes from a foreign page or name."),
    ("404", "No such thing, or somebody else's."),
    ("408", "The body did not come in time."),
    ("409", "Not in this state, or the same Idempotency-Key is under way."),
    ("413", "The body is too large."),
    ("415", "The body is of another type."),
    ("422", "The Idempotency-Key was used for another request."),
    ("429", "Later, or never for this money."),
    ("500", "Something of ours failed."),
    ("503", "Not now."),
    ("504", "The time of the run is over."),
];

fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    routes.extend(agent_routes());
    routes.extend(environment_routes());
    routes.extend(file_routes());
    routes.extend(session_routes());
    routes.extend(resource_routes());
    routes.extend(own_routes());
    routes
}

fn agent_routes() -> Vec<Route> {
    vec![
        get("/v1/agents", "Lists agents, the newest first.", "AgentPage").paged(100).query([
            ("created_at[gte]", or_empty(time())),
            ("created_at[lte]", or_empty(time())),
            ("include_archived", or_empty(boolean())),
        ]),
        post("/v1/agents", "Makes an agent.", Some("CreateAgent"), "Agent"),
        get("/v1/agents/{id}", "Shows an agent.", "Agent").query([("version", or_empty(whole(1)))]),
        post("/v1/agents/{id}", "Makes a new version of an agent.", Some("UpdateAgent"), "Agent"),
        post("/v1/agents/{id}/archive", "Archives an agent.", None, "Agent"),
        get("/v1/agents/{id}/versions", "Lists the versions of an agent, the newest first.", "AgentPage")
            .paged(100),
    ]
}

fn environment_routes() -> Vec<Route> {
    let one = "/v1/environments/{id}";
    vec![
        get("/v1/environments", "Lists environments, the newest first.", "EnvironmentPage")
            .paged(100)
            .query([("include_archived", or_empty(boolean()))]),
        post("/v1/environments", "Makes an environment.", Some("CreateEnvironment"), "Environment"),
        get(one, "Shows an environment.", "Environment"),
        post(one, "Changes an environment.", Some("UpdateEnvironment"), "Environment"),
        delete(one, "Deletes an environment that no session uses.", "DeletedEnvironment"),
        post("/v1/environments/{id}/archive", "Archives an environment.", None, "Environment"),
    ]
}

fn file_routes() -> Vec<Route> {
    let one = "/v1/files/{id}";
    let upload = post("/v1/files", "Uploads a file.", None, "File");
    vec![
        get("/v1/files", "Lists files, the newest first, or those of some ids.", "FilePage")
            .paged(100)
            .query([("ids", list_of(id("file"), 0, 100)), ("scope_id", or_empty(id("sesn")))]),
        Route { body: Sent::Form("Upload"), ..upload },
        get(one, "Shows a file.", "File"),
        delete(one, "Deletes a file.", "DeletedFile"),
        route(HttpMethod::Get, "/v1/files/{id}/content", "The bytes of a file.", Answer::Bytes),
    ]
}

fn session_routes() -> Vec<Route> {
    let one = "/v1/sessions/{id}";
    let events = "/v1/sessions/{id}/events";
    let created = || {
        ["created_at[gt]", "created_at[gte]", "created_at[lt]", "created_at[lte]"]
            .map(|name| (name, or_empty(time())))
    };
    let order = || [("order", words(&["asc", "desc", ""]))];
    let statuses = ["idle", "running", "rescheduling", "terminated"];
    let stream = route(
        HttpMethod::Get,
        "/v1/sessions/{id}/events/stream",
        "Streams the events of a session as they come, or from after one on.",
        Answer::Stream,
    );
    let stream = Route { headers: vec![("Last-Event-ID", pattern("^[0-9]{1,19}$"))], ..stream };
    vec![
        get("/v1/sessions", "Lists sessions, the newest first unless asked otherwise.", "SessionPage")
            .paged(100)
            .query(created())
            .query(order())
            .query([
                ("agent_id", or_empty(id("agent"))),
                ("agent_version", or_empty(whole(1))),
                ("statuses", list(words(&statuses))),
                ("include_archived", or_empty(boolean())),
            ]),
        post(
            "/v1/sessions",
            "Makes a session of an agent in an environment.",
            Some("CreateSession"),
            "Session",
        ),
        get(one, "Shows a session.", "Session"),
        post(one, "Changes a session.", Some("UpdateSession"), "Session"),
        delete(one, "Deletes a session with its events and its workspace.", "DeletedSession"),
        post("/v1/sessions/{id}/archive", "Archives a session.", None, "Session"),
        get(events, "Lists the events of a session, each once.", "EventPage")
            .paged(1000)
            .query(created())
            .query(order())
            .query([("types", list(words(&EVENT_TYPES)))]),
        post(events, "Posts events to a session.", Some("SendEvents"), "SentEvents"),
        stream.query([
            ("after", or_empty(whole(0))),
            ("event_deltas", list(words(&["agent.message", "agent.thinking"]))),
        ]),
    ]
}

fn resource_routes() -> Vec<Route> {
    let (all, one) = ("/v1/sessions/{id}/resources", "/v1/sessions/{id}/resources/{resource}");
    vec![
        get(all, "Lists the files that a session is given, the oldest first.", "ResourcePage").paged(100),
        post(all, "Gives a session another file.", Some("ResourceParams"), "Resource"),
        get(one, "Shows a file of a session.", "Resource"),
        post(one, "Refused: a file has nothing that could change.", Some("UpdateResource"), "Resource"),
        delete(one, "Takes a file from a session.", "DeletedResource"),
    ]
}

fn own_routes() -> Vec<Route> {
    let run = "Runs a prompt to its end.";
    let run = Route {
        body: Sent::Json("RunRequest"),
        ..route(HttpMethod::Post, "/v1/x/run", run, Answer::JsonOrStream("RunReport"))
    };
    let usage = get("/v1/x/usage", "What was spent, by user, session, model and day.", "Usage").query([
        ("user", text_of(1, 128)),
        ("session", id("sesn")),
        ("model", text_of(1, 256)),
        ("from", time()),
        ("to", time()),
        ("group_by", pattern("^(user|session|model|day)$")),
    ]);
    let unkeyed = |path, about, answer| Route { keyed: false, ..get(path, about, answer) };
    vec![
        run,
        usage,
        get("/v1/x/sessions/{id}", "Shows a session of runs.", "RunSession"),
        delete("/v1/x/users/{id}", "Forgets a user and all that was the user's.", "ForgottenUser"),
        route(HttpMethod::Get, "/openapi.json", "This document.", Answer::Document),
        unkeyed("/livez", "The process answers.", "Liveness"),
        unkeyed("/readyz", "The parts work, each said for itself.", "Readiness"),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The document as the code says it; `WARDIAN_WRITE_OPENAPI=1` writes it.
    #[test]
    fn the_committed_document_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        if std::env::var_os("WARDIAN_WRITE_OPENAPI").is_some() {
            std::fs::write(&path, text()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap();
        let stale =
            "docs/openapi.json is stale: WARDIAN_WRITE_OPENAPI=1 cargo nextest run -p wardian-server openapi";
        assert!(committed == text(), "{stale}");
    }

    /// Each `.route("path", get(…).post(…))` of routes.rs.
    #[test]
    fn every_route_is_in_the_document_and_no_other() {
        let source = include_str!("routes.rs");
        let mut served = BTreeSet::new();
        for part in source.split(".route(").skip(1) {
            let path = part.split('"').nth(1).unwrap();
            let handlers = part.split("\n        .").next().unwrap();
            for method in ["get", "post", "delete", "put", "patch"] {
                if handlers.contains(&format!("{method}(")) {
                    served.insert(format!("{method} {path}"));
                }
            }
        }
        let described: BTreeSet<_> = routes()
            .iter()
            .map(|route| format!("{} {}", route.name().split('_').next().unwrap(), route.path))
            .collect();
        assert_eq!(served, described);
    }

    /// Every name that is used is there, and every one that is there is used.
    #[test]
    fn names_are_used_and_defined() {
        let text = text();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let defined: BTreeSet<_> =
            document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
        let used: BTreeSet<_> = text
            .split("#/components/schemas/")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect();
        assert_eq!(used, defined);
    }
}
