//! A request that was checked: what is here can be run. No I/O.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use wardian_ledger::PriceTable;
use wardian_policy::Rule;
use wardian_protocol::frame::MAX_LINE_BYTES;
use wardian_protocol::{NanoUsd, RequestId, SessionId};

use crate::config::RunLimits;
use crate::error::FieldError;
use crate::request::{Caller, LimitsAsked, Permissions, Place, RunFile, RunRequest, Runtime};

/// The longest prompt, in bytes: with room to spare in one line of the agent protocol. More belongs into a file.
pub const MAX_PROMPT_BYTES: usize = 512 * 1024;
/// The longest system prompt, in bytes.
pub const MAX_SYSTEM_BYTES: usize = 256 * 1024;
/// What a line of the agent protocol needs beside the text that it carries, generously.
const FRAME_ROOM_BYTES: usize = 4096;
/// The most arguments of a command.
pub const MAX_COMMAND_ELEMENTS: usize = 256;
/// The longest argument: the kernel takes 128 KiB with the closing NUL, and `PROMPT=` stands before it in the environment.
pub const MAX_ELEMENT_BYTES: usize = 128 * 1024 - 16;
/// All arguments together: the kernel's limit is 2 MiB with the environment.
pub const MAX_COMMAND_BYTES: usize = 1024 * 1024;
/// The element that becomes the prompt.
pub const PROMPT_ELEMENT: &str = "$PROMPT";
/// The most files that a request ships.
pub const MAX_FILES: usize = 1000;
/// The largest file that a request ships, in bytes.
pub const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;
/// All files that a request ships, in bytes: with base64 and JSON around them they fit a body of 32 MiB.
pub const MAX_FILES_BYTES: usize = 22 * 1024 * 1024;
/// The longest path of a file, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;
/// The longest part of a path, in bytes: the limit of the file systems.
const MAX_NAME_BYTES: usize = 255;
/// The longest user id, in bytes.
pub const MAX_USER_BYTES: usize = 128;
/// The longest model name, in bytes.
pub const MAX_MODEL_BYTES: usize = 128;
/// The most permission rules.
pub const MAX_RULES: usize = 256;
/// The longest permission rule, in bytes.
pub const MAX_RULE_BYTES: usize = 1024;

/// A checked request.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) request_id: RequestId,
    pub(crate) prompt: String,
    pub(crate) runtime: Runtime,
    pub(crate) model: String,
    pub(crate) system: Option<String>,
    pub(crate) permissions: Permissions,
    pub(crate) files: Arc<Vec<(PathBuf, Vec<u8>)>>,
    pub(crate) user: Option<String>,
    pub(crate) limits: RunLimits,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) place: Place,
}

/// Reads a request against the limits of this host; reports every field that is wrong.
///
/// # Errors
/// One [`FieldError`] for each wrong field.
pub fn check(
    request: RunRequest,
    caller: &Caller,
    default_model: &str,
    defaults: &RunLimits,
    ceilings: &RunLimits,
) -> Result<Plan, Vec<FieldError>> {
    let mut errors = Errors(Vec::new());
    check_prompt(&request, &mut errors);
    check_system(request.system.as_deref(), &mut errors);
    if let Runtime::Command(command) = &request.runtime {
        check_command(command, &request.prompt, &mut errors);
        if request.system.is_some() {
            errors.add("system", "runtime `command` has no system prompt: the program brings its own");
        }
    }
    check_permissions(&request, &mut errors);
    let files = check_files(request.files, &mut errors);
    let user = check_user(request.user, caller, &mut errors);
    let limits = check_limits(request.limits, defaults, ceilings, &mut errors);
    let model = request.model.as_deref().unwrap_or(default_model);
    let model = resolve_model(model).map_err(|error| errors.0.push(error)).unwrap_or_default();
    if let Place::Local(dir) = &request.place
        && !dir.is_absolute()
    {
        errors.add("cwd", "expected an absolute path");
    }
    if !errors.0.is_empty() {
        return Err(errors.0);
    }
    Ok(Plan {
        request_id: request.request_id,
        prompt: request.prompt,
        runtime: request.runtime,
        model,
        system: request.system,
        permissions: request.permissions,
        files: Arc::new(files),
        user,
        limits,
        session_id: request.session_id,
        place: request.place,
    })
}

struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError::new(field, message));
    }
}

