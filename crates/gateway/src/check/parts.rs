//! The parts of a body that matter, read without being kept.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Refused;

/// The types of tools that the client runs itself. Every other typed tool is run by the API.
const CLIENT_TOOLS: [&str; 5] = ["bash_", "text_editor_", "computer_", "memory_", "browser_toolset_"];

/// Tokens that an image may have at most; large ones are scaled down. An image's tokens follow from its size in pixels,
/// not from its bytes. (The largest documented is 4,784.)
pub const MAX_IMAGE_TOKENS: u64 = 8192;

/// Tokens that the API puts in place of a tool that it knows by its type. (The largest documented is 735, for one tool;
/// a toolset has several.)
pub const TYPED_TOOL_TOKENS: u64 = 8192;

/// The fields that matter here.
#[derive(Deserialize)]
pub struct Request<'a> {
    #[serde(borrow)]
    pub model: Cow<'a, str>,
    pub max_tokens: Option<u64>,
    pub stream: Option<bool>,
    #[serde(borrow)]
    pub speed: Option<Cow<'a, str>>,
    #[serde(default)]
    system: Content,
    #[serde(default)]
    messages: Each<Turn>,
    #[serde(default)]
    tools: Each<Tool>,
    #[serde(default)]
    context_management: ContextManagement,
    pub compaction: Option<IgnoredAny>,
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
pub struct Found {
    images: u64,
    documents: u64,
    typed_tools: u64,
    pub compacts: bool,
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
    pub fn token_bound(&self, bytes: usize) -> u64 {
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
    pub fn found(&mut self) -> Result<Found, Refused> {
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

pub fn shown(text: &str) -> String {
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
