//! AskUserQuestion: the model asks, the user answers. The question goes the way of a permission; the host puts the
//! answers into the input that it allows.
//!
//! source: the agent protocol reference, section 1.6.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::tool::{Tool, ToolContext, ToolOutput};

/// The longest answer that the model gets: the host writes it, and the whole of it is in `tool_use_result`.
const MAX_ANSWER_CHARS: usize = 20_000;

/// The tool `AskUserQuestion`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AskUserQuestion;

impl Tool for AskUserQuestion {
    fn name(&self) -> &str {
        "AskUserQuestion"
    }

    fn description(&self) -> &str {
        "Asks the user up to four questions, each with two to four options; the user may also answer in own words.\n\
         \n\
         - For decisions that only the user can take. What you can find out yourself, find out.\n\
         - Put the option that you would choose first, and say so in its label.\n\
         - Set multiSelect where several options can hold together."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "questions": {
                    "type": "array",
                    "description": "The questions, all at once",
                    "minItems": 1,
                    "maxItems": 4,
                    "items": {
                        "type": "object",
                        "properties": {
                            "question": {"type": "string", "description": "The question, a whole sentence"},
                            "header": {"type": "string", "description": "A label of at most 12 characters"},
                            "multiSelect": {"type": "boolean", "description": "Whether several options may be chosen"},
                            "options": {
                                "type": "array",
                                "minItems": 2,
                                "maxItems": 4,
                                "items": {
                                    "type": "object",
                                    "properties": {
                                        "label": {"type": "string", "description": "The option in one to five words"},
                                        "description": {"type": "string", "description": "What it means, and what follows from it"},
                                        "preview": {"type": "string", "description": "What it would look like: code, a sketch"},
                                    },
                                    "required": ["label", "description"],
                                },
                            },
                        },
                        "required": ["question", "header", "options"],
                    },
                },
                "answers": {"type": "object", "description": "Filled in by the user's side"},
                "annotations": {"type": "object", "description": "Filled in by the user's side"},
            },
            "required": ["questions"],
        })
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    /// Answers are found by the question's text, and choices by their label: each must be there once.
    fn objection(&self, input: &Value) -> Option<String> {
        let questions = input["questions"].as_array()?;
        if let Some(text) = twice(questions, "question") {
            return Some(format!("the question {text:?} is there twice, or empty"));
        }
        let options = questions.iter().filter_map(|question| question["options"].as_array());
        let label = options.filter_map(|options| twice(options, "label")).next()?;
        Some(format!("the option {label:?} is there twice in a question, or empty"))
    }

    fn call<'a>(&'a self, input: Value, _context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            let answers = input.get("answers").and_then(Value::as_object).cloned().unwrap_or_default();
            if answers.is_empty() {
                return ToolOutput::error(
                    "The user answered none of the questions. Go on without, or ask in your text.",
                );
            }
            let told = answers.iter().map(|(question, answer)| format!("{question} -> {}", shown(answer)));
            let mut text: String = told.collect::<Vec<_>>().join("\n");
            if text.chars().count() > MAX_ANSWER_CHARS {
                text = text.chars().take(MAX_ANSWER_CHARS).collect();
            }
            let mut structured = json!({"questions": input["questions"], "answers": answers});
            if let Some(annotations) = input.get("annotations").filter(|notes| notes.is_object()) {
                structured["annotations"] = annotations.clone();
                text.push_str(&format!("\nThe user's notes: {annotations}"));
            }
            ToolOutput::ok(format!("The user answered:\n{text}"), structured)
        })
    }
}

/// The first text of this field that is empty or was there before, shortened.
fn twice(items: &[Value], field: &str) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    let mut texts = items.iter().filter_map(|item| item[field].as_str()).map(str::trim);
    let again = texts.find(|text| text.is_empty() || !seen.insert(*text));
    again.map(|text| text.chars().take(60).collect())
}

/// An answer as text; several choices with commas.
fn shown(answer: &Value) -> String {
    match answer {
        Value::String(text) => text.clone(),
        Value::Array(choices) => choices.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => answer.to_string(),
    }
}
