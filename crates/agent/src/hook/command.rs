//! Hooks that are programs: they get the input as JSON on standard input, and answer with an exit code and JSON.
//!
//! source: the agent protocol reference, section 1.4, and the official CLI, observed.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use wardian_policy::{Call, Decision, Facts, PermissionMode, Policy, Rule};
use wardian_protocol::hook::{HookInput, HookOutput, HookSpecificOutput};

use super::HookEvent;
use crate::tools::bash::Tree;

/// A program that a hook runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandHook {
    /// A command for `/bin/sh`; with `args`, a program.
    pub command: String,
    /// The program's arguments, each as it is.
    pub args: Option<Vec<String>>,
    /// Only for calls that this rule is about.
    pub condition: Option<Rule>,
    /// Nobody waits for it; what it says is not heard.
    pub in_background: bool,
    /// Variables besides those of all tools.
    pub env: Vec<(String, String)>,
}

/// The most of each output that is kept, in bytes; the rest is read and dropped.
const MAX_OUTPUT_BYTES: usize = 256 * 1024;
/// How long the outputs are read once the program has ended: what it started may hold them open.
const DRAIN: Duration = Duration::from_millis(250);

/// How a program came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// None: it could not be started, or was ended.
    pub(super) code: Option<i32>,
    pub(super) timed_out: bool,
}

/// What a program has written so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Written(Arc<Mutex<(Vec<u8>, Vec<u8>)>>);

/// What a program's end means.
#[derive(Debug)]
pub(super) enum Meaning {
    Said(Box<HookOutput>),
    /// It objects.
    Blocks(String),
    /// It did not do its work.
    NoVerdict(String),
}

impl CommandHook {
    /// Whether it is for this call. Where that cannot be told it is.
    pub(super) fn is_for(&self, input: &HookInput) -> bool {
        let (Some(rule), Some(tool), Some(of_tool)) =
            (&self.condition, input.tool_name(), input.tool_input())
        else {
            return true;
        };
        let policy =
            Policy { mode: PermissionMode::BypassPermissions, deny: vec![rule.clone()], ..Policy::default() };
        let facts =
            Facts { cwd: input.cwd.clone().into(), call_cwd: input.cwd.clone().into(), ..Facts::default() };
        let decision = wardian_policy::decide(&policy, &Call { tool, input: of_tool }, &facts);
        !matches!(decision, Decision::Allow { .. })
    }

    /// Runs it to its end; dropped, all that it started ends. `written` is filled meanwhile.
    pub(super) async fn run(
        &self,
        input: &HookInput,
        env: &[(String, String)],
        cwd: &Path,
        limit: Duration,
        written: &Written,
    ) -> Ended {
        let env: Vec<(String, String)> = env.iter().chain(&self.env).cloned().collect();
        let started = self.start(&env, cwd);
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                let stderr = format!("failed to start the hook: {error}");
                return Ended { stderr, ..Ended::default() };
            }
        };
        let mut tree = child.id().map(Tree::of);
        let finished = timeout(limit, finish(&mut child, input, written)).await;
        let timed_out = finished.is_err();
        let status = match finished {
            Ok(status) => {
                if let Some(tree) = &mut tree {
                    tree.let_go();
                }
                status.ok()
            }
            Err(_) => {
                if let Some(tree) = &mut tree {
                    tree.end().await;
                }
                None
            }
        };
        let (stdout, stderr) = written.texts();
        Ended { stdout, stderr, code: status.and_then(|status| status.code()), timed_out }
    }

    fn start(&self, env: &[(String, String)], cwd: &Path) -> io::Result<Child> {
        let mut command = match &self.args {
            None => {
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(&self.command);
                shell
            }
            Some(args) => {
                let mut program = Command::new(expanded(&self.command, env));
                program.args(args.iter().map(|argument| expanded(argument, env)));
                program
            }
        };
        command.env_clear().envs(env.iter().map(|(name, value)| (name, value))).current_dir(cwd);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

async fn finish(
    child: &mut Child,
    input: &HookInput,
    written: &Written,
) -> io::Result<std::process::ExitStatus> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut text = serde_json::to_vec(input)?;
    text.push(b'\n');
    let told = async {
        if let Some(mut stdin) = stdin {
            // A hook need not read what it is told.
            let _ = stdin.write_all(&text).await;
        }
    };
    let mut output = std::pin::pin!(async {
        tokio::join!(keep(stdout, written, false), keep(stderr, written, true), told);
    });
    let mut read = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            () = &mut output, if !read => read = true,
        }
    };
    if !read {
        let _ = timeout(DRAIN, output).await;
    }
    Ok(status)
}

