//! What the servers add to a session's tools: which definitions a request carries, and which the model has to search for.
//! Tools of servers come after the session's own, in the order of their names, so that a request begins as the last one did.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use wardian_policy::Rule;
use wardian_protocol::{ContentBlock, MessageParam};

use crate::authorise::lock;
use crate::mcp::{Mcp, McpConfigError, McpSource, McpToolOrigin, Offer, ToolSearch, tool_name};
use crate::models::context_window;
use crate::session::{Offered, Setup, definition};
use crate::tool::Tool;
use crate::tools::mcp_resources::{ListResources, ReadResource};
use crate::tools::tool_search::{self, Deferred, DeferredTool};
use crate::words;
use crate::{Options, ToolSet};

/// Characters that a token stands for, about: enough to tell few definitions from many.
const CHARS_PER_TOKEN: u64 = 4;
/// What is told to the model of a server's instructions, in bytes. source: the official CLI's cut.
const MAX_INSTRUCTIONS_BYTES: usize = 2 * 1024;
/// What is told to the model of the names of one server's tools, in bytes.
const MAX_NAMES_BYTES: usize = 16 * 1024;

/// What the servers add to a session's tools.
#[derive(Clone, Debug)]
pub(crate) struct ServerTools {
    pub(crate) mcp: Mcp,
    search: ToolSearch,
    set: ToolSet,
    deferred: Deferred,
    /// The session's own tools and definitions, which come first.
    own: Option<(usize, usize)>,
    /// What the tools were last made of: the servers' changes, and how much was found.
    seen: Option<(u64, usize)>,
    /// Where each tool of a server comes from.
    origins: BTreeMap<String, Origin>,
    /// What the model is told of each server.
    notes: Vec<String>,
    /// Servers that were left out.
    pub(crate) skipped: Arc<[McpConfigError]>,
}

/// Where a tool comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) server: String,
    pub(crate) server_display_name: String,
    pub(crate) source: McpSource,
    pub(crate) own_name: String,
    pub(crate) title: Option<String>,
}

impl Origin {
    /// What people call the tool.
    fn display_name(&self) -> String {
        self.title.clone().unwrap_or_else(|| spelt_out(&self.own_name))
    }

    /// For hooks and hosts that ask.
    pub(crate) fn provenance(&self) -> Value {
        json!({"name": self.server, "source": self.source.as_str()})
    }
}

