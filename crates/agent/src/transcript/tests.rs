//! What is read back of files that were cut, mixed up, or made by somebody else.

use proptest::prelude::*;
use serde_json::{Value, json};
use wardian_protocol::{ContentBlock, MessageParam, NanoUsd, Role};

use super::read::{Unreadable, Wanted, calls};
use super::{Found, OpenReply};

fn line(kind: &str, fields: Value) -> String {
    let mut line = json!({"type": kind, "wardianVersion": "0"});
    line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    format!("{line}\n")
}

fn prompt(text: &str) -> String {
    line("user", json!({"uuid": text, "isPrompt": true, "message": {"role": "user", "content": text}}))
}

fn said(reply: &str, block: Value) -> String {
    let message = json!({"id": reply, "role": "assistant", "model": "m", "content": [block]});
    line("assistant", json!({"uuid": format!("{reply}-a"), "message": message}))
}

fn text(reply: &str) -> String {
    said(reply, json!({"type": "text", "text": reply}))
}

fn tool_use(reply: &str, id: &str) -> String {
    said(reply, json!({"type": "tool_use", "id": id, "name": "Bash", "input": {"id": id}}))
}

fn result(id: &str) -> String {
    let content = json!([{"type": "tool_result", "tool_use_id": id, "content": id}]);
    line("user", json!({"uuid": format!("{id}-r"), "message": {"role": "user", "content": content}}))
}

fn started(id: &str) -> String {
    line("system", json!({"subtype": "wardian_tool_started", "toolUseId": id}))
}

fn reply_ended(kept: bool) -> String {
    let end = json!({"subtype": "wardian_reply_ended", "kept": kept, "stopReason": "x", "totalCostUsd": 0.5,
        "modelUsage": {"m": {"inputTokens": 3, "costUSD": 0.5}}});
    line("system", end)
}

fn turn_ended() -> String {
    let result = json!({"type": "result", "subtype": "success", "is_error": false, "result": "Done."});
    line("system", json!({"subtype": "wardian_turn_ended", "result": result}))
}

fn parse(bytes: &[u8]) -> Found {
    super::read::parse(std::io::Cursor::new(bytes), &Wanted::default()).unwrap()
}

fn found(lines: &[String]) -> Found {
    parse(lines.concat().as_bytes())
}

/// The conversation as it would go on: its open calls answered, and another prompt.
fn continued(found: Found) -> Vec<MessageParam> {
    let mut messages = found.history;
    let mut next = Vec::new();
    if let Some(OpenReply { content, mut answered, .. }) = found.open {
        let ids: Vec<String> = calls(&content).map(str::to_owned).collect();
        messages.push(MessageParam::new(Role::Assistant, content));
        next.extend(ids.iter().map(|id| {
            answered.remove(id).unwrap_or_else(|| ContentBlock::tool_result(id.clone(), "settled", true))
        }));
        assert!(answered.is_empty(), "{answered:?}");
    }
    next.push(ContentBlock::text("go on"));
    match messages.last_mut() {
        Some(last) if last.role == Role::User => last.content.extend(next),
        _ => messages.push(MessageParam::new(Role::User, next)),
    }
    messages
}

/// What the API would refuse.
fn problem(messages: &[MessageParam]) -> Option<String> {
    for (index, message) in messages.iter().enumerate() {
        // Replies may follow each other: the API pauses one and goes on with the next.
        if message.content.is_empty() || (index == 0 && message.role != Role::User) {
            return Some(format!("message {index} is {message:?}"));
        }
        let mut called: Vec<&str> =
            index.checked_sub(1).map(|last| calls(&messages[last].content).collect()).unwrap_or_default();
        let mut answered = Vec::new();
        for (position, block) in message.content.iter().enumerate() {
            if let ContentBlock::ToolResult { tool_use_id, .. } = block {
                if position != answered.len() {
                    return Some(format!("message {index}: results come first"));
                }
                answered.push(tool_use_id.as_str());
            }
        }
        called.sort_unstable();
        answered.sort_unstable();
        if called != answered {
            return Some(format!("message {index}: called {called:?}, answered {answered:?}"));
        }
    }
    None
}

