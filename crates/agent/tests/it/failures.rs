//! What goes wrong between the agent and the model.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;
use wardian_agent::{Endpoint, Message, Options, query};

use crate::support::{
    call, canned, kinds, messages, model, options, redacted, response, result, tool_results,
};

/// Runs one prompt against these replies. Waits between tries are short.
async fn run(replies: Value) -> (Vec<Message>, usize) {
    let model = model(&json!({"replies": replies})).await;
    let folder = tempfile::tempdir().unwrap();
    let messages = messages(query("hi", quick(options(&model, folder.path())))).await;
    (messages, model.requests().len())
}

fn quick(mut options: Options) -> Options {
    options.api.retry.first_delay = Duration::from_millis(1);
    options.api.retry.max_retries = 3;
    options
}

#[tokio::test]
async fn an_api_error_is_a_success_that_is_an_error() {
    let model =
        model(&json!({"replies": [{"error": {"status": 400, "message": "prompt is too long"}}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let messages = messages(query("hi", options(&model, folder.path()))).await;
    insta::assert_snapshot!(redacted(&messages, folder.path()), @r##"
{"type":"system","subtype":"init"}
{"type":"assistant","message":{"id":"…","type":"message","role":"assistant","model":"<synthetic>","content":[{"type":"text","text":"API Error: 400 invalid_request_error: prompt is too long"}],"stop_reason":"stop_sequence","stop_sequence":"","usage":{"input_tokens":0,"output_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"server_tool_use":{"web_search_requests":0,"web_fetch_requests":0},"output_tokens_details":null,"service_tier":null,"inference_geo":null,"iterations":null,"speed":null,"fallback_credit":null},"container":null,"context_management":null,"diagnostics":null,"stop_details":null},"parent_tool_use_id":null,"error":"invalid_request","uuid":"…","session_id":"…","timestamp":"…","is_api_error_message":true,"request_id":"…","api_error_status":400,"api_error_type":"invalid_request_error"}
{"type":"result","subtype":"success","is_error":true,"duration_ms":"…","duration_api_ms":"…","num_turns":1,"result":"API Error: 400 invalid_request_error: prompt is too long","stop_reason":"stop_sequence","session_id":"…","total_cost_usd":0.0,"usage":{"input_tokens":0,"output_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"server_tool_use":{"web_search_requests":0,"web_fetch_requests":0},"service_tier":"standard","speed":"standard","inference_geo":"","iterations":[],"output_tokens_details":{"thinking_tokens":0},"fallback_credit":null},"modelUsage":{},"permission_denials":[],"terminal_reason":"prompt_too_long","uuid":"…","api_error_status":400,"api_error_type":"invalid_request_error","fast_mode_state":"off","fast_mode_disabled_reason":"unknown","queued_turn_count":0,"result_index":0,"safety_stops":0}
"##);
}

#[tokio::test]
async fn statuses_by_whether_they_are_tried_again() {
    for (status, requests, error) in [
        (400, 1, "unknown"),
        (401, 2, "authentication_failed"),
        (403, 1, "authentication_failed"),
        (404, 1, "model_not_found"),
        (413, 1, "invalid_request"),
        (408, 4, "unknown"),
        (409, 4, "unknown"),
        (429, 4, "rate_limit"),
        (500, 4, "server_error"),
        (529, 4, "server_error"),
    ] {
        let (messages, count) = run(json!([{"error": {"status": status}, "repeat": true}])).await;
        assert_eq!(count, requests, "{status}");
        let result = result(&messages);
        assert_eq!((result.subtype.as_str(), result.is_error), ("success", true), "{status}");
        let terminal = if status == 413 { "image_error" } else { "api_error" };
        assert_eq!(result.terminal_reason.as_deref(), Some(terminal));
        assert_eq!(result.extra["api_error_status"], status);
        let said = messages.iter().find_map(|message| match message {
            Message::Assistant(assistant) => assistant.error.clone(),
            _ => None,
        });
        assert_eq!(said.as_deref(), Some(error), "{status}");
        let retries = kinds(&messages).iter().filter(|kind| *kind == "system/api_retry").count();
        assert_eq!(retries, requests - 1, "{status}");
    }
}

#[tokio::test]
async fn what_is_lost_before_anything_was_shown_is_asked_for_again() {
    for lost in [
        json!({"error": {"status": 529}}),
        json!({"drop_connection": true}),
        json!({"text": "lost", "cut_after_events": 0}),
        json!({"text": "lost", "cut_after_events": 2}),
        json!({"text": "lost", "cut_after_bytes": 400, "cut_with": "reset"}),
        json!({"text": "lost", "error_in_stream_after": 2}),
    ] {
        let (messages, count) = run(json!([lost, {"text": "Yes."}])).await;
        assert_eq!(result(&messages).result.as_deref(), Some("Yes."), "{lost}");
        assert_eq!(count, 2, "{lost}");
        let assistants = kinds(&messages).iter().filter(|kind| *kind == "assistant").count();
        assert_eq!(assistants, 1, "{lost}: nothing of the lost reply was shown");
    }
}

#[tokio::test]
async fn what_breaks_off_after_a_block_was_shown_is_taken_up_again() {
    for cut in [json!({"cut_after_events": 6}), json!({"error_in_stream_after": 6})] {
        let mut reply = json!({"thinking": "Hm.", "text": "lost", "chunk_bytes": 100});
        reply.as_object_mut().unwrap().extend(cut.as_object().unwrap().clone());
        let (messages, count) = run(json!([reply, {"text": "Whole."}])).await;
        assert_eq!(count, 2, "{cut}");
        let given = kinds(&messages);
        let expected = ["system/thinking_tokens", "assistant", "user", "assistant", "result/success"];
        assert_eq!(given[1..], expected, "{cut}: the block, what the model is told, the rest");
        let result = result(&messages);
        assert_eq!((result.is_error, result.result.as_deref(), result.num_turns), (false, Some("Whole."), 2));
        assert_eq!(result.total_cost_usd.0, 70_000 + 30_000, "what came was paid for");
    }
}

#[tokio::test]
async fn what_breaks_off_again_and_again_is_an_error() {
    let reply =
        json!({"thinking": "Hm.", "text": "lost", "chunk_bytes": 100, "cut_after_events": 6, "repeat": true});
    let (messages, count) = run(json!([reply])).await;
    assert_eq!(count, 4);
    let result = result(&messages);
    assert_eq!((result.is_error, result.terminal_reason.as_deref()), (true, Some("api_error")));
    // A call of a reply that broke off is not run, and is answered.
    let bash = call("toolu_1", "Bash", json!({"command": "touch ran"}));
    let block = json!({"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": bash["input"]});
    let broken = json!({"content": [block, {"type": "text", "text": "lost"}], "cut_after_events": 9});
    let (messages, count) = run(json!([broken, {"text": "Whole."}])).await;
    assert_eq!(count, 2);
    assert!(tool_results(&messages)[0].1);
}

#[tokio::test]
async fn the_api_says_how_long_to_wait() {
    let replies = json!([{"error": {"status": 429, "headers": {"retry-after": "7"}}}, {"text": "Yes."}]);
    let model = model(&json!({"replies": replies})).await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { include_partial_messages: true, ..options(&model, folder.path()) };
    let mut query = query("hi", options);
    let mut waited = None;
    while let Some(message) = query.next().await {
        match message.unwrap() {
            Message::System(system) if system.subtype == "api_retry" => {
                assert_eq!(system.fields["retry_delay_ms"], 7000);
                assert_eq!(
                    (&system.fields["attempt"], &system.fields["max_retries"]),
                    (&json!(1), &json!(10))
                );
                assert_eq!(
                    (&system.fields["error_status"], &system.fields["error"]),
                    (&json!(429), &json!("rate_limit"))
                );
                // From here to the next request nothing happens but the wait: the clock may jump.
                tokio::time::pause();
                waited = Some(Instant::now());
            }
            Message::StreamEvent(event) if event.event["type"] == "message_start" => {
                let wait = waited.unwrap().elapsed();
                assert!((Duration::from_secs(7)..Duration::from_secs(8)).contains(&wait), "{wait:?}");
                tokio::time::resume();
            }
            Message::Result(result) => assert_eq!(result.result.as_deref(), Some("Yes.")),
            _ => (),
        }
    }
    assert!(waited.is_some());
}

#[tokio::test]
async fn the_api_may_forbid_another_try() {
    let error = json!({"error": {"status": 529, "headers": {"x-should-retry": "false"}}});
    let (messages, count) = run(json!([error, {"text": "never"}])).await;
    assert_eq!((count, result(&messages).is_error), (1, true));
}

#[tokio::test]
async fn a_reply_that_pauses_for_too_long_is_lost() {
    let model = model(&json!({"replies": [{"text": "hm", "hold": true}, {"text": "Yes."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick(options(&model, folder.path()));
    options.api.idle_timeout = Duration::from_millis(100);
    let messages = messages(query("hi", options)).await;
    assert_eq!(result(&messages).result.as_deref(), Some("Yes."));
    model.wait_for_aborted(1).await;
}

#[tokio::test]
async fn a_refusal_for_money_is_tried_once_with_what_fits() {
    let refusal = |max_tokens: u64| {
        let body = json!({"type": "error", "error": {"type": "billing_error", "message": "over the budget",
            "details": {"max_tokens": max_tokens}}});
        response("429 Too Many Requests\r\nx-should-retry: false", "application/json", &body.to_string())
    };
    for (fits, tries) in [(vec![900, 800], 2), (vec![255], 1), (vec![40_000], 1)] {
        let (url, served) = canned(fits.iter().map(|fit| refusal(*fit)).collect()).await;
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options { cwd: folder.path().to_owned(), ..Options::default() };
        options.api.endpoint = Endpoint::Url(url);
        let messages = messages(query("hi", options)).await;
        let asked: Vec<u64> =
            served.await.unwrap().iter().map(|body| body["max_tokens"].as_u64().unwrap()).collect();
        assert_eq!(asked[0], 32_000);
        assert_eq!(asked.get(1).copied(), (tries == 2).then_some(900), "{fits:?}");
        assert_eq!(result(&messages).extra["api_error_status"], 429);
        let text = result(&messages).result.clone().unwrap();
        assert!(text.contains("over the budget"), "{text}");
    }
}

#[tokio::test]
async fn answers_that_are_none_of_the_apis() {
    let stream = |body: &str| response("200 OK", "text/event-stream", body);
    let start =
        r#"data: {"type":"message_start","message":{"id":"m","role":"assistant","model":"x","content":[]}}"#;
    for odd in [
        response("200 OK", "text/html", "<html>Sign in</html>"),
        response("502 Bad Gateway", "text/html", &"<html>".repeat(100_000)),
        response("404 Not Found", "application/json", "{\"type\":\"error\",\"error\":7}"),
        stream("data: [1]\n\n"),
        stream(&format!("{start}\n\n{start}\n\n")),
        stream("data: {\"type\":\"content_block_stop\",\"index\":7}\n\n"),
        stream(&format!(
            "{start}\n\ndata: {{\"type\":\"content_block_delta\",\"index\":9,\"delta\":{{}}}}\n\n"
        )),
        stream(&format!("data: {}\n\n", "x".repeat(2 * 1024 * 1024))),
    ] {
        let (url, served) = canned(vec![odd.clone()]).await;
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options { cwd: folder.path().to_owned(), ..Options::default() };
        options.api.endpoint = Endpoint::Url(url);
        options.api.retry.max_retries = 0;
        let messages = messages(query("hi", options)).await;
        served.await.unwrap();
        let result = result(&messages);
        assert!(result.is_error, "{}", &odd[..80]);
        assert!(result.result.as_ref().unwrap().len() < 2000);
    }
}

#[tokio::test]
async fn nobody_at_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let mut options = quick(Options { cwd: folder.path().to_owned(), ..Options::default() });
    options.api.endpoint = Endpoint::Url(format!("http://{closed}"));
    let messages = messages(query("hi", options)).await;
    assert_eq!(kinds(&messages).iter().filter(|kind| *kind == "system/api_retry").count(), 3);
    assert!(result(&messages).result.as_ref().unwrap().contains("connection"), "{:?}", result(&messages));
}

#[tokio::test]
async fn options_that_cannot_be_are_the_first_and_last_item() {
    let folder = tempfile::tempdir().unwrap();
    let good = || Options { cwd: folder.path().to_owned(), ..Options::default() };
    let with = |change: fn(&mut Options)| {
        let mut options = good();
        change(&mut options);
        options
    };
    for (options, expected) in [
        (with(|options| options.cwd = "/nowhere/at/all".into()), "use the directory"),
        (with(|options| options.cwd = "/dev/null".into()), "no directory"),
        (with(|options| options.additional_directories = vec!["nowhere".into()]), "use the directory"),
        (with(|options| options.allowed_tools = vec!["Bash(".to_owned()]), "rule"),
        (
            with(|options| options.tools = wardian_agent::ToolSet::Only(vec!["Teleport".to_owned()])),
            "\"Teleport\"",
        ),
        (with(|options| options.api.endpoint = Endpoint::Url("nonsense".to_owned())), "address"),
        (with(|options| options.api.headers = vec![("a b".to_owned(), String::new())]), "header"),
        (with(|options| options.custom_tools = wardian_agent::tools::builtin()), "two tools"),
    ] {
        let items: Vec<_> = query("hi", options).collect().await;
        let [Err(error)] = &items[..] else { panic!("{items:?}") };
        assert!(error.to_string().contains(expected), "{error}");
    }
}
