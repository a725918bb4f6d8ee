//! Slash commands: the built-in ones, and those of the user's own, kept as Markdown files.
//!
//! source: the agent protocol reference, sections 1.2, 2.3 and 2.7, and what the official CLI was seen to do. A prompt that
//! begins with a slash and a name is a command, unless its host says that it composed it word for word
//! (`client_composed`). The official CLI also runs `` !`…` `` in a command's file and puts in files that it names with
//! `@`; here both stay as they are written, and the model reads or runs them under the usual permissions.

mod local;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wardian_policy::Rule;
use wardian_protocol::ContentBlock;

use crate::authorise::lock;
use crate::frontmatter::Document;
use crate::hook::HookEvent;
use crate::session::Session;
use crate::shelf::Shelf;
use crate::skill::Skill;
use crate::turn::Turn;
use crate::{UserMessage, models, prompt, words};

pub(crate) use self::local::Local;

/// The most commands; each is named in every `system/init`.
const MAX_COMMANDS: usize = 500;
/// The most entries of the folders that are looked at.
const MAX_ENTRIES: usize = 5_000;
/// The longest name of a command.
const MAX_NAME_BYTES: usize = 120;
/// The longest prompt that a command makes, in bytes: arguments that stand in it many times multiply.
const MAX_PROMPT_BYTES: usize = 4 * 1024 * 1024;

/// The built-in commands: name, description, arguments.
const BUILT_IN: [(&str, &str, &str); 5] = [
    ("clear", "Begins a new conversation; the old one stays on disk", ""),
    ("compact", "Replaces the conversation by a summary of it", "<what the summary should keep>"),
    ("context", "Shows what fills the context window", ""),
    ("cost", "Shows what the session has used and cost", ""),
    ("usage", "Shows what the session has used and cost", ""),
];

/// A command of the user's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomCommand {
    /// What is typed after the slash: `deploy`, `team:deploy`.
    pub name: String,
    /// What it does, for people and for the model.
    pub description: String,
    /// What its arguments are, for people.
    pub argument_hint: String,
    /// The model that its turn uses, in place of the session's.
    pub model: Option<String>,
    /// Rules for calls that go through unasked in its turn.
    pub allowed_tools: Vec<String>,
    /// The prompt, with places for the arguments.
    pub body: String,
    /// Whose it is: `user`, `project` or `plugin`.
    pub source: String,
    /// The file.
    pub path: PathBuf,
}

/// Reads the commands in a folder (`.claude/commands`) and the folders in it, whose names go before theirs. Blocks.
#[must_use]
pub fn discover(shelf: &Shelf) -> Vec<CustomCommand> {
    let mut commands = Vec::new();
    let mut folders = vec![(shelf.folder.clone(), String::new())];
    let mut looked_at = 0;
    while let Some((folder, prefix)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            looked_at += 1;
            if looked_at > MAX_ENTRIES || commands.len() >= MAX_COMMANDS {
                break;
            }
            let path = entry.path();
            let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            // Links to folders are not followed: they may go round.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push((path.clone(), format!("{prefix}{stem}:"))),
                Ok(_) if path.extension().is_some_and(|end| end == "md") => {
                    commands.extend(read(&path, shelf.named(&format!("{prefix}{stem}")), shelf));
                }
                Ok(_) | Err(_) => (),
            }
        }
    }
    commands.sort_by(|one, other| one.name.cmp(&other.name));
    commands
}

/// Reads one file as a command, called after it. Blocks.
#[must_use]
pub fn of_file(path: &Path, shelf: &Shelf) -> Option<CustomCommand> {
    let stem = path.file_stem()?.to_str().filter(|_| path.extension().is_some_and(|end| end == "md"))?;
    read(path, shelf.named(stem), shelf)
}

fn read(path: &Path, name: String, shelf: &Shelf) -> Option<CustomCommand> {
    if !is_name(&name) {
        return None;
    }
    let document = Document::read(path, shelf.root.as_deref()).ok()?;
    let first_line = || document.body.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let hint = match document.fields.get("argument-hint") {
        // `[name]` is a list to YAML.
        Some(Value::Array(_)) => document.list("argument-hint").unwrap_or_default().join(" "),
        Some(_) | None => document.text("argument-hint").unwrap_or_default(),
    };
    Some(CustomCommand {
        name,
        description: document
            .text("description")
            .unwrap_or_else(|| first_line().trim().chars().take(200).collect()),
        argument_hint: hint,
        model: document.text("model").filter(|model| model != "inherit"),
        allowed_tools: document.list("allowed-tools").unwrap_or_default(),
        body: document.body,
        source: shelf.source.clone(),
        path: path.to_owned(),
    })
}

pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ':' | '.');
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(plain)
}

/// The commands as `initialize` names them.
#[must_use]
pub fn listing(custom: &[CustomCommand], skills: &[Skill]) -> Vec<Value> {
    let own = custom.iter().map(|command| {
        json!({
            "name": command.name,
            "description": described(&command.name, &command.description, &command.source),
            "argumentHint": command.argument_hint,
        })
    });
    let built_in = BUILT_IN.iter().map(|(name, description, hint)| {
        json!({"name": name, "description": description, "argumentHint": hint, "builtin": true})
    });
    own.chain(of_skills(skills)).chain(built_in).collect()
}

