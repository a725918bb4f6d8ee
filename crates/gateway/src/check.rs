//! What a request may ask of the one permitted host.
//!
//! The body is inspected, never rewritten. Fields, roles, block types and betas that are not known here pass; what makes
//! the API itself fetch something, run something, remember something or ask another model is refused by name, because
//! this environment allows none of it. Fields are read with the same rules as the upstream's: one that is given twice is
//! refused, or the two could read different ones.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use wardian_ledger::{PriceTable, RequestBound};

/// The types of tools that the client runs itself. Every other typed tool is run by the API.
const CLIENT_TOOLS: [&str; 5] = ["bash_", "text_editor_", "computer_", "memory_", "browser_toolset_"];

/// Tokens that an image may have at most; large ones are scaled down. An image's tokens follow from its size in pixels,
/// not from its bytes. (The largest documented is 4,784.)
const MAX_IMAGE_TOKENS: u64 = 8192;

/// Tokens that the API puts in place of a tool that it knows by its type. (The largest documented is 735, for one tool;
/// a toolset has several.)
const TYPED_TOOL_TOKENS: u64 = 8192;

/// The longest name of a model.
pub const MAX_MODEL_BYTES: usize = 256;

/// What the gateway needs to know of a body that may go upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The model asked for, as it was written.
    pub model: String,
    /// What bounds the cost.
    pub bound: RequestBound,
    /// Whether the reply is to be a stream.
    pub stream: bool,
}

/// Why a body may not go upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The body is wrong.
    Invalid(String),
    /// The body asks for what is not allowed here.
    NotAllowed(String),
    /// The model is not one of the grant's.
    Model(String),
}

/// Checks the body of `POST /v1/messages`.
pub fn messages(body: &[u8], models: Option<&[String]>, prices: &PriceTable) -> Result<Checked, Refused> {
    let mut request = read(body, models, prices)?;
    let max_tokens =
        request.max_tokens.ok_or_else(|| Refused::Invalid("max_tokens: Field required".to_owned()))?;
    let found = request.found()?;
    let bound = RequestBound {
        body_bytes: found.token_bound(body.len()),
        input_tokens: None,
        max_tokens,
        web_searches: None,
        iterations: if request.compaction.is_some() || found.compacts { 2 } else { 1 },
        standard_speed: request.speed.as_deref().is_none_or(|speed| speed == "standard"),
    };
    let stream = request.stream.unwrap_or(false);
    Ok(Checked { model: request.model.into_owned(), bound, stream })
}

/// Checks the body of `POST /v1/messages/count_tokens`, which costs nothing, and returns the model.
pub fn count_tokens(body: &[u8], models: Option<&[String]>, prices: &PriceTable) -> Result<String, Refused> {
    let mut request = read(body, models, prices)?;
    request.found()?;
    Ok(request.model.into_owned())
}

fn read<'a>(body: &'a [u8], models: Option<&[String]>, prices: &PriceTable) -> Result<Request<'a>, Refused> {
    // A list of the fields in their order would do for the reader below, too.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refused::Invalid("the body is not a JSON object".to_owned()));
    }
    let request: Request<'a> =
        serde_json::from_slice(body).map_err(|error| Refused::Invalid(explain(&error)))?;
    let is_name = !request.model.is_empty() && !request.model.contains(char::is_control);
    if !is_name || request.model.len() > MAX_MODEL_BYTES {
        return Err(Refused::Invalid("model: must be the name of a model".to_owned()));
    }
    let asked = prices.resolve_alias(&request.model);
    match models {
        Some(models) if !models.iter().any(|model| prices.resolve_alias(model) == asked) => {
            let allowed = models.join(", ");
            let asked = shown(&request.model);
            Err(Refused::Model(format!("model: {asked} is not allowed here; allowed: {allowed}")))
        }
        _ => Ok(request),
    }
}

