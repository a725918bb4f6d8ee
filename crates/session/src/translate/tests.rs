use super::*;

/// What a piece of output comes to, with ids that count up.
fn hear(translator: &mut Translator, chunk: &[u8], tools: &Tools) -> Vec<Heard> {
    let mut next = 0u128;
    translator.hear(chunk, tools, &mut || {
        next += 1;
        next.to_be_bytes()
    })
}

fn lines(frames: &[Value]) -> Vec<u8> {
    frames.iter().flat_map(|frame| format!("{frame}\n").into_bytes()).collect()
}

fn heard(frames: &[Value]) -> Vec<Heard> {
    hear(&mut Translator::default(), &lines(frames), &weather())
}

fn facts(frames: &[Value]) -> Vec<Fact> {
    let fact = |heard| if let Heard::Fact(fact) = heard { Some(fact) } else { None };
    heard(frames).into_iter().filter_map(fact).collect()
}

fn weather() -> Tools {
    let schema = json!({"type": "object"});
    Tools::read(&json!([{"type": "custom", "name": "weather", "description": "d", "input_schema": schema}]))
}

fn id(number: u128) -> EventId {
    EventId::from_random(number.to_be_bytes())
}

fn assistant(content: Value) -> Value {
    json!({"type": "assistant", "parent_tool_use_id": null, "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, "usage": {},
    }})
}

fn stream(event: Value) -> Value {
    json!({"type": "stream_event", "parent_tool_use_id": null, "event": event})
}

fn question(request: Value) -> Value {
    json!({"type": "control_request", "request_id": "q", "request": request})
}

fn replies(frames: &[Value]) -> Vec<Value> {
    let reply = |heard| if let Heard::Reply(frame) = heard { Some(frame.to_value()) } else { None };
    heard(frames).into_iter().filter_map(reply).collect()
}

#[test]
fn each_block_of_a_reply_is_a_fact() {
    let call = json!({"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}});
    let result = json!({"type": "user", "message": {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a", "is_error": true},
    ]}});
    assert_eq!(
        facts(&[
            json!({"type": "system", "subtype": "init"}),
            assistant(json!([{"type": "thinking", "thinking": "hm", "signature": "s"}])),
            assistant(json!([{"type": "text", "text": "So."}])),
            assistant(json!([call])),
            result,
            json!({"type": "system", "subtype": "api_retry", "error_status": 429}),
            json!({"type": "system", "subtype": "compact_boundary"}),
        ]),
        [
            Fact::Began,
            Fact::Thinking { id: id(1) },
            Fact::Text { id: id(2), text: "So.".to_owned() },
            Fact::Call {
                call: "toolu_1".to_owned(),
                name: "Bash".to_owned(),
                input: json!({"command": "ls"})
            },
            Fact::Outcome { call: "toolu_1".to_owned(), content: json!("a"), is_error: true },
            Fact::Retrying { is_rate_limit: true },
            Fact::Compacted,
        ]
    );
}

#[test]
fn what_a_subagent_says_and_the_words_of_an_error_are_no_facts() {
    let mut below = assistant(json!([{"type": "text", "text": "inner"}]));
    below["parent_tool_use_id"] = json!("toolu_1");
    let mut error = assistant(json!([{"type": "text", "text": "API Error: 529"}]));
    error["error"] = json!("overloaded");
    assert_eq!(facts(&[below, error]), []);
}

#[test]
fn a_preview_has_the_id_of_its_event_and_a_reply_that_is_begun_again_has_new_ones() {
    let start = |index: u64| {
        stream(
            json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}),
        )
    };
    let delta = stream(
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
    );
    let begin = stream(json!({"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {},
    }}));
    let all = heard(&[
        begin.clone(),
        start(0),
        begin,
        start(0),
        delta,
        assistant(json!([{"type": "text", "text": "Hi"}])),
    ]);
    let previews: Vec<Value> = all
        .iter()
        .filter_map(|heard| if let Heard::Preview { data, .. } = heard { Some(data) } else { None })
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(previews[0]["event"]["id"], id(1).as_str());
    assert_eq!(previews[1]["event"], json!({"type": "agent.message", "id": id(2)}));
    assert_eq!(previews[2]["event_id"], id(2).as_str());
    assert_eq!(previews[2]["delta"]["content"], json!({"type": "text", "text": "Hi"}));
    assert!(all.contains(&Heard::Fact(Fact::Text { id: id(2), text: "Hi".to_owned() })));
}

#[test]
fn ends_of_turns() {
    let result = |fields: Value| {
        let mut frame = json!({"type": "result", "subtype": "success", "is_error": false});
        frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        facts(&[frame]).pop().unwrap()
    };
    let failed = |status: Option<u64>, message: &str| Stop::Failed { status, message: message.to_owned() };
    for (fields, expected) in [
        (json!({"result": "done"}), Stop::EndTurn),
        (json!({"subtype": "error_max_turns", "is_error": true}), Stop::MaxTurns),
        (json!({"subtype": "error_max_budget_usd", "is_error": true}), Stop::Budget),
        (json!({"stop_reason": "refusal"}), Stop::Refusal { explanation: None }),
        (json!({"is_error": true, "result": "no", "api_error_status": 529}), failed(Some(529), "no")),
        (
            json!({"subtype": "error_during_execution", "is_error": true, "errors": ["a", "b"]}),
            failed(None, "a\nb"),
        ),
        (json!({"subtype": "of_tomorrow"}), failed(None, "")),
    ] {
        assert_eq!(result(fields.clone()), Fact::Ended(expected), "{fields}");
    }
}

