//! What must hold of everything that comes from outside, whatever it is. `make fuzz` runs these under libFuzzer; the tests of
//! `wardian-agent` take this file in and run them on the corpora, with mutations from a seed, on any toolchain.

use std::io::Cursor;

use serde_json::{Value, json};
use wardian_policy::{
    Call, Decision, Facts, PathFact, PermissionMode, Policy, ReasonKind, Rule, decide, paths_of,
};
use wardian_protocol::frame::{AgentFrame, HostFrame};
use wardian_protocol::sse::{SseDecoder, SseError, SseEvent};
use wardian_protocol::stream::{Assembler, StreamEvent};
use wardian_protocol::{ContentBlock, MessageParam, Role};

/// The stream of the model. Events do not depend on where the chunks end; nothing that a model says makes the reader of
/// its messages panic.
pub fn sse(bytes: &[u8]) {
    let events = decoded(&[bytes]);
    let pieces: Vec<&[u8]> = bytes.chunks(7).collect();
    assert_eq!(events, decoded(&pieces), "the chunks must not matter");
    let mut assembler = Assembler::default();
    for event in events.0 {
        let Ok(event) = StreamEvent::parse(&event) else { continue };
        if assembler.push(&event).is_err() {
            return;
        }
    }
    let _ = assembler.finish();
}

/// So small that a fuzzer reaches it.
const EVENT_LIMIT: usize = 4096;

fn decoded(chunks: &[&[u8]]) -> (Vec<SseEvent>, Option<SseError>) {
    let mut decoder = SseDecoder::with_limit(EVENT_LIMIT);
    let mut events = Vec::new();
    for chunk in chunks {
        if let Err(error) = decoder.feed(chunk, &mut events) {
            return (events, Some(error));
        }
    }
    events.extend(decoder.finish());
    let longest = events.iter().map(|event| event.data.len() + event.event.len()).max();
    // What is no UTF-8 grows when it is replaced.
    assert!(longest.unwrap_or(0) <= EVENT_LIMIT * 3);
    (events, None)
}

/// Lines on standard input, and those that our own tools read. What was read is written so that it reads the same.
pub fn frames(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for line in text.lines() {
        if let Ok(frame) = HostFrame::parse(line) {
            let written = frame.to_value().to_string();
            let again = HostFrame::parse(&written).map(|frame| frame.to_value().to_string());
            assert_eq!(again.as_deref(), Ok(written.as_str()), "what a host says must read back");
        }
        if let Ok(frame) = AgentFrame::parse(line) {
            let written = frame.to_value().to_string();
            let again = AgentFrame::parse(&written).map(|frame| frame.to_value().to_string());
            assert_eq!(again.as_deref(), Ok(written.as_str()), "what an agent says must read back");
        }
    }
}

/// Permission rules: the first line is a rule, the second a tool, the rest what it is to do. A rule that lets a call
/// through would, as a deny rule, have refused it; and a denied call is denied in every mode.
pub fn rules(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.splitn(3, '\n');
    let (Some(rule), Some(tool), Some(what)) = (parts.next(), parts.next(), parts.next()) else { return };
    let Ok(rule) = rule.parse::<Rule>() else { return };
    let again: Rule = rule.as_str().parse().expect("a rule that was read reads again");
    assert_eq!(again.as_str(), rule.as_str());
    let input = input_of(tool, what);
    let call = Call { tool, input: &input };
    let facts = facts_of(&call);
    let by = |allow: &[Rule], deny: &[Rule], mode| {
        let policy = Policy {
            mode,
            allow: allow.to_vec(),
            deny: deny.to_vec(),
            ask: Vec::new(),
            roots: vec!["/work".into()],
        };
        decide(&policy, &call, &facts)
    };
    let rule = [rule];
    let allowed = by(&rule, &[], PermissionMode::Default);
    let refused = by(&[], &rule, PermissionMode::BypassPermissions);
    if let Decision::Allow { reason } = &allowed
        && reason.kind == ReasonKind::Rule
    {
        assert!(!matches!(refused, Decision::Allow { .. }), "{rule:?} allows {call:?} and does not deny it");
    }
    let is_denied = |decision: &Decision| matches!(decision, Decision::Deny { .. });
    if is_denied(&refused) {
        let modes = [
            PermissionMode::Default,
            PermissionMode::AcceptEdits,
            PermissionMode::Plan,
            PermissionMode::DontAsk,
        ];
        for mode in modes {
            assert!(is_denied(&by(&rule, &rule, mode)), "{rule:?} does not deny {call:?} in {mode:?}");
        }
    }
}

fn input_of(tool: &str, what: &str) -> Value {
    match tool {
        "Bash" => json!({"command": what}),
        "Read" | "Write" | "Edit" => {
            json!({"file_path": what, "content": "", "old_string": "", "new_string": ""})
        }
        "Glob" | "Grep" => json!({"pattern": what, "path": what}),
        "WebFetch" => json!({"url": what}),
        _ => serde_json::from_str(what).unwrap_or_else(|_| json!({"text": what})),
    }
}

/// As if no file were a link: paths are put together by their text.
fn facts_of(call: &Call<'_>) -> Facts {
    let resolved = |given: &str| {
        let mut path = std::path::PathBuf::from("/");
        for part in std::path::Path::new("/work").join(given).components() {
            match part {
                std::path::Component::ParentDir => drop(path.pop()),
                std::path::Component::Normal(name) => path.push(name),
                _ => (),
            }
        }
        path
    };
    let paths =
        paths_of(call).into_iter().map(|given| PathFact { resolved: resolved(&given), given }).collect();
    Facts {
        cwd: "/work".into(),
        call_cwd: "/work".into(),
        home: Some("/home/me".into()),
        paths,
        ..Facts::default()
    }
}

/// A transcript, which may end anywhere and hold anything. What comes of it is a conversation that the API takes: every call
/// answered in the message after it, once, and nothing else answered.
pub fn transcript(bytes: &[u8]) {
    let Ok(messages) = wardian_agent::transcript::read_messages(Cursor::new(bytes)) else { return };
    let mut open: Vec<String> = Vec::new();
    for MessageParam { role, content, .. } in &messages {
        assert!(!content.is_empty(), "an empty message: {messages:?}");
        match role {
            Role::Assistant => open.extend(content.iter().filter_map(call_id)),
            Role::User => {
                for id in content.iter().filter_map(result_id) {
                    let place = open.iter().position(|call| *call == id);
                    open.remove(place.unwrap_or_else(|| panic!("{id:?} answers nothing: {messages:?}")));
                }
                assert!(open.is_empty(), "not answered: {open:?} in {messages:?}");
            }
            Role::System | Role::Other(_) => panic!("a side that is none: {messages:?}"),
        }
    }
    assert!(messages.first().is_none_or(|first| first.role == Role::User), "the agent begins: {messages:?}");
}

fn call_id(block: &ContentBlock) -> Option<String> {
    match block {
        ContentBlock::ToolUse { id, .. } => Some(id.clone()),
        _ => None,
    }
}

fn result_id(block: &ContentBlock) -> Option<String> {
    match block {
        ContentBlock::ToolResult { tool_use_id, .. } => Some(tool_use_id.clone()),
        _ => None,
    }
}