/// The error without what it quotes of the body.
fn explain(error: &serde_json::Error) -> String {
    let place = format!("line {} column {}", error.line(), error.column());
    if !error.is_data() {
        return format!("the body is not valid JSON ({place})");
    }
    let text = error.to_string();
    let known = ["missing field", "duplicate field"].iter().find(|known| text.starts_with(**known));
    match known.and_then(|_| text.split(" at line").next()) {
        // These two name only fields of ours.
        Some(what) => format!("the body has a {what}"),
        None => format!("a field of the body has the wrong type ({place})"),
    }
}

/// The fields that matter here.
#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    max_tokens: Option<u64>,
    stream: Option<bool>,
    #[serde(borrow)]
    speed: Option<Cow<'a, str>>,
    #[serde(default)]
    system: Content,
    #[serde(default)]
    messages: Each<Turn>,
    #[serde(default)]
    tools: Each<Tool>,
    #[serde(default)]
    context_management: ContextManagement,
    compaction: Option<IgnoredAny>,
    #[serde(default)]
    mcp_servers: Each<McpServer>,
    container: Option<IgnoredAny>,
    thread: Option<IgnoredAny>,
    fallbacks: Option<IgnoredAny>,
    billing_policy: Option<BillingPolicy>,
}

/// What was found in a part of a body. Parts are added up as they are read and never kept: a body of many small parts
/// would take many times its size in memory.
#[derive(Default)]
struct Found {
    images: u64,
    documents: u64,
    typed_tools: u64,
    compacts: bool,
    refused: Option<Refused>,
}

impl Found {
    fn refused(what: &str, why: &str) -> Self {
        let refused = Refused::NotAllowed(format!("{what} is not allowed in this environment: {why}"));
        Self { refused: Some(refused), ..Self::default() }
    }

    fn and(self, other: Self) -> Self {
        Self {
            images: self.images.saturating_add(other.images),
            documents: self.documents.saturating_add(other.documents),
            typed_tools: self.typed_tools.saturating_add(other.typed_tools),
            compacts: self.compacts | other.compacts,
            refused: self.refused.or(other.refused),
        }
    }

    /// The most tokens that the body can have: a token is at least a byte, except in what is listed here. (What the API
    /// adds to every prompt is in the ledger's bound.)
    fn token_bound(&self, bytes: usize) -> u64 {
        if self.documents > 0 {
            // A page of a document is an image and a text, and a few bytes can make many pages.
            return u64::MAX;
        }
        let images = self.images.saturating_mul(MAX_IMAGE_TOKENS);
        let typed_tools = self.typed_tools.saturating_mul(TYPED_TOOL_TOKENS);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        bytes.saturating_add(images).saturating_add(typed_tools)
    }
}

impl Request<'_> {
    /// What the whole body asks for; the first thing that is not allowed, if there is one.
    fn found(&mut self) -> Result<Found, Refused> {
        let refused =
            |present: bool, what, why| if present { Found::refused(what, why) } else { Found::default() };
        let other_payer = self.billing_policy.as_ref().is_some_and(|policy| policy.bill_to != "self");
        let found = [
            std::mem::take(&mut self.tools.found),
            std::mem::take(&mut self.mcp_servers.found),
            refused(self.container.is_some(), "container", "the API would run code and skills in it"),
            refused(self.thread.is_some(), "thread", "the API would hold the conversation"),
            refused(self.fallbacks.is_some(), "fallbacks", "the API would ask another model"),
            refused(other_payer, "billing_policy.bill_to", "somebody else would pay"),
            std::mem::take(&mut self.context_management.edits.found),
            std::mem::take(&mut self.system.0),
            std::mem::take(&mut self.messages.found),
        ];
        let mut found = found.into_iter().fold(Found::default(), Found::and);
        match found.refused.take() {
            Some(refused) => Err(refused),
            None => Ok(found),
        }
    }
}

#[derive(Deserialize)]
struct Turn {
    #[serde(default)]
    content: Content,
}