/// Skills as commands.
#[must_use]
pub fn of_skills(skills: &[Skill]) -> Vec<Value> {
    let listed = skills.iter().filter(|skill| skill.for_user).map(|skill| {
        let mut listed = json!({
            "name": skill.name,
            "description": described(&skill.name, &skill.description, &skill.source),
            "argumentHint": skill.argument_hint,
        });
        if let Some((_, short)) = skill.name.rsplit_once(':') {
            listed["aliases"] = json!([short]);
        }
        listed
    });
    listed.collect()
}

/// A description for people, with whose it is.
fn described(name: &str, description: &str, source: &str) -> String {
    match name.split_once(':') {
        Some((plugin, _)) if source == "plugin" => format!("({plugin}) {description}"),
        Some(_) | None => format!("{description} ({source})"),
    }
}

/// A prompt that is a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// Reads a prompt as a command, if it is one.
pub(crate) fn typed(prompt: &UserMessage) -> Option<Typed> {
    if prompt.extra.get("client_composed") == Some(&Value::Bool(true)) {
        return None;
    }
    let ContentBlock::Text { text, .. } = prompt.message.content.first()? else { return None };
    let rest = text.trim_start().strip_prefix('/')?;
    let (name, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    is_name(name).then(|| Typed { name: name.to_owned(), arguments: arguments.trim().to_owned() })
}

/// Puts the arguments into a command's body: `$ARGUMENTS`, `$ARGUMENTS[n]`, `$n`, counted from 0. A body without a place
/// for them gets them at its end.
pub(crate) fn with_arguments(body: &str, arguments: &str) -> String {
    let words = split(arguments);
    let mut out = String::new();
    let mut rest = body;
    let mut placed = false;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (value, used) = place(&rest[1..], arguments, &words);
        match value {
            Some(value) => {
                placed = true;
                out.push_str(value);
                rest = &rest[1 + used..];
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
        if out.len() > MAX_PROMPT_BYTES {
            out.truncate(out.floor_char_boundary(MAX_PROMPT_BYTES));
            return out;
        }
    }
    out.push_str(rest);
    if !placed && !arguments.is_empty() {
        out.push_str("\n\nARGUMENTS: ");
        out.push_str(arguments);
    }
    out
}

/// What a place after `$` stands for, and its length.
fn place<'a>(text: &str, arguments: &'a str, words: &'a [String]) -> (Option<&'a str>, usize) {
    let number = |digits: &str| digits.parse::<usize>().ok();
    if let Some(rest) = text.strip_prefix("ARGUMENTS") {
        let index = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        if let Some((digits, _)) = index
            && let Some(index) = number(digits)
        {
            let word = words.get(index).map_or("", String::as_str);
            return (Some(word), "ARGUMENTS[]".len() + digits.len());
        }
        return (Some(arguments), "ARGUMENTS".len());
    }
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let word = number(&text[..length]).and_then(|index| words.get(index));
    (word.map(String::as_str), length)
}

/// Arguments as a shell would part them, as far as quotes go.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

impl Session {
    /// The names of all commands, for `system/init`.
    pub(crate) fn command_names(&self) -> Vec<String> {
        let own = self.setup.commands.iter().map(|command| command.name.clone());
        let skills = self.setup.skills.command_names();
        own.chain(skills).chain(BUILT_IN.iter().map(|(name, _, _)| (*name).to_owned())).collect()
    }

    /// Makes a prompt that is a command into what the model gets. Rules that hold for its turn are given back.
    pub(crate) async fn expand(&mut self, turn: &mut Turn, prompt: &mut UserMessage) -> Vec<Rule> {
        // What an agent tells another is no command.
        let typed = typed(prompt).filter(|_| self.setup.out.agent.is_none());
        let Some(typed) = typed else { return Vec::new() };
        let setup = std::sync::Arc::clone(&self.setup);
        let own = setup.commands.iter().find(|command| command.name == typed.name).cloned();
        let command = match (own, setup.skills.command(&typed.name)) {
            (Some(command), _) => Some((with_arguments(&command.body, &typed.arguments), command)),
            (None, Some(skill)) => as_command(&skill, &typed.arguments).await,
            (None, None) => None,
        };
        let Some((body, command)) = command else {
            let names = self.command_names().join(", /");
            let text = prompt::reminder(&words::unknown_command(&typed.name, &names));
            prompt.message.content.insert(0, ContentBlock::text(text));
            return Vec::new();
        };
        let fields = json!({
            "expansion_type": "slash_command",
            "command_name": command.name,
            "command_args": typed.arguments,
            "command_source": command.source,
            "prompt": body,
        });
        let said = setup.hooks.run(HookEvent::UserPromptExpansion, &command.name, fields).await;
        let mut content = vec![ContentBlock::text(tags(&typed)), ContentBlock::text(body)];
        content.extend(said.context.into_iter().map(ContentBlock::text));
        content.extend(prompt.message.content.drain(1..));
        prompt.message.content = content;
        turn.model = command.model.as_deref().map(models::resolve);
        let rules = command.allowed_tools.iter().filter_map(|rule| rule.parse::<Rule>().ok());
        let mut live = lock(&setup.live);
        let new: Vec<Rule> = rules.filter(|rule| !live.policy.allow.contains(rule)).collect();
        live.policy.allow.extend(new.iter().cloned());
        new
    }

    /// Takes the rules of a command's turn away.
    pub(crate) fn end_command(&self, rules: &[Rule]) {
        if !rules.is_empty() {
            lock(&self.setup.live).policy.allow.retain(|rule| !rules.contains(rule));
        }
    }
}

/// A skill that was typed as a command, with the prompt that it makes.
async fn as_command(skill: &Skill, arguments: &str) -> Option<(String, CustomCommand)> {
    let command = CustomCommand {
        name: skill.name.clone(),
        model: skill.model.clone(),
        allowed_tools: skill.allowed_tools.clone(),
        source: skill.source.clone(),
        ..CustomCommand::default()
    };
    Some((skill.text(arguments).await.ok()?, command))
}

/// What was typed, as the transcript has it. The tags are known to the SDKs' helpers.
fn tags(typed: &Typed) -> String {
    let Typed { name, arguments } = typed;
    let mut text = format!("<command-message>{name}</command-message>\n<command-name>/{name}</command-name>");
    if !arguments.is_empty() {
        text.push_str(&format!("\n<command-args>{arguments}</command-args>"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(text: &str) -> UserMessage {
        crate::query::text_prompt(text.to_owned())
    }

    #[test]
    fn what_begins_with_a_slash_and_a_name_is_a_command() {
        for (text, expected) in [
            ("/compact", Some(("compact", ""))),
            (" /greet  Ada Lovelace ", Some(("greet", "Ada Lovelace"))),
            ("/team:deploy\nnow", Some(("team:deploy", "now"))),
            ("/tmp/x is a path", None),
            ("/", None),
            ("// a comment", None),
            ("no /compact", None),
            ("", None),
        ] {
            let typed = typed(&prompt(text));
            let typed = typed.as_ref().map(|typed| (typed.name.as_str(), typed.arguments.as_str()));
            assert_eq!(typed, expected, "{text}");
        }
        let mut verbatim = prompt("/compact");
        verbatim.extra.insert("client_composed".to_owned(), true.into());
        assert_eq!(typed(&verbatim), None);
    }

    #[test]
    fn arguments_go_where_the_official_cli_puts_them() {
        for (body, arguments, expected) in [
            ("Greet $ARGUMENTS and $1, $2.", "Ada Lovelace", "Greet Ada Lovelace and Lovelace, $2."),
            ("Deep $0 $ARGUMENTS[1] end", "a b", "Deep a b end"),
            ("Plain", "extra args", "Plain\n\nARGUMENTS: extra args"),
            ("Plain", "", "Plain"),
            ("None: $ARGUMENTS.", "", "None: ."),
            ("$ARGUMENTS[9]|$ARGUMENTS[x]", "a", "|a[x]"),
            ("costs $5 and $", "", "costs $5 and $"),
            ("$0/$1", "'a b' \"c\"", "a b/c"),
            ("$99999999999999999999", "a", "$99999999999999999999\n\nARGUMENTS: a"),
            ("é$0é", "ü", "éüé"),
        ] {
            assert_eq!(with_arguments(body, arguments), expected, "{body}");
        }
        let long = with_arguments(&"$ARGUMENTS".repeat(1000), &"x".repeat(100_000));
        assert!(long.len() <= MAX_PROMPT_BYTES);
    }

    #[test]
    fn commands_are_found_in_folders_of_folders() {
        let place = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = place.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "greet.md",
            "---\ndescription: Greets\nargument-hint: [name]\nallowed-tools: Bash(echo:*), Read\nmodel: haiku\n---\nHi $0",
        );
        write("team/deploy.md", "Deploy it.\n\nNow.");
        write("not a name.md", "x");
        write("notes.txt", "x");
        write("broken.md", "---\n: [\n---\nStill here.");
        std::os::unix::fs::symlink(place.path(), place.path().join("ring")).unwrap();
        let commands = discover(&Shelf::new(place.path(), "project"));
        let names: Vec<&str> = commands.iter().map(|command| command.name.as_str()).collect();
        assert_eq!(names, ["broken", "greet", "team:deploy"]);
        let greet = &commands[1];
        assert_eq!((greet.argument_hint.as_str(), greet.model.as_deref()), ("name", Some("haiku")));
        assert_eq!(greet.allowed_tools, ["Bash(echo:*)", "Read"]);
        assert_eq!((greet.body.trim(), commands[2].description.as_str()), ("Hi $0", "Deploy it."));
        let listed = listing(&commands, &[]);
        assert_eq!(
            listed[1],
            json!({"name": "greet", "description": "Greets (project)", "argumentHint": "name"})
        );
        assert_eq!(listed.iter().filter(|command| command["builtin"] == true).count(), BUILT_IN.len());
    }
}