#[test]
fn where_a_turn_stood_is_seen() {
    let whole = [
        prompt("p"),
        text("r1"),
        tool_use("r1", "a"),
        tool_use("r1", "b"),
        reply_ended(true),
        started("a"),
        result("a"),
        started("b"),
        result("b"),
        text("r2"),
        reply_ended(true),
        turn_ended(),
    ];
    // After so many lines: interrupted, calls that are open and had begun, messages before the open reply.
    let open = |begun: &[&'static str], answered: usize| Some((begun.to_vec(), answered));
    for (lines, interrupted, expected, before) in [
        (0, false, None, 0),
        (1, true, None, 1),
        // A text that its reply did not come to the end of is asked for again.
        (2, true, None, 1),
        (3, true, open(&[], 0), 1),
        (5, true, open(&[], 0), 1),
        (6, true, open(&["a"], 0), 1),
        (7, true, open(&["a"], 1), 1),
        (8, true, open(&["a", "b"], 1), 1),
        (9, true, None, 3),
        (10, true, None, 3),
        (11, true, open(&["a", "b"], 0), 3),
        (12, false, None, 4),
    ] {
        let found = found(&whole[..lines]);
        assert_eq!((found.interrupted, found.history.len()), (interrupted, before), "{lines}");
        let is_open = found.open.is_some();
        assert_eq!(is_open, expected.is_some(), "{lines}");
        if let (Some(open), Some((begun, answered))) = (&found.open, expected)
            && calls(&open.content).next().is_some()
        {
            let mut started: Vec<&str> = open.started.iter().map(String::as_str).collect();
            started.sort_unstable();
            assert_eq!((started, open.answered.len()), (begun, answered), "{lines}");
        }
        assert_eq!(found.result.is_some(), lines == 12);
        assert_eq!(problem(&continued(found)), None, "{lines}");
    }
    let found = found(&whole);
    assert_eq!((found.meter.total(), found.prompts), (NanoUsd(500_000_000), vec!["p".to_owned()]));
}

#[test]
fn what_was_forgotten_stays_forgotten() {
    // A reply that failed after a call was shown, one that was refused, and the words of an API error.
    let error = json!({"id": "e", "role": "assistant", "model": "<synthetic>", "content": [{"type": "text", "text": "x"}]});
    let found = found(&[
        prompt("p"),
        tool_use("r1", "a"),
        reply_ended(false),
        line("assistant", json!({"uuid": "e", "message": error})),
        turn_ended(),
        prompt("q"),
        text("r2"),
        reply_ended(true),
        turn_ended(),
    ]);
    assert!(!found.interrupted && found.open.is_none());
    assert_eq!(found.history.len(), 2);
    assert_eq!(found.history[0].content.len(), 2, "the two prompts");
}

#[test]
fn a_turn_that_got_no_answer_can_be_gone_on_with() {
    let failed = |reason: &str| {
        let result =
            json!({"type": "result", "subtype": "success", "is_error": true, "terminal_reason": reason});
        line("system", json!({"subtype": "wardian_turn_ended", "result": result}))
    };
    for (reason, interrupted) in [("api_error", true), ("budget_exhausted", true), ("max_turns", false)] {
        let found = found(&[prompt("p"), failed(reason)]);
        assert_eq!((found.interrupted, found.history.len()), (interrupted, 1), "{reason}");
        assert!(found.result.is_none() || !interrupted);
    }
}

#[test]
fn a_call_that_came_before_with_the_same_id_was_not_begun() {
    let found = found(&[
        prompt("p"),
        tool_use("r1", "a"),
        reply_ended(true),
        started("a"),
        result("a"),
        tool_use("r2", "a"),
        reply_ended(true),
    ]);
    let open = found.open.unwrap();
    assert!(open.started.is_empty() && open.answered.is_empty());
}

#[test]
fn what_others_wrote_is_taken_as_it_stands() {
    let foreign = |line: String| line.replace(",\"wardianVersion\":\"0\"", "");
    let lines = [prompt("p"), text("r1")].map(foreign);
    let found = parse(lines.concat().as_bytes());
    assert_eq!((found.interrupted, found.history.len()), (false, 2));
    let lines = [prompt("p"), tool_use("r1", "a")].map(foreign);
    assert!(parse(lines.concat().as_bytes()).interrupted);
}

fn any_line() -> impl Strategy<Value = String> {
    let id = prop::sample::select(vec!["a", "b", "c"]);
    let reply = prop::sample::select(vec!["r1", "r2", "r3"]);
    prop_oneof![
        id.clone().prop_map(prompt),
        reply.clone().prop_map(text),
        (reply, id.clone()).prop_map(|(reply, id)| tool_use(reply, id)),
        id.clone().prop_map(result),
        id.prop_map(started),
        any::<bool>().prop_map(reply_ended),
        Just(turn_ended()),
        prop::sample::select(vec!["a", "b", "r1-a", "r2-a", "a-r"]).prop_map(rewound),
        Just(boundary(&["a", "r1-a"])),
        Just(summary()),
        "[ -~]{0,40}\n",
    ]
}

proptest! {
    #[test]
    fn any_lines_in_any_order_make_a_conversation_that_goes_on(lines in prop::collection::vec(any_line(), 0..40)) {
        prop_assert_eq!(problem(&continued(found(&lines))), None);
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400), lines in prop::collection::vec(any_line(), 0..8), at in any::<prop::sample::Index>()) {
        let mut text = lines.concat().into_bytes();
        let at = at.index(text.len() + 1);
        text.splice(at..at, bytes);
        prop_assert_eq!(problem(&continued(parse(&text))), None);
    }
}