impl From<Turn> for Found {
    fn from(turn: Turn) -> Self {
        turn.content.0
    }
}

#[derive(Deserialize)]
struct McpServer {}

impl From<McpServer> for Found {
    fn from(_: McpServer) -> Self {
        Self::refused("mcp_servers", "the API would connect to them")
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContextManagement {
    edits: Each<Edit>,
}

#[derive(Deserialize)]
struct Edit {
    #[serde(rename = "type", default)]
    kind: String,
}

impl From<Edit> for Found {
    /// The API calls the model once more to summarise; edits that only leave something out are known by name.
    fn from(edit: Edit) -> Self {
        let free = ["clear_thinking_", "clear_tool_uses_"].iter().any(|known| edit.kind.starts_with(known));
        Self { compacts: !free, ..Self::default() }
    }
}

#[derive(Deserialize)]
struct BillingPolicy {
    #[serde(default = "own_bill")]
    bill_to: String,
}

fn own_bill() -> String {
    "self".to_owned()
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl From<Tool> for Found {
    fn from(tool: Tool) -> Self {
        match tool.kind.as_deref() {
            None | Some("custom") => Self::default(),
            Some(kind) if CLIENT_TOOLS.iter().any(|known| kind.starts_with(known)) => {
                Self { typed_tools: 1, ..Self::default() }
            }
            Some(kind) => {
                Self::refused(&format!("a tool of type {}", shown(kind)), "the API would run it itself")
            }
        }
    }
}

/// A tool that is added or removed in the middle of a conversation.
#[derive(Deserialize)]
struct ToolChange {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    definition: Object<Tool>,
}

impl From<ToolChange> for Found {
    fn from(change: ToolChange) -> Self {
        if change.kind.starts_with("mcp_") {
            return Self::refused(
                &format!("a tool of type {}", shown(&change.kind)),
                "the API would run it itself",
            );
        }
        change.definition.0.map(Self::from).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    /// Plain text in search results.
    #[serde(default)]
    source: Object<Source>,
    #[serde(default)]
    content: Content,
    #[serde(default)]
    tool: Object<ToolChange>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    content: Content,
}

impl From<Block<'_>> for Found {
    fn from(block: Block<'_>) -> Self {
        if block.kind == "container_upload" {
            return Self::refused("a content block of type container_upload", "it names a stored file");
        }
        let source = block.source.0.map(|source| source.found(&block.kind)).unwrap_or_default();
        let tool = block.tool.0.map(Self::from).unwrap_or_default();
        source.and(tool).and(block.content.0)
    }
}

impl Source {
    fn found(self, block: &str) -> Found {
        match self.kind.as_str() {
            "base64" if block == "image" => Found { images: 1, ..Found::default() },
            "base64" => Found { documents: 1, ..Found::default() },
            "text" | "content" => self.content.0,
            other => {
                let what = format!("a source of type {} in a content block", shown(other));
                Found::refused(&what, "only what is in the body itself may be sent")
            }
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(60).collect()
}

/// Text, one block, or several.
#[derive(Default)]
struct Content(Found);

/// A list, each of whose items is looked at. `null` is an empty one.
struct Each<T> {
    found: Found,
    item: PhantomData<T>,
}

impl<T> Default for Each<T> {
    fn default() -> Self {
        Self { found: Found::default(), item: PhantomData }
    }
}

/// An object; anything else is taken for nothing, as it is in fields that only some types of blocks have.
struct Object<T>(Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Loose(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Loose(PhantomData))
    }
}

impl<'de, T: Deserialize<'de> + Into<Found>> Deserialize<'de> for Each<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Into<Found>> Visitor<'de> for Items<T> {
            type Value = Each<T>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Each<T>, A::Error> {
                let mut found = Found::default();
                while let Some(item) = items.next_element::<T>()? {
                    found = found.and(item.into());
                }
                Ok(Each { found, item: PhantomData })
            }
            fn visit_unit<E>(self) -> Result<Each<T>, E> {
                Ok(Each::default())
            }
        }
        deserializer.deserialize_any(Items(PhantomData))
    }
}

/// What can be read from an object, maybe from a list, and is nothing for anything else.
trait Part<'de>: Default {
    fn from_object<A: MapAccess<'de>>(fields: A) -> Result<Self, A::Error>;

    fn from_list<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

impl<'de> Part<'de> for Content {
    fn from_object<A: MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
        Block::deserialize(MapAccessDeserializer::new(fields)).map(|block| Self(block.into()))
    }

    fn from_list<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut found = Found::default();
        while let Some(Self(item)) = items.next_element()? {
            found = found.and(item);
        }
        Ok(Self(found))
    }
}

