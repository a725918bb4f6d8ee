//! What the model is told before the first prompt: the system prompt, and what opens the conversation.

use std::path::PathBuf;

use serde_json::json;
use wardian_protocol::ContentBlock;

use crate::hook::HookEvent;
use crate::memory::{MemoryFile, MemoryKind};
use crate::session::Session;
use crate::tool::ToolContext;
use crate::{Options, SystemPrompt, words};

/// Parts the blocks of a system prompt that are the same in every session from those that are not; not told to the
/// model. source: the SDKs.
pub const DYNAMIC_BOUNDARY: &str = "__SYSTEM_PROMPT_DYNAMIC_BOUNDARY__";

/// What opens a conversation, said once: with its first prompt, and again when it was made shorter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening {
    pub(crate) texts: Vec<String>,
    /// The files that the texts are from.
    pub(crate) memory: Vec<MemoryFile>,
    /// What a new session is called.
    pub(crate) title: Option<String>,
    /// Whether the system prompt stays as it is, whatever a later start says.
    pub(crate) keeps_system_prompt: bool,
}

impl Opening {
    pub(crate) fn new(
        options: &Options,
        context: &ToolContext,
        more: &[PathBuf],
        now: jiff::Timestamp,
    ) -> Self {
        let mut texts = Vec::new();
        if options.exclude_dynamic_sections && options.system_prompt == SystemPrompt::Preset {
            texts.push(reminder(&surroundings(context, more, now)));
        }
        if !options.memory.is_empty() {
            texts.push(instructions(&options.memory));
        }
        Self {
            texts,
            memory: options.memory.clone(),
            title: options.title.clone(),
            keeps_system_prompt: options.system_prompt_snapshot,
        }
    }
}

impl Opening {
    /// Adds instructions to what opens a conversation.
    pub(crate) fn add(&mut self, memory: Vec<MemoryFile>) {
        self.texts.push(instructions(&memory));
        self.memory.extend(memory);
    }
}

/// Instructions as the model is told them.
pub(crate) fn instructions(memory: &[MemoryFile]) -> String {
    let files = memory.iter().map(told);
    let files: Vec<String> = std::iter::once(words::INSTRUCTIONS.to_owned()).chain(files).collect();
    reminder(&files.join("\n\n"))
}

/// The system prompt, a block each. What changes from session to session comes behind [`DYNAMIC_BOUNDARY`].
pub(crate) fn system(
    options: &Options,
    context: &ToolContext,
    more: &[PathBuf],
    now: jiff::Timestamp,
) -> Vec<String> {
    let mut blocks = match &options.system_prompt {
        SystemPrompt::Empty => Vec::new(),
        SystemPrompt::Text(blocks) => blocks.clone(),
        SystemPrompt::Preset => vec![words::PRESET.to_owned()],
    };
    if options.system_prompt == SystemPrompt::Preset && !options.exclude_dynamic_sections {
        blocks.extend([DYNAMIC_BOUNDARY.to_owned(), surroundings(context, more, now)]);
    }
    blocks.extend(options.append_system_prompt.clone());
    // The API refuses empty blocks; the SDKs send one where no prompt is set.
    blocks.retain(|block| !block.trim().is_empty());
    blocks
}

fn surroundings(context: &ToolContext, more: &[PathBuf], now: jiff::Timestamp) -> String {
    words::surroundings(&context.cwd, more, &now.strftime("%Y-%m-%d").to_string())
}

fn told(file: &MemoryFile) -> String {
    let whose = match file.kind {
        MemoryKind::User => "the user's own, for all projects",
        MemoryKind::Project => "the project's, shared by all who work on it",
        MemoryKind::Local => "the user's own, for this project",
    };
    format!("From {} ({whose}):\n\n{}", file.path.display(), file.content.trim_end())
}

/// What is not the user's prompt is marked so; hosts leave it out where they show the conversation.
pub(crate) fn reminder(text: &str) -> String {
    format!("<system-reminder>\n{text}\n</system-reminder>")
}

impl Session {
    /// Says what opens a conversation, and notes what stays with it.
    pub(crate) async fn open_conversation(&mut self) {
        let setup = std::sync::Arc::clone(&self.setup);
        let opening = &setup.opening;
        // A subagent has the session's name, and its own prompt each time.
        if setup.out.agent.is_some() {
            return self.say_opening("session_start").await;
        }
        if let Some(title) = &opening.title {
            // What was not written is found out at the next turn of the loop.
            let _ = setup.out.keep_title(title).await;
        }
        if opening.keeps_system_prompt {
            setup.out.keep_system_prompt(&setup.system).await;
        }
        self.say_opening("session_start").await;
    }

    /// Lets hooks see a file of instructions.
    pub(crate) async fn show_instructions(&self, file: &MemoryFile, reason: &str) {
        let hooks = &self.setup.hooks;
        if !hooks.listens(HookEvent::InstructionsLoaded) {
            return;
        }
        let reason = if file.parent.is_some() { "include" } else { reason };
        let mut fields = json!({
            "file_path": file.path,
            "memory_type": file.kind.as_str(),
            "load_reason": reason,
        });
        if let Some(parent) = &file.parent {
            fields["parent_file_path"] = json!(parent);
        }
        hooks.run(HookEvent::InstructionsLoaded, reason, fields).await;
    }

    /// `reason`: why the files are read, for hooks.
    pub(crate) async fn say_opening(&mut self, reason: &str) {
        let setup = std::sync::Arc::clone(&self.setup);
        for file in &setup.opening.memory {
            self.show_instructions(file, reason).await;
        }
        let blocks: Vec<ContentBlock> = setup.opening.texts.iter().map(ContentBlock::text).collect();
        if !blocks.is_empty() {
            setup.out.keep_context(blocks.clone()).await;
            self.hear(blocks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_comes_behind_the_boundary_or_with_the_first_prompt() {
        let context = ToolContext::new("/work".into(), "/out".into());
        let options = Options {
            system_prompt: SystemPrompt::Preset,
            append_system_prompt: Some("More.".to_owned()),
            ..Options::default()
        };
        let now = jiff::Timestamp::UNIX_EPOCH;
        let blocks = system(&options, &context, &[], now);
        assert_eq!(
            (blocks[0].as_str(), blocks[1].as_str(), blocks[3].as_str()),
            (words::PRESET, DYNAMIC_BOUNDARY, "More.")
        );
        assert!(blocks[2].contains("/work") && blocks[2].contains("1970-01-01"));
        assert_eq!(Opening::new(&options, &context, &[], now).texts, Vec::<String>::new());
        let options = Options { exclude_dynamic_sections: true, ..options };
        assert_eq!(system(&options, &context, &[], now), [words::PRESET, "More."]);
        assert!(Opening::new(&options, &context, &[], now).texts[0].contains("/work"));
        // A prompt of the host's own has no such sections.
        let options = Options { system_prompt: "Mine.".into(), ..options };
        assert_eq!(system(&options, &context, &[], now), ["Mine.", "More."]);
        assert_eq!(Opening::new(&options, &context, &[], now).texts, Vec::<String>::new());
    }
}