impl ServerTools {
    pub(crate) fn new(mcp: Mcp, options: &Options) -> Self {
        Self {
            mcp,
            search: options.tool_search,
            set: options.tools.clone(),
            skipped: options.mcp_config_errors.as_slice().into(),
            deferred: Deferred::default(),
            own: None,
            seen: None,
            origins: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Nothing is known yet of what they add: for a subagent, which finds tools by itself.
    pub(crate) fn begin_again(&mut self) {
        self.own = None;
        self.seen = None;
        self.deferred = Deferred::default();
    }

    /// Notes the tools that a conversation from before refers to: their definitions must be there.
    pub(crate) fn remember(&self, history: &[MessageParam]) {
        self.deferred.load(history.iter().flat_map(|message| &message.content).flat_map(references));
    }

    /// Whether the tools are not what the servers offer now.
    pub(crate) fn is_stale(&self) -> bool {
        self.seen != Some(self.state())
    }

    fn state(&self) -> (u64, usize) {
        (self.mcp.version(), self.deferred.count())
    }

    /// Where a tool of a server comes from.
    pub(crate) fn origin(&self, tool: &str) -> Option<&Origin> {
        self.origins.get(tool)
    }

    /// Where a tool of a server comes from, for who is asked about it.
    pub(crate) fn tool_origin(&self, tool: &str) -> Option<McpToolOrigin> {
        self.origin(tool).map(|origin| McpToolOrigin {
            server: origin.server.clone(),
            source: origin.source,
            display_name: origin.display_name(),
        })
    }

    /// What hosts are told of a call of a server's tool.
    pub(crate) fn call_meta(&self, id: &str, tool: &str) -> Option<Value> {
        let origin = self.origin(tool)?;
        Some(json!({
            "id": id,
            "display_name": origin.display_name(),
            "server_display_name": origin.server_display_name,
            "tool_name": origin.own_name,
        }))
    }

    /// What the model is told of the servers beyond the tools' definitions, a text for each.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    fn wants(&self, name: &str) -> bool {
        match &self.set {
            ToolSet::All | ToolSet::Standard => true,
            ToolSet::Only(names) => names.iter().any(|wanted| wanted == name),
        }
    }
}

/// The tools that a block refers to.
fn references(block: &ContentBlock) -> Vec<String> {
    let ContentBlock::ToolResult { content: Value::Array(parts), .. } = block else { return Vec::new() };
    let of = |part: &Value| {
        (part["type"] == "tool_reference").then(|| part["tool_name"].as_str().map(str::to_owned)).flatten()
    };
    parts.iter().filter_map(of).collect()
}

/// `create_issue` as people read it.
fn spelt_out(name: &str) -> String {
    let mut text = name.replace(['_', '-'], " ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

impl Setup {
    /// Leaves the session's own tools alone.
    pub(crate) fn drop_servers_tools(&mut self) {
        if let Some((tools, definitions)) = self.servers.own {
            self.tools.truncate(tools);
            self.definitions.truncate(definitions);
        }
    }

    /// Brings the tools of the servers up to date; does nothing where nothing has changed.
    pub(crate) fn refresh_tools(&mut self) {
        if !self.servers.is_stale() {
            return;
        }
        self.servers.seen = Some(self.servers.state());
        let (tools, definitions) =
            *self.servers.own.get_or_insert((self.tools.len(), self.definitions.len()));
        self.tools.truncate(tools);
        self.definitions.truncate(definitions);
        let offers = self.servers.mcp.offers();
        self.apply_policies(&offers);
        if offers.iter().any(|offer| offer.has_resources) {
            let list: Arc<dyn Tool> = Arc::new(ListResources(self.servers.mcp.clone()));
            let read: Arc<dyn Tool> = Arc::new(ReadResource(self.servers.mcp.clone()));
            for tool in [list, read] {
                self.add_own(tool);
            }
        }
        let offered = self.offered_by(&offers);
        self.add_servers_tools(offered);
        self.servers.notes = self.notes_on(&offers);
    }

    /// Rules that the host has for single tools of a server.
    fn apply_policies(&self, offers: &[Offer]) {
        let mut live = lock(&self.live);
        let policy = &mut live.policy;
        for offer in offers {
            for (tools, rules) in [(&offer.ask, &mut policy.ask), (&offer.deny, &mut policy.deny)] {
                for tool in tools {
                    let Ok(rule) = tool_name(&offer.server, tool).parse::<Rule>() else { continue };
                    if rules.iter().all(|known| known.as_str() != rule.as_str()) {
                        rules.push(rule);
                    }
                }
            }
        }
    }

    /// Adds a tool that is there only for servers.
    fn add_own(&mut self, tool: Arc<dyn Tool>) {
        if self.servers.wants(tool.name()) && !self.is_taken_away(tool.name()) {
            self.add(tool, None);
        }
    }

    fn is_taken_away(&self, name: &str) -> bool {
        lock(&self.live).policy.removes(name) || !self.admits(name) || self.tool(name).is_some()
    }

    fn add(&mut self, tool: Arc<dyn Tool>, definition_as: Option<Value>) {
        let offered = Offered { schema: tool.input_schema(), tool };
        self.definitions.push(definition_as.unwrap_or_else(|| definition(&offered)));
        self.tools.push(offered);
    }

    /// The tools of servers that the model may have, with where each comes from, by name.
    fn offered_by(&mut self, offers: &[Offer]) -> BTreeMap<String, (Arc<dyn Tool>, bool)> {
        let mut offered = BTreeMap::new();
        self.servers.origins.clear();
        for offer in offers {
            for tool in &offer.tools {
                let name = tool.tool.name().to_owned();
                // Two servers may have names that read the same: the first has it.
                if offered.contains_key(&name) || self.is_taken_away(&name) {
                    continue;
                }
                let origin = Origin {
                    server: offer.server.clone(),
                    server_display_name: offer.display_name.clone(),
                    source: offer.source,
                    own_name: tool.own_name.clone(),
                    title: tool.title.clone(),
                };
                self.servers.origins.insert(name.clone(), origin);
                offered.insert(name, (Arc::clone(&tool.tool), tool.always_load));
            }
        }
        offered
    }

    fn add_servers_tools(&mut self, offered: BTreeMap<String, (Arc<dyn Tool>, bool)>) {
        let searches = self.searches(&offered);
        let is_deferred = |always_load: bool| searches && !always_load;
        let hidden = offered.values().filter(|(_, always_load)| is_deferred(*always_load));
        let entry = |(tool, _): &(Arc<dyn Tool>, bool)| DeferredTool {
            name: tool.name().to_owned(),
            description: tool.description().to_owned(),
        };
        self.servers.deferred.set(hidden.map(entry).collect());
        if !self.servers.deferred.is_empty() {
            let search: Arc<dyn Tool> = Arc::new(tool_search::ToolSearch(self.servers.deferred.clone()));
            self.add(search, None);
        }
        let mut loaded = self.servers.deferred.loaded();
        let mut last = Vec::new();
        for (name, (tool, always_load)) in offered {
            let was_loaded = loaded.remove(&name);
            let offered = Offered { schema: tool.input_schema(), tool };
            if !is_deferred(always_load) {
                self.definitions.push(definition(&offered));
            } else if was_loaded {
                last.push(deferred(definition(&offered)));
            }
            self.tools.push(offered);
        }
        // What the conversation refers to must be there, though its server is gone.
        last.extend(loaded.into_iter().filter(|name| self.tool(name).is_none()).map(|name| {
            let schema = json!({"type": "object"});
            deferred(json!({"name": name, "description": words::TOOL_GONE, "input_schema": schema}))
        }));
        self.definitions.extend(last);
    }

    /// Whether the model searches for tools.
    fn searches(&self, offered: &BTreeMap<String, (Arc<dyn Tool>, bool)>) -> bool {
        if !self.servers.wants(tool_search::NAME) || lock(&self.live).policy.removes(tool_search::NAME) {
            return false;
        }
        match self.servers.search {
            ToolSearch::On => true,
            ToolSearch::Off => false,
            ToolSearch::Auto(percent) => {
                let size = |(tool, _): &(Arc<dyn Tool>, bool)| {
                    tool.name().len() + tool.description().len() + tool.input_schema().to_string().len()
                };
                let chars: usize = offered.values().map(size).sum();
                let model = lock(&self.live).model.clone();
                let window = context_window(&model);
                let chars = u64::try_from(chars).unwrap_or(u64::MAX);
                chars / CHARS_PER_TOKEN > window.saturating_mul(u64::from(percent)) / 100
            }
        }
    }

    fn notes_on(&self, offers: &[Offer]) -> Vec<String> {
        let loaded_at_once: Vec<&str> = self
            .definitions
            .iter()
            .filter(|definition| definition["defer_loading"] != true)
            .filter_map(|d| d["name"].as_str())
            .collect();
        let note = |offer: &Offer| {
            let mut names = offer
                .tools
                .iter()
                .map(|tool| tool.tool.name())
                .filter(|name| self.servers.origins.contains_key(*name) && !loaded_at_once.contains(name))
                .collect::<Vec<_>>();
            names.sort_unstable();
            let instructions =
                offer.instructions.as_deref().map(|text| shortened(text, MAX_INSTRUCTIONS_BYTES));
            if names.is_empty() && instructions.is_none() {
                return None;
            }
            let names = shortened(&names.join(", "), MAX_NAMES_BYTES);
            Some(words::server_note(&offer.server, &names, instructions.as_deref()))
        };
        offers.iter().filter_map(note).collect()
    }
}

fn shortened(text: &str, bytes: usize) -> String {
    let end = text.floor_char_boundary(bytes);
    if end == text.len() { text.to_owned() } else { format!("{}…", &text[..end]) }
}

/// A definition that the model gets by a reference.
fn deferred(mut definition: Value) -> Value {
    definition["defer_loading"] = true.into();
    definition
}