impl<'de, T: Deserialize<'de>> Part<'de> for Object<T> {
    fn from_object<A: MapAccess<'de>>(fields: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(|value| Self(Some(value)))
    }
}

struct Loose<P>(PhantomData<P>);

impl<'de, P: Part<'de>> Visitor<'de> for Loose<P> {
    type Value = P;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<P, A::Error> {
        P::from_object(fields)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<P, A::Error> {
        P::from_list(items)
    }

    fn visit_bool<E>(self, _: bool) -> Result<P, E> {
        Ok(P::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<P, E> {
        Ok(P::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<P, E> {
        Ok(P::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<P, E> {
        Ok(P::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<P, E> {
        Ok(P::default())
    }

    fn visit_unit<E>(self) -> Result<P, E> {
        Ok(P::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(body: &str) -> Result<Checked, Refused> {
        messages(body.as_bytes(), None, PriceTable::embedded())
    }

    fn with(field: &str) -> Result<Checked, Refused> {
        look(&format!(r#"{{"model":"claude-sonnet-5-5","max_tokens":9,"messages":[],{field}}}"#))
    }

    fn with_block(block: &str) -> Result<Checked, Refused> {
        with(&format!(r#""system":[{block}]"#))
    }

    fn reason(checked: Result<Checked, Refused>) -> String {
        match checked {
            Err(Refused::NotAllowed(reason) | Refused::Model(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_bound_is_the_bytes_and_what_has_more_tokens_than_bytes() {
        let body =
            r#"{"model":"m","max_tokens":7,"messages":[{"role":"user","content":"hi"}],"new_field":{"a":1}}"#;
        let checked = look(body).unwrap();
        let bytes = u64::try_from(body.len()).unwrap();
        let bound = RequestBound {
            body_bytes: bytes,
            input_tokens: None,
            max_tokens: 7,
            web_searches: None,
            iterations: 1,
            standard_speed: true,
        };
        assert_eq!(checked, Checked { model: "m".to_owned(), bound, stream: false });
        let image = r#"{"type":"image","source":{"type":"base64","data":"AA=="}}"#;
        let in_result = format!(r#"{{"type":"tool_result","content":[{image},{image}]}}"#);
        assert!(with_block(&in_result).unwrap().bound.body_bytes > 2 * MAX_IMAGE_TOKENS);
        let pdf = r#"{"type":"document","source":{"type":"base64","data":"AA=="}}"#;
        assert_eq!(with_block(pdf).unwrap().bound.body_bytes, u64::MAX);
        let text = r#"{"type":"document","source":{"type":"text","data":"AA"}}"#;
        assert!(with_block(text).unwrap().bound.body_bytes < 200);
        assert!(with(r#""tools":[{"name":"x"}]"#).unwrap().bound.body_bytes < 200);
        let typed = r#""tools":[{"type":"bash_20250124","name":"bash"}]"#;
        assert!(with(typed).unwrap().bound.body_bytes > TYPED_TOOL_TOKENS);
        assert!(!with(r#""speed":"fast""#).unwrap().bound.standard_speed);
        let compact = r#""context_management":{"edits":[{"type":"compact_20260112"}]}"#;
        assert_eq!(with(compact).unwrap().bound.iterations, 2);
        let clear = r#""context_management":{"edits":[{"type":"clear_thinking_20251015"}]}"#;
        assert_eq!(with(clear).unwrap().bound.iterations, 1);
    }

    #[test]
    fn what_the_api_would_do_by_itself_is_refused_by_name() {
        let cases = [
            (
                r#""tools":[{"name":"a"},{"type":"web_search_20250305","name":"web_search"}]"#,
                "web_search_20250305",
            ),
            (r#""tools":[{"type":"code_execution_20250825","name":"x"}]"#, "code_execution_20250825"),
            (r#""tools":[{"type":"mcp_toolset"}]"#, "mcp_toolset"),
            (r#""tools":[{"type":"tool_of_the_future","name":"x"}]"#, "tool_of_the_future"),
            (r#""tools":[{"ty\u0070e":"web_fetch_20250910"}]"#, "web_fetch_20250910"),
            (r#""mcp_servers":[{"url":"https://x"}]"#, "mcp_servers"),
            (r#""container":"c_1""#, "container"),
            (r#""container":{"skills":[]}"#, "container"),
            (r#""thread":{"type":"create"}"#, "thread"),
            (r#""fallbacks":"default""#, "fallbacks"),
            (r#""billing_policy":{"type":"billing_policy","bill_to":"user_profile"}"#, "billing_policy"),
        ];
        for (field, named) in cases {
            let reason = reason(with(field));
            assert!(reason.contains(named) && reason.contains("not allowed"), "{reason}");
        }
        let blocks = [
            (r#"{"type":"image","source":{"type":"url","url":"https://x"}}"#, "url"),
            (r#"{"type":"document","source":{"type":"file","file_id":"f"}}"#, "file"),
            (r#"{"source":{"type":"url","url":"https://x"},"type":"document"}"#, "url"),
            (r#"{"type":"container_upload","file_id":"f"}"#, "container_upload"),
            (r#"{"type":"tool_result","content":[{"type":"image","source":{"type":"url"}}]}"#, "url"),
            (r#"{"type":"tool_result","content":{"type":"image","source":{"type":"url"}}}"#, "url"),
            (r#"[[{"type":"image","source":{"type":"url"}}]]"#, "url"),
            (
                r#"{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"url"}}]}}"#,
                "url",
            ),
            (
                r#"{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"type":"web_search_20250305"}}}"#,
                "web_search",
            ),
            (
                r#"{"type":"tool_addition","tool":{"type":"mcp_toolset_reference","server_name":"s"}}"#,
                "mcp_toolset_reference",
            ),
            (r#"{"type":"image","source":{}}"#, "source"),
        ];
        for (block, named) in blocks {
            assert!(reason(with_block(block)).contains(named), "{block}");
        }
    }

    #[test]
    fn what_is_not_known_passes_and_so_does_history() {
        for field in [
            r#""mcp_servers":[]"#,
            r#""mcp_servers":null,"container":null,"tools":null,"thread":null,"fallbacks":null"#,
            r#""tools":[{"type":"bash_20250124","name":"bash"},{"type":"custom","name":"x","input_schema":{"type":"url","source":{"type":"url"}}}]"#,
            r#""future":{"source":{"type":"url"}},"safeguards":[1,2],"thinking":{"type":"adaptive"}"#,
            r#""billing_policy":{"type":"billing_policy"}"#,
        ] {
            with(field).unwrap();
        }
        for block in [
            r#"{"type":"tool_use","id":"t","name":"x","input":{"source":{"type":"url","url":"https://x"}}}"#,
            r#"{"type":"search_result","source":"https://x","content":[{"type":"text","text":"t"}]}"#,
            r#"{"type":"web_search_tool_result","content":[{"type":"web_search_result","url":"https://x"}]}"#,
            r#"{"type":"web_search_tool_result","content":{"type":"web_search_tool_result_error"}}"#,
            r#"{"type":"new_block","content":7,"source":[1,{"a":2}],"tool":"hammer"}"#,
            r#""plain text among blocks""#,
            r#"{"type":"tool_removal","tool":{"type":"tool_reference","name":"x"}}"#,
        ] {
            with_block(block).unwrap();
        }
        look(r#"{"model":"m","max_tokens":1,"messages":[{"role":"system","content":[]},{"role":"new"}]}"#)
            .unwrap();
    }

    #[test]
    fn a_body_that_two_readers_could_read_differently_is_refused() {
        let nested = format!(r#"{{"model":"m","max_tokens":1,"system":{}"#, "[".repeat(1_000_000));
        let cases = [
            ("", "not a JSON object"),
            ("{", "not valid JSON"),
            (r#"{"model":"m","max_tokens":1} x"#, "not valid JSON"),
            ("\u{feff}{}", "not a JSON object"),
            (r#"{"model":"m","max_tokens":NaN}"#, "not valid JSON"),
            (&nested, "not valid JSON"),
            (r#"["m",1]"#, "not a JSON object"),
            ("null", "not a JSON object"),
            (r#"{"max_tokens":1}"#, "missing field `model`"),
            (r#"{"model":"cheap","max_tokens":1,"model":"dear"}"#, "duplicate field `model`"),
            (r#"{"model":"cheap","max_tokens":1,"mod\u0065l":"dear"}"#, "duplicate field `model`"),
            (r#"{"model":"m","max_tokens":1,"max_tokens":64000}"#, "duplicate field `max_tokens`"),
            (r#"{"model":"m","max_tokens":1,"tools":[],"tools":[]}"#, "duplicate field `tools`"),
            (r#"{"model":"m","max_tokens":1,"tools":{"type":"web_search"}}"#, "wrong type"),
            (r#"{"model":["m"],"max_tokens":1}"#, "wrong type"),
            (r#"{"model":"m","max_tokens":-1}"#, "wrong type"),
            (r#"{"model":"m","max_tokens":1e3}"#, "wrong type"),
            (r#"{"model":"m"}"#, "max_tokens"),
            (r#"{"model":"","max_tokens":1}"#, "model"),
            (r#"{"model":"a\u0000","max_tokens":1}"#, "model"),
        ];
        for (body, expected) in cases {
            let shown: String = body.chars().take(80).collect();
            match look(body) {
                Err(Refused::Invalid(reason)) => assert!(reason.contains(expected), "{shown}: {reason}"),
                other => panic!("{shown}: {other:?}"),
            }
        }
        let not_utf8 = messages(b"{\"model\":\"\xff\",\"max_tokens\":1}", None, PriceTable::embedded());
        assert!(matches!(not_utf8, Err(Refused::Invalid(_))));
    }

    #[test]
    fn a_message_about_a_body_does_not_quote_it() {
        let body = r#"{"model":"m","max_tokens":"sk-secret"}"#;
        let Err(Refused::Invalid(reason)) = look(body) else { panic!("accepted") };
        assert_eq!(reason, "a field of the body has the wrong type (line 1 column 37)");
    }

    #[test]
    fn only_granted_models_pass_by_id_or_alias() {
        let models = vec!["sonnet".to_owned(), "claude-haiku-5-5".to_owned()];
        let ask = |model: &str| {
            let body = format!(r#"{{"model":"{model}","max_tokens":1}}"#);
            messages(body.as_bytes(), Some(&models), PriceTable::embedded())
        };
        ask("claude-haiku-5-5").unwrap();
        ask("sonnet").unwrap();
        assert!(reason(ask("claude-opus-5-5")).contains("allowed: sonnet, claude-haiku-5-5"));
        assert!(
            count_tokens(br#"{"model":"claude-opus-5-5"}"#, Some(&models), PriceTable::embedded()).is_err()
        );
        assert_eq!(
            count_tokens(br#"{"model":"sonnet"}"#, Some(&models), PriceTable::embedded()).unwrap(),
            "sonnet"
        );
    }
}