fn rewound(to: &str) -> String {
    line("system", json!({"subtype": "wardian_rewound", "to": to}))
}

fn reply(id: &str) -> [String; 3] {
    [text(id), reply_ended(true), turn_ended()]
}

/// Three turns.
fn three() -> Vec<String> {
    let turns = [("p1", "r1"), ("p2", "r2"), ("p3", "r3")];
    turns.iter().flat_map(|(asked, said)| [vec![prompt(asked)], reply(said).to_vec()].concat()).collect()
}

fn said_in(found: &Found) -> Vec<String> {
    let texts = found.history.iter().flat_map(|message| &message.content).map(|block| match block {
        ContentBlock::Text { text, .. } => text.clone(),
        ContentBlock::ToolUse { id, .. } => format!("call {id}"),
        ContentBlock::ToolResult { tool_use_id, .. } => format!("result {tool_use_id}"),
        other => format!("{other:?}"),
    });
    texts.collect()
}

fn at(lines: &[String], uuid: &str, drops: Option<&str>) -> Result<Found, Unreadable> {
    let wanted = Wanted { at: Some(uuid.to_owned()), drops: drops.map(str::to_owned), replay_after: None };
    super::read::parse(std::io::Cursor::new(lines.concat()), &wanted)
}

#[test]
fn a_conversation_is_taken_up_at_any_message() {
    let found = at(&three(), "r2-a", None).unwrap();
    assert_eq!(said_in(&found), ["p1", "r1", "p2", "r2"]);
    assert_eq!(
        (found.last_uuid.as_deref(), found.interrupted, found.open.is_some()),
        (Some("r2-a"), false, false)
    );
    assert_eq!(found.meter.total(), NanoUsd(500_000_000), "what it cost stays");
    assert_eq!(found.prompts, ["p1", "p2"]);
    // At a prompt, and at the very end.
    let found = at(&three(), "p2", None).unwrap();
    assert_eq!((said_in(&found), found.interrupted), (vec!["p1".into(), "r1".into(), "p2".into()], false));
    assert_eq!(said_in(&at(&three(), "r3-a", None).unwrap()).len(), 6);
    // Within a turn: the call is open, and settled by the next prompt.
    let calls =
        [prompt("p1"), tool_use("r1", "a"), reply_ended(true), started("a"), result("a"), turn_ended()];
    let found = at(&calls, "r1-a", None).unwrap();
    assert_eq!(found.open.as_ref().map(|open| open.answered.len()), Some(0));
    assert_eq!(problem(&continued(found)), None);
    assert!(matches!(at(&three(), "r9-a", None), Err(Unreadable::NoMessage)));
}

#[test]
fn what_was_left_out_stays_left_out() {
    let mut lines = three();
    lines.extend([rewound("r1-a"), prompt("p4")]);
    lines.extend(reply("r4"));
    assert_eq!(said_in(&found(&lines)), ["p1", "r1", "p4", "r4"]);
    assert_eq!(found(&lines).prompts, ["p1", "p4"]);
    assert!(matches!(at(&lines, "r2-a", None), Err(Unreadable::NoMessage)), "it is on no branch any more");
    assert_eq!(said_in(&at(&lines, "p4", None).unwrap()), ["p1", "r1", "p4"]);
    lines.extend([rewound("p4"), prompt("p5")]);
    assert_eq!(said_in(&found(&lines)), ["p1", "r1", "p4", "p5"]);
    assert_eq!(said_in(&found(&[three(), vec![rewound("nobody")]].concat())).len(), 6);
}

