//! What `wardian run` shows of a run, as it happens.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde_json::{Value, json};
use wardian_session::{RunEvent, RunReport, RunStatus};

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// The agent's text, with its tool calls and the cost on the standard error
    Text,
    /// One JSON object at the end
    Json,
    /// A line of JSON a message, and the object of `json` as the last
    StreamJson,
}

/// The longest piece of a tool's input that is shown.
const SHOWN_CHARS: usize = 160;

/// Shows one event. A reader that has gone away is no reason to stop the run.
pub fn event(format: OutputFormat, event: &RunEvent) {
    match format {
        OutputFormat::Json => (),
        OutputFormat::StreamJson => {
            let line = match event {
                RunEvent::Started { session_id, request_id, .. } => {
                    json!({"type": "run_started", "session_id": session_id, "request_id": request_id})
                }
                RunEvent::Message(message) => message.clone(),
                RunEvent::Output { stream, text } => {
                    json!({"type": "output", "stream": stream.as_str(), "text": text})
                }
            };
            out(&line.to_string());
        }
        OutputFormat::Text => text(event),
    }
}

/// Shows how the run ended.
pub fn report(format: OutputFormat, report: &RunReport) {
    match format {
        OutputFormat::Json => out(&json!(report).to_string()),
        OutputFormat::StreamJson => {
            let mut line = json!(report);
            line["type"] = "run_result".into();
            out(&line.to_string());
        }
        OutputFormat::Text => {
            if report.status != RunStatus::Completed
                && let Some(result) = &report.result
            {
                note(result);
            }
            for change in &report.files_changed {
                note(&format!("{} {}", change.kind, change.path));
            }
            note(&format!(
                "{}: {} turns, {}, session {}",
                report.status.as_str(),
                report.num_turns,
                report.cost_usd,
                report.session_id
            ));
        }
    }
}

fn text(event: &RunEvent) {
    match event {
        RunEvent::Started { .. } => (),
        RunEvent::Output { text, .. } => out(text.trim_end_matches('\n')),
        RunEvent::Message(message) if message["type"] == "assistant" => {
            for block in message["message"]["content"].as_array().into_iter().flatten() {
                match block["type"].as_str() {
                    Some("text") => out(&printable(block["text"].as_str().unwrap_or_default())),
                    Some("tool_use") => note(&format!(
                        "{} {}",
                        printable(block["name"].as_str().unwrap_or("?")),
                        brief(&block["input"])
                    )),
                    _ => (),
                }
            }
        }
        RunEvent::Message(_) => (),
    }
}

/// What a tool call is about, in a line.
pub fn brief(input: &Value) -> String {
    let telling =
        ["command", "file_path", "pattern", "path", "url"].iter().find_map(|name| input[*name].as_str());
    let whole = telling.map_or_else(|| input.to_string(), str::to_owned);
    let line: String = printable(&whole).replace('\n', " ⏎ ");
    if line.chars().count() <= SHOWN_CHARS {
        return line;
    }
    line.chars().take(SHOWN_CHARS).chain(['…']).collect()
}

/// What an agent says must not steer the terminal: control characters are shown, not obeyed.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn out(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// A line for the person at the terminal, apart from the output.
pub fn note(line: &str) {
    let mut stderr = io::stderr().lock();
    let _ = if stderr.is_terminal() {
        writeln!(stderr, "\x1b[2m{line}\x1b[0m")
    } else {
        writeln!(stderr, "{line}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_agent_does_not_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}31m\rc\n"), "a\u{fffd}[2Jb\u{fffd}31m\u{fffd}c\n");
    }

    #[test]
    fn a_call_is_a_line() {
        assert_eq!(brief(&json!({"command": "a\nb"})), "a ⏎ b");
        assert_eq!(brief(&json!({"command": "x".repeat(500)})).chars().count(), SHOWN_CHARS + 1);
        assert_eq!(brief(&json!({"other": 1})), r#"{"other":1}"#);
    }
}
