//! Makes a conversation that the API takes out of what lines were left: it begins with the user, each call is answered
//! right after its reply, and nothing is answered that was not called.

use std::collections::HashSet;

use wardian_protocol::{ContentBlock, MessageParam, Role};

use super::read::calls;
use crate::words;

/// Calls of the last reply may stay open; those before get an answer that says that theirs is lost.
pub(super) fn repair(messages: Vec<MessageParam>) -> Vec<MessageParam> {
    let mut out: Vec<MessageParam> = Vec::new();
    let count = messages.len();
    for (index, message) in messages.into_iter().enumerate() {
        match message.role {
            Role::Assistant if out.is_empty() || message.content.is_empty() => (),
            Role::Assistant => {
                let lost = answers(&out, &[]);
                push_user(&mut out, lost);
                out.push(MessageParam::new(Role::Assistant, calls_once(message.content)));
            }
            Role::User => {
                let content = answered(&out, message.content, index + 1 == count);
                push_user(&mut out, content);
            }
            // Nobody writes those here.
            Role::System | Role::Other(_) => (),
        }
    }
    out
}

/// A call that stands in a reply twice is one.
fn calls_once(mut content: Vec<ContentBlock>) -> Vec<ContentBlock> {
    let mut seen = HashSet::new();
    content.retain(|block| match block {
        ContentBlock::ToolUse { id, .. } => seen.insert(id.clone()),
        ContentBlock::Text { .. }
        | ContentBlock::Thinking { .. }
        | ContentBlock::ToolResult { .. }
        | ContentBlock::Other(_) => true,
    });
    content
}

/// Results first, as the API wants them, without those of no call and with those that are lost.
fn answered(out: &[MessageParam], content: Vec<ContentBlock>, is_last: bool) -> Vec<ContentBlock> {
    let expected: HashSet<String> = open_calls(out).map(str::to_owned).collect();
    let mut seen = HashSet::new();
    let (results, rest): (Vec<_>, Vec<_>) =
        content.into_iter().partition(|block| matches!(block, ContentBlock::ToolResult { .. }));
    let mut content = results;
    content.retain(|block| match block {
        ContentBlock::ToolResult { tool_use_id, .. } => {
            expected.contains(tool_use_id) && seen.insert(tool_use_id.clone())
        }
        _ => false,
    });
    if !is_last || !rest.is_empty() {
        content.extend(answers(out, &content));
    }
    content.extend(rest);
    content
}

/// Answers to the calls that end the conversation and are not answered by `given`.
fn answers(out: &[MessageParam], given: &[ContentBlock]) -> Vec<ContentBlock> {
    let is_given = |id: &str| {
        given
            .iter()
            .any(|block| matches!(block, ContentBlock::ToolResult { tool_use_id, .. } if tool_use_id == id))
    };
    let lost = open_calls(out).filter(|id| !is_given(id));
    lost.map(|id| ContentBlock::tool_result(id, words::INTERRUPTED_BY_RESTART, true)).collect()
}

fn open_calls(out: &[MessageParam]) -> impl Iterator<Item = &str> {
    let last = out.last().filter(|last| last.role == Role::Assistant);
    last.into_iter().flat_map(|last| calls(&last.content))
}

fn push_user(out: &mut Vec<MessageParam>, content: Vec<ContentBlock>) {
    match out.last_mut() {
        _ if content.is_empty() => (),
        Some(last) if last.role == Role::User => last.content.extend(content),
        Some(_) | None => out.push(MessageParam::new(Role::User, content)),
    }
}