#[test]
fn only_the_turn_that_was_named_may_be_dropped() {
    assert_eq!(said_in(&at(&three(), "r2-a", Some("p3")).unwrap()), ["p1", "r1", "p2", "r2"]);
    assert_eq!(said_in(&at(&three(), "r3-a", Some("p3")).unwrap()).len(), 6, "nothing is dropped");
    for (uuid, drops, expected) in
        [("r1-a", "p3", "begin with p2"), ("r1-a", "p2", "p3 came later"), ("r2-a", "p9", "begin with p3")]
    {
        let Err(Unreadable::DropsMore(message)) = at(&three(), uuid, Some(drops)) else { panic!("{drops}") };
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_copy_that_the_sdks_made_is_whole() {
    // They leave out our notes, and mark what they copied.
    let lines: Vec<String> = three()
        .into_iter()
        .filter(|line| line.contains("\"message\""))
        .map(|line| line.replacen('{', "{\"forkedFrom\":{\"sessionId\":\"s\"},", 1))
        .collect();
    let copy = found(&lines);
    assert_eq!((said_in(&copy).len(), copy.interrupted, copy.open.is_some()), (6, false, false));
    // And it is gone on with.
    let more = found(&[lines, vec![prompt("p4")], reply("r4").to_vec()].concat());
    assert_eq!((said_in(&more).len(), more.interrupted), (8, false));
}

fn boundary(preserved: &[&str]) -> String {
    let metadata = json!({"trigger": "auto", "preservedMessages": {"anchorUuid": "s", "uuids": preserved}});
    line("system", json!({"subtype": "compact_boundary", "uuid": "b", "compactMetadata": metadata}))
}

fn summary() -> String {
    let message = json!({"role": "user", "content": "summary"});
    line("user", json!({"uuid": "s", "isCompactSummary": true, "message": message}))
}

#[test]
fn a_summary_takes_the_place_of_all_before_it() {
    let after = [prompt("p5"), text("r5"), reply_ended(true), turn_ended()];
    let lines = [three(), vec![boundary(&[]), summary()], after.to_vec()].concat();
    assert_eq!(said_in(&found(&lines)), ["summary", "p5", "r5"]);
    // A prompt that came before it, and is answered after it.
    let lines = [three(), vec![prompt("p4"), boundary(&["p4"]), summary()], reply("r4").to_vec()].concat();
    assert_eq!(said_in(&found(&lines)), ["summary", "p4", "r4"]);
    // Back to before it, and to the summary itself.
    assert_eq!(said_in(&at(&lines, "r2-a", None).unwrap()), ["p1", "r1", "p2", "r2"]);
    assert_eq!(said_in(&at(&lines, "s", None).unwrap()), ["summary", "p4"]);
    // Cut between the two: nothing is forgotten.
    assert_eq!(said_in(&found(&[three(), vec![boundary(&[])]].concat())).len(), 6);
}

#[test]
fn what_the_official_cli_counted_is_carried_on() {
    let cost = json!({"totalCostUSD": 0.25, "modelUsage": {"m": {"inputTokens": 3, "costUSD": 0.25}}});
    let found = found(&[three(), vec![line("cost-state", cost)]].concat());
    assert_eq!((found.meter.total(), found.meter.by_model()["m"].input_tokens), (NanoUsd(250_000_000), 3));
}

#[test]
fn many_changes_of_mind_take_no_long_time() {
    let mut lines = vec![prompt("p0")];
    for round in 0..5_000 {
        let (asked, back) = (format!("p{}", round + 1), if round % 3 == 0 { "p0" } else { "nobody" });
        lines.extend([prompt(&asked), rewound(back)]);
    }
    let found = found(&lines);
    // Two of three went back to nowhere, which changes nothing.
    assert_eq!(found.prompts, ["p0", "p5000"]);
}

/// The official CLI sums money in floating point.
#[test]
fn costs_of_others_are_read_to_the_nano_dollar() {
    let usage = json!({"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 0, "cacheCreationInputTokens": 0,
        "webSearchRequests": 0, "costUSD": 7.000_000_000_000_001e-5, "contextWindow": 1_000_000, "maxOutputTokens": 64_000});
    let state = |total: Value, usage: &Value| {
        line(
            "cost-state",
            json!({"totalCostUSD": total, "modelUsage": {"m": usage, "n": {"costUSD": "much"}}}),
        )
    };
    let cost_of = |total: Value| found(&[prompt("p"), state(total, &usage)]).meter;
    let noisy: Value = serde_json::from_str("0.00035000000000000005").unwrap();
    let meter = cost_of(noisy);
    assert_eq!(meter.total(), NanoUsd(350_000));
    let models: Vec<_> =
        meter.by_model().iter().map(|(model, used)| (model.as_str(), used.cost_usd.0)).collect();
    assert_eq!(models, [("m", 70_000)], "one that makes no sense is left out");
    for total in [json!(-1), json!("x"), json!(1e300), Value::Null] {
        assert_eq!(cost_of(total).total(), NanoUsd::ZERO);
    }
}