fn check_prompt(request: &RunRequest, errors: &mut Errors) {
    let prompt = &request.prompt;
    let most = match request.runtime {
        Runtime::Wardian => MAX_PROMPT_BYTES,
        Runtime::Command(_) => MAX_ELEMENT_BYTES,
    };
    if prompt.trim().is_empty() {
        errors.add("prompt", "expected a text that is not empty");
    } else if prompt.len() > most {
        let bytes = prompt.len();
        errors.add("prompt", format!("{bytes} bytes; the limit is {most}, ship more as a file"));
    } else if matches!(request.runtime, Runtime::Command(_)) && prompt.contains('\0') {
        errors.add("prompt", "expected no NUL character: it becomes an argument of the command");
    } else if !fits_line(prompt) {
        errors.add("prompt", format!("too many characters that need escaping: over {MAX_LINE_BYTES} bytes"));
    }
}

fn check_system(system: Option<&str>, errors: &mut Errors) {
    let Some(system) = system else { return };
    if system.len() > MAX_SYSTEM_BYTES {
        errors.add("system", format!("{} bytes; the limit is {MAX_SYSTEM_BYTES}", system.len()));
    } else if !fits_line(system) {
        errors.add("system", format!("too many characters that need escaping: over {MAX_LINE_BYTES} bytes"));
    }
}

fn fits_line(text: &str) -> bool {
    // Only control characters, quotes and backslashes grow in JSON; at most to six bytes.
    let escaped: usize = text
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
            0..=0x1f => 6,
            _ => 1,
        })
        .sum();
    escaped + FRAME_ROOM_BYTES <= MAX_LINE_BYTES
}

fn check_command(command: &[String], prompt: &str, errors: &mut Errors) {
    if command.is_empty() || command[0].is_empty() {
        errors.add(
            "command",
            "expected a program and its arguments, such as [\"python3\", \"agent.py\", \"$PROMPT\"]",
        );
    }
    if command.len() > MAX_COMMAND_ELEMENTS {
        errors.add("command", format!("{} elements; the limit is {MAX_COMMAND_ELEMENTS}", command.len()));
        return;
    }
    for (index, element) in command.iter().enumerate() {
        if element.len() > MAX_ELEMENT_BYTES {
            let bytes = element.len();
            errors
                .add(format!("command[{index}]"), format!("{bytes} bytes; the limit is {MAX_ELEMENT_BYTES}"));
        } else if element.contains('\0') {
            errors.add(format!("command[{index}]"), "expected no NUL character");
        }
    }
    let total: usize = command
        .iter()
        .map(|element| if element == PROMPT_ELEMENT { prompt.len() } else { element.len() })
        .sum();
    if total > MAX_COMMAND_BYTES {
        errors.add("command", format!("{total} bytes in all; the limit is {MAX_COMMAND_BYTES}"));
    }
}

fn check_permissions(request: &RunRequest, errors: &mut Errors) {
    let Permissions::Only(rules) = &request.permissions else { return };
    if matches!(request.runtime, Runtime::Command(_)) {
        errors.add("allowed_tools", "runtime `command` has no tools of ours: the sandbox bounds the program");
    }
    if rules.len() > MAX_RULES {
        errors.add("allowed_tools", format!("{} rules; the limit is {MAX_RULES}", rules.len()));
        return;
    }
    for (index, rule) in rules.iter().enumerate() {
        let field = || format!("allowed_tools[{index}]");
        if rule.len() > MAX_RULE_BYTES {
            errors.add(field(), format!("{} bytes; the limit is {MAX_RULE_BYTES}", rule.len()));
        } else if rule.trim().is_empty() || rule.chars().any(char::is_control) {
            errors.add(field(), "expected a rule such as `Read` or `Bash(git *)`");
        } else if let Err(error) = rule.parse::<Rule>() {
            errors.add(field(), error.to_string());
        }
    }
}

