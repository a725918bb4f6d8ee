//! What passes and what does not.

use super::parts::{MAX_IMAGE_TOKENS, TYPED_TOOL_TOKENS};
use super::*;

fn look(body: &str) -> Result<Checked, Refused> {
    messages(body.as_bytes(), None, PriceTable::embedded())
}

fn with(field: &str) -> Result<Checked, Refused> {
    look(&format!(r#"{{"model":"claude-sonnet-5-5","max_tokens":9,"messages":[],{field}}}"#))
}

fn with_block(block: &str) -> Result<Checked, Refused> {
    with(&format!(r#""system":[{block}]"#))
}

fn reason(checked: Result<Checked, Refused>) -> String {
    match checked {
        Err(Refused::NotAllowed(reason) | Refused::Model(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_bound_is_the_bytes_and_what_has_more_tokens_than_bytes() {
    let body =
        r#"{"model":"m","max_tokens":7,"messages":[{"role":"user","content":"hi"}],"new_field":{"a":1}}"#;
    let checked = look(body).unwrap();
    let bytes = u64::try_from(body.len()).unwrap();
    let bound = RequestBound {
        body_bytes: bytes,
        input_tokens: None,
        max_tokens: 7,
        web_searches: None,
        iterations: 1,
        standard_speed: true,
    };
    assert_eq!(checked, Checked { model: "m".to_owned(), bound, stream: false });
    let image = r#"{"type":"image","source":{"type":"base64","data":"AA=="}}"#;
    let in_result = format!(r#"{{"type":"tool_result","content":[{image},{image}]}}"#);
    assert!(with_block(&in_result).unwrap().bound.body_bytes > 2 * MAX_IMAGE_TOKENS);
    let pdf = r#"{"type":"document","source":{"type":"base64","data":"AA=="}}"#;
    assert_eq!(with_block(pdf).unwrap().bound.body_bytes, u64::MAX);
    let text = r#"{"type":"document","source":{"type":"text","data":"AA"}}"#;
    assert!(with_block(text).unwrap().bound.body_bytes < 200);
    assert!(with(r#""tools":[{"name":"x"}]"#).unwrap().bound.body_bytes < 200);
    let typed = r#""tools":[{"type":"bash_20250124","name":"bash"}]"#;
    assert!(with(typed).unwrap().bound.body_bytes > TYPED_TOOL_TOKENS);
    assert!(!with(r#""speed":"fast""#).unwrap().bound.standard_speed);
    let compact = r#""context_management":{"edits":[{"type":"compact_20260112"}]}"#;
    assert_eq!(with(compact).unwrap().bound.iterations, 2);
    let clear = r#""context_management":{"edits":[{"type":"clear_thinking_20251015"}]}"#;
    assert_eq!(with(clear).unwrap().bound.iterations, 1);
}

#[test]
fn what_the_api_would_do_by_itself_is_refused_by_name() {
    let cases = [
        (
            r#""tools":[{"name":"a"},{"type":"web_search_20250305","name":"web_search"}]"#,
            "web_search_20250305",
        ),
        (r#""tools":[{"type":"code_execution_20250825","name":"x"}]"#, "code_execution_20250825"),
        (r#""tools":[{"type":"mcp_toolset"}]"#, "mcp_toolset"),
        (r#""tools":[{"type":"tool_of_the_future","name":"x"}]"#, "tool_of_the_future"),
        (r#""tools":[{"ty\u0070e":"web_fetch_20250910"}]"#, "web_fetch_20250910"),
        (r#""mcp_servers":[{"url":"https://x"}]"#, "mcp_servers"),
        (r#""container":"c_1""#, "container"),
        (r#""container":{"skills":[]}"#, "container"),
        (r#""thread":{"type":"create"}"#, "thread"),
        (r#""fallbacks":"default""#, "fallbacks"),
        (r#""billing_policy":{"type":"billing_policy","bill_to":"user_profile"}"#, "billing_policy"),
    ];
    for (field, named) in cases {
        let reason = reason(with(field));
        assert!(reason.contains(named) && reason.contains("not allowed"), "{reason}");
    }
    let blocks = [
        (r#"{"type":"image","source":{"type":"url","url":"https://x"}}"#, "url"),
        (r#"{"type":"document","source":{"type":"file","file_id":"f"}}"#, "file"),
        (r#"{"source":{"type":"url","url":"https://x"},"type":"document"}"#, "url"),
        (r#"{"type":"container_upload","file_id":"f"}"#, "container_upload"),
        (r#"{"type":"tool_result","content":[{"type":"image","source":{"type":"url"}}]}"#, "url"),
        (r#"{"type":"tool_result","content":{"type":"image","source":{"type":"url"}}}"#, "url"),
        (r#"[[{"type":"image","source":{"type":"url"}}]]"#, "url"),
        (
            r#"{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"url"}}]}}"#,
            "url",
        ),
        (
            r#"{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"type":"web_search_20250305"}}}"#,
            "web_search",
        ),
        (
            r#"{"type":"tool_addition","tool":{"type":"mcp_toolset_reference","server_name":"s"}}"#,
            "mcp_toolset_reference",
        ),
        (r#"{"type":"image","source":{}}"#, "source"),
    ];
    for (block, named) in blocks {
        assert!(reason(with_block(block)).contains(named), "{block}");
    }
}

#[test]
fn what_is_not_known_passes_and_so_does_history() {
    for field in [
        r#""mcp_servers":[]"#,
        r#""mcp_servers":null,"container":null,"tools":null,"thread":null,"fallbacks":null"#,
        r#""tools":[{"type":"bash_20250124","name":"bash"},{"type":"custom","name":"x","input_schema":{"type":"url","source":{"type":"url"}}}]"#,
        r#""future":{"source":{"type":"url"}},"safeguards":[1,2],"thinking":{"type":"adaptive"}"#,
        r#""billing_policy":{"type":"billing_policy"}"#,
    ] {
        with(field).unwrap();
    }
    for block in [
        r#"{"type":"tool_use","id":"t","name":"x","input":{"source":{"type":"url","url":"https://x"}}}"#,
        r#"{"type":"search_result","source":"https://x","content":[{"type":"text","text":"t"}]}"#,
        r#"{"type":"web_search_tool_result","content":[{"type":"web_search_result","url":"https://x"}]}"#,
        r#"{"type":"web_search_tool_result","content":{"type":"web_search_tool_result_error"}}"#,
        r#"{"type":"new_block","content":7,"source":[1,{"a":2}],"tool":"hammer"}"#,
        r#""plain text among blocks""#,
        r#"{"type":"tool_removal","tool":{"type":"tool_reference","name":"x"}}"#,
    ] {
        with_block(block).unwrap();
    }
    look(r#"{"model":"m","max_tokens":1,"messages":[{"role":"system","content":[]},{"role":"new"}]}"#)
        .unwrap();
}

#[test]
fn a_body_that_two_readers_could_read_differently_is_refused() {
    let nested = format!(r#"{{"model":"m","max_tokens":1,"system":{}"#, "[".repeat(1_000_000));
    let cases = [
        ("", "not a JSON object"),
        ("{", "not valid JSON"),
        (r#"{"model":"m","max_tokens":1} x"#, "not valid JSON"),
        ("\u{feff}{}", "not a JSON object"),
        (r#"{"model":"m","max_tokens":NaN}"#, "not valid JSON"),
        (&nested, "not valid JSON"),
        (r#"["m",1]"#, "not a JSON object"),
        ("null", "not a JSON object"),
        (r#"{"max_tokens":1}"#, "missing field `model`"),
        (r#"{"model":"cheap","max_tokens":1,"model":"dear"}"#, "duplicate field `model`"),
        (r#"{"model":"cheap","max_tokens":1,"mod\u0065l":"dear"}"#, "duplicate field `model`"),
        (r#"{"model":"m","max_tokens":1,"max_tokens":64000}"#, "duplicate field `max_tokens`"),
        (r#"{"model":"m","max_tokens":1,"tools":[],"tools":[]}"#, "duplicate field `tools`"),
        (r#"{"model":"m","max_tokens":1,"tools":{"type":"web_search"}}"#, "wrong type"),
        (r#"{"model":["m"],"max_tokens":1}"#, "wrong type"),
        (r#"{"model":"m","max_tokens":-1}"#, "wrong type"),
        (r#"{"model":"m","max_tokens":1e3}"#, "wrong type"),
        (r#"{"model":"m"}"#, "max_tokens"),
        (r#"{"model":"","max_tokens":1}"#, "model"),
        (r#"{"model":"a\u0000","max_tokens":1}"#, "model"),
    ];
    for (body, expected) in cases {
        let shown: String = body.chars().take(80).collect();
        match look(body) {
            Err(Refused::Invalid(reason)) => assert!(reason.contains(expected), "{shown}: {reason}"),
            other => panic!("{shown}: {other:?}"),
        }
    }
    let not_utf8 = messages(b"{\"model\":\"\xff\",\"max_tokens\":1}", None, PriceTable::embedded());
    assert!(matches!(not_utf8, Err(Refused::Invalid(_))));
}

#[test]
fn a_message_about_a_body_does_not_quote_it() {
    let body = r#"{"model":"m","max_tokens":"sk-secret"}"#;
    let Err(Refused::Invalid(reason)) = look(body) else { panic!("accepted") };
    assert_eq!(reason, "a field of the body has the wrong type (line 1 column 37)");
}

#[test]
fn only_granted_models_pass_by_id_or_alias() {
    let models = vec!["sonnet".to_owned(), "claude-haiku-5-5".to_owned()];
    let ask = |model: &str| {
        let body = format!(r#"{{"model":"{model}","max_tokens":1}}"#);
        messages(body.as_bytes(), Some(&models), PriceTable::embedded())
    };
    ask("claude-haiku-5-5").unwrap();
    ask("sonnet").unwrap();
    assert!(reason(ask("claude-opus-5-5")).contains("allowed: sonnet, claude-haiku-5-5"));
    assert!(count_tokens(br#"{"model":"claude-opus-5-5"}"#, Some(&models), PriceTable::embedded()).is_err());
    assert_eq!(
        count_tokens(br#"{"model":"sonnet"}"#, Some(&models), PriceTable::embedded()).unwrap(),
        "sonnet"
    );
}
