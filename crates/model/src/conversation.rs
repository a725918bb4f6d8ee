//! What a request says: the parts of a conversation that scripts match on.

use serde_json::Value;

use crate::script::Match;

/// The newest user message that has text, its text blocks joined by line feeds. Tool results are no text.
pub(crate) fn last_user_text(body: &Value) -> Option<String> {
    let texts = messages(body)
        .rev()
        .filter(|message| message["role"] == "user")
        .map(|message| text_of(&message["content"]));
    texts.into_iter().find(|text| !text.is_empty())
}

/// The texts of the tool results since the last reply of the model, joined by line feeds.
fn last_tool_results(body: &Value) -> String {
    let turn = messages(body).rev().take_while(|message| message["role"] != "assistant");
    let results = turn.filter_map(|message| message["content"].as_array()).flatten();
    let texts: Vec<String> = results
        .filter(|block| block["type"] == "tool_result")
        .map(|block| text_of(&block["content"]))
        .collect();
    texts.join("\n")
}

/// The system prompt and the system messages in mid-conversation.
fn system_text(body: &Value) -> String {
    let mut text = text_of(&body["system"]);
    for message in messages(body).filter(|message| message["role"] == "system") {
        text.push('\n');
        text.push_str(&text_of(&message["content"]));
    }
    text
}

/// Whether a reply answers this request.
pub(crate) fn fits(matches: &Match, body: &Value) -> bool {
    let contains = |wanted: &Option<String>, text: &dyn Fn() -> String| match wanted {
        Some(wanted) => text().contains(wanted.as_str()),
        None => true,
    };
    matches.model.as_ref().is_none_or(|model| body["model"] == model.as_str())
        && contains(&matches.last_text_contains, &|| last_user_text(body).unwrap_or_default())
        && contains(&matches.tool_result_contains, &|| last_tool_results(body))
        && contains(&matches.system_contains, &|| system_text(body))
}

fn messages(body: &Value) -> impl DoubleEndedIterator<Item = &Value> {
    body["messages"].as_array().into_iter().flatten()
}

/// The text of a string or of a list of blocks.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts = blocks
                .iter()
                .filter(|block| block["type"] == "text")
                .filter_map(|block| block["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}