#[test]
fn the_hosts_own_server_offers_the_custom_tools_and_waits_for_their_results() {
    let rpc = |method: &str, params: Value| {
        let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        question(json!({"subtype": "mcp_message", "server_name": "custom", "message": message}))
    };
    let answered =
        |frame: Value| replies(&[frame]).pop().unwrap()["response"]["response"]["mcp_response"].clone();
    assert_eq!(
        answered(rpc("initialize", json!({"protocolVersion": "2025-11-25"})))["result"]["protocolVersion"],
        "2025-11-25"
    );
    assert_eq!(answered(rpc("tools/list", json!({})))["result"]["tools"][0]["name"], "weather");
    assert_eq!(
        answered(rpc("notifications/initialized", json!({}))),
        json!({"jsonrpc": "2.0", "result": {}})
    );
    assert_eq!(answered(rpc("resources/list", json!({})))["error"]["code"], -32601);

    let mut translator = Translator::default();
    let params = json!({"name": "weather", "arguments": {"city": "Kew"}, "_meta": {"claudecode/toolUseId": "toolu_1"}});
    let called = hear(&mut translator, &lines(&[rpc("tools/call", params)]), &weather());
    let (request_id, call) = ("q".to_owned(), "toolu_1".to_owned());
    let fact = Fact::CustomCalled { request_id, call, input: json!({"city": "Kew"}) };
    assert_eq!(called, [Heard::Fact(fact)]);
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aa"}});
    let frame =
        translator.custom_result("q", &[json!({"type": "text", "text": "rain"}), image], true).unwrap();
    assert_eq!(
        frame.to_value()["response"]["response"]["mcp_response"],
        json!({"jsonrpc": "2.0", "id": 7, "result": {"isError": true, "content": [
            {"type": "text", "text": "rain"}, {"type": "image", "data": "aa", "mimeType": "image/png"},
        ]}})
    );
    assert_eq!(translator.custom_result("q", &[], false), None, "a call has one result");
}

#[test]
fn hostile_lines_mean_nothing_and_take_no_memory() {
    let foreign = json!({"subtype": "mcp_message", "server_name": "other", "message": {}});
    for (frame, errors) in [
        (question(foreign), 1),
        (question(json!({"subtype": "hook_callback", "callback_id": "x", "input": {}})), 1),
        (question(json!({"subtype": "can_use_tool"})), 1),
        (question(json!(7)), 1),
        (json!({"type": "control_request", "request_id": "q".repeat(300), "request": {}}), 0),
    ] {
        let replies = replies(std::slice::from_ref(&frame));
        assert_eq!(replies.len(), errors, "{frame}");
        assert!(replies.iter().all(|reply| reply["response"]["subtype"] == "error"), "{replies:?}");
    }
    let mut translator = Translator::default();
    let garbage = b"\xff\xfe\n{\"type\":\n[]\n7\n\n{\"type\": 5}\n";
    assert_eq!(hear(&mut translator, garbage, &weather()), []);
    assert_eq!(translator.rejected, 5);
    // A line that never ends is thrown away as it comes.
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..4 {
        assert_eq!(hear(&mut translator, &piece, &weather()), []);
    }
    hear(&mut translator, b"\n", &weather());
    assert_eq!(translator.rejected, 6);
    // Calls of custom tools and blocks that are previewed have a limit.
    let call = |number: usize| {
        let message =
            json!({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "weather"}});
        let request = json!({"subtype": "mcp_message", "server_name": "custom", "message": message});
        json!({"type": "control_request", "request_id": format!("q{number}"), "request": request})
    };
    let calls: Vec<Value> = (0..MAX_CUSTOM_CALLS + 3).map(call).collect();
    let refused = hear(&mut translator, &lines(&calls), &weather());
    assert_eq!(refused.iter().filter(|heard| matches!(heard, Heard::Reply(_))).count(), 3);
    let start = |index: usize| {
        stream(
            json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}),
        )
    };
    let starts: Vec<Value> = (0..2 * MAX_PREVIEWED).map(start).collect();
    assert_eq!(hear(&mut translator, &lines(&starts), &weather()).len(), MAX_PREVIEWED);
}

#[test]
fn the_id_of_a_message_is_given_back_only_if_it_is_one() {
    let with = |uuid: &str| {
        let mut frame = assistant(json!([]));
        frame["uuid"] = json!(uuid);
        heard(&[frame])
    };
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    assert_eq!(with(uuid), [Heard::Frame(uuid.to_owned())]);
    for hostile in ["", "x", "01234567-89ab-cdef-0123-456789abcde\n", "$(reboot)xxxxxxxxxxxxxxxxxxxxxxxxxxx"]
    {
        assert_eq!(with(hostile), [], "{hostile:?}");
    }
}