async fn keep(stream: Option<impl AsyncRead + Unpin>, written: &Written, is_stderr: bool) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; 8 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        written.push(&chunk[..read], is_stderr);
    }
}

impl Written {
    fn push(&self, bytes: &[u8], is_stderr: bool) {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = if is_stderr { &mut both.1 } else { &mut both.0 };
        let room = MAX_OUTPUT_BYTES.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
    }

    /// Both outputs so far.
    pub(super) fn texts(&self) -> (String, String) {
        let both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&both.0), text(&both.1))
    }
}

impl Ended {
    /// What the program said by its end. Exit code 2 objects, with standard error as the reason; JSON on standard
    /// output is an answer; other text is told to the model on the events where that helps.
    pub(super) fn meaning(&self, event: HookEvent) -> Meaning {
        match self.code {
            Some(0) => self.answer(event),
            Some(2) => Meaning::Blocks(self.stderr.trim().to_owned()),
            Some(126 | 127) | None => Meaning::NoVerdict(self.stderr.trim().to_owned()),
            Some(_) => Meaning::Said(Box::default()),
        }
    }

    fn answer(&self, event: HookEvent) -> Meaning {
        let text = self.stdout.trim();
        if text.starts_with('{') {
            return match serde_json::from_str::<HookOutput>(text) {
                Ok(output) => Meaning::Said(Box::new(output)),
                Err(error) => Meaning::NoVerdict(format!("its answer makes no sense: {error}")),
            };
        }
        let is_told = matches!(
            event,
            HookEvent::UserPromptSubmit | HookEvent::UserPromptExpansion | HookEvent::SessionStart
        );
        if !is_told || text.is_empty() {
            return Meaning::Said(Box::default());
        }
        let told = HookSpecificOutput {
            hook_event_name: event.as_str().to_owned(),
            additional_context: Some(text.to_owned()),
            ..HookSpecificOutput::default()
        };
        Meaning::Said(Box::new(HookOutput { hook_specific_output: Some(told), ..HookOutput::default() }))
    }
}

/// Puts variables of the environment in: `$NAME` and `${NAME}`; one that is not there is nothing.
fn expanded(text: &str, env: &[(String, String)]) -> String {
    let value = |name: &str| {
        env.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        rest = match braced {
            Some((name, left)) => {
                out.push_str(value(name));
                left
            }
            None if end > 0 => {
                out.push_str(value(&after[..end]));
                &after[end..]
            }
            None => {
                out.push('$');
                after
            }
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, stdout: &str, stderr: &str) -> Ended {
        Ended { stdout: stdout.to_owned(), stderr: stderr.to_owned(), code: Some(code), timed_out: false }
    }

    #[test]
    fn ends_have_meanings() {
        use HookEvent::{PreToolUse, SessionStart};
        let said = |ended: Ended, event| match ended.meaning(event) {
            Meaning::Said(output) => serde_json::to_value(output).unwrap().to_string(),
            Meaning::Blocks(reason) => format!("blocks: {reason}"),
            Meaning::NoVerdict(_) => "nothing".to_owned(),
        };
        for (ended, event, expected) in [
            (ended(0, "", ""), PreToolUse, "{}"),
            (ended(0, "text", ""), PreToolUse, "{}"),
            (
                ended(0, "text\n", ""),
                SessionStart,
                r#"{"hookSpecificOutput":{"hookEventName":"SessionStart","additionalContext":"text"}}"#,
            ),
            (ended(0, r#" {"continue": false}"#, ""), PreToolUse, r#"{"continue":false}"#),
            (ended(0, r#"{"continue": 5}"#, ""), PreToolUse, "nothing"),
            (ended(0, "{broken", ""), PreToolUse, "nothing"),
            (ended(2, "ignored", "no \n"), PreToolUse, "blocks: no"),
            (ended(1, r#"{"continue": false}"#, "oops"), PreToolUse, "{}"),
            (ended(127, "", "not found"), PreToolUse, "nothing"),
            (Ended::default(), PreToolUse, "nothing"),
        ] {
            assert_eq!(said(ended.clone(), event), expected, "{ended:?}");
        }
    }

    #[test]
    fn variables_are_put_in() {
        let env = [("A".to_owned(), "1".to_owned()), ("B_C".to_owned(), "two words".to_owned())];
        for (text, expected) in [
            ("$A/x", "1/x"),
            ("${B_C}$A", "two words1"),
            ("$NO$", "$"),
            ("a$", "a$"),
            ("${A", "${A"),
            ("$$A", "$1"),
        ] {
            assert_eq!(expanded(text, &env), expected, "{text}");
        }
    }
}