fn check_files(files: Vec<RunFile>, errors: &mut Errors) -> Vec<(PathBuf, Vec<u8>)> {
    if files.len() > MAX_FILES {
        errors.add("files", format!("{} files; the limit is {MAX_FILES}", files.len()));
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut total = 0usize;
    for (index, file) in files.iter().enumerate() {
        total = total.saturating_add(file.content.len());
        if file.content.len() > MAX_FILE_BYTES {
            let bytes = file.content.len();
            errors.add(
                format!("files[{index}].content"),
                format!("{bytes} bytes; the limit is {MAX_FILE_BYTES}"),
            );
        }
        match check_path(&file.path) {
            Err(message) => errors.add(format!("files[{index}].path"), message),
            Ok(()) if !names.insert(file.path.as_str()) => {
                errors.add(format!("files[{index}].path"), "this path stands in the list twice");
            }
            Ok(()) => (),
        }
    }
    for (index, file) in files.iter().enumerate() {
        let parents = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
        if parents.into_iter().any(|parent| names.contains(parent)) {
            errors.add(
                format!("files[{index}].path"),
                "another file of the list stands where its folder would be",
            );
        }
    }
    if total > MAX_FILES_BYTES {
        errors.add("files", format!("{total} bytes in all; the limit is {MAX_FILES_BYTES}"));
    }
    files.into_iter().map(|file| (PathBuf::from(file.path), file.content)).collect()
}

/// A path within the workspace: parts divided by single slashes, none of them `.` or `..`.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("expected a path in the workspace");
    }
    if path.len() > MAX_PATH_BYTES {
        return Err("too long: the limit is 1024 bytes");
    }
    if path.starts_with('/') {
        return Err("expected a path relative to the workspace");
    }
    if path.contains('\0') {
        return Err("expected no NUL character");
    }
    for part in path.split('/') {
        match part {
            "" => return Err("expected no empty parts"),
            "." | ".." => return Err("expected no `.` or `..`"),
            part if part.len() > MAX_NAME_BYTES => return Err("a part is too long: the limit is 255 bytes"),
            _ => (),
        }
    }
    Ok(())
}

/// The user of the run: the caller's, or the one that it names.
fn check_user(asked: Option<String>, caller: &Caller, errors: &mut Errors) -> Option<String> {
    if let Some(user) = &asked
        && (user.is_empty() || user.len() > MAX_USER_BYTES || user.chars().any(char::is_control))
    {
        errors.add("user", format!("expected 1 to {MAX_USER_BYTES} bytes without control characters"));
        return None;
    }
    match (&caller.user_id, asked) {
        (Some(own), Some(asked)) if *own != asked => {
            errors.add("user", "this key is bound to another user; leave the field out");
            None
        }
        (Some(own), _) => Some(own.clone()),
        (None, asked) => asked,
    }
}

fn check_limits(
    asked: LimitsAsked,
    defaults: &RunLimits,
    ceilings: &RunLimits,
    errors: &mut Errors,
) -> RunLimits {
    let max_turns = asked.max_turns.unwrap_or(defaults.max_turns);
    if !(1..=ceilings.max_turns).contains(&max_turns) {
        errors.add("limits.max_turns", format!("{max_turns}: expected 1 to {}", ceilings.max_turns));
    }
    let max_cost = asked.max_cost.unwrap_or(defaults.max_cost);
    if !(NanoUsd::ZERO..=ceilings.max_cost).contains(&max_cost) {
        errors.add("limits.max_cost_usd", format!("{max_cost}: expected $0.00 to {}", ceilings.max_cost));
    }
    let timeout = asked.timeout.unwrap_or(defaults.timeout);
    if timeout.as_millis() == 0 || timeout > ceilings.timeout {
        let most = ceilings.timeout.as_secs();
        errors.add(
            "limits.timeout_seconds",
            format!("{}: expected more than 0, up to {most}", timeout.as_secs_f64()),
        );
    }
    RunLimits { max_turns, max_cost, timeout }
}

/// A model's full name, from a name or an alias. One without a price is a model too: it is charged as the dearest.
///
/// # Errors
/// When it cannot be a model's name.
pub fn resolve_model(name: &str) -> Result<String, FieldError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:@/[]".contains(&byte);
    // A name that begins with a dash would read as a flag of the agent.
    let plain = name.bytes().all(allowed) && !name.starts_with('-');
    if name.is_empty() || name.len() > MAX_MODEL_BYTES || !plain {
        let message = format!("expected a model's name: 1 to {MAX_MODEL_BYTES} letters, digits and -._:@/[]");
        return Err(FieldError::new("model", message));
    }
    Ok(PriceTable::embedded().resolve_alias(name).to_owned())
}

#[cfg(test)]
mod tests;
