//! Streams: unchanged, metered, and cut in every way.

use std::time::Duration;

use wardian_gateway::GatewayConfig;

use super::raw::{Answer, Raw, Then};
use super::rig::{Rig, ask, model};

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-sonnet-5-5\",\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\n";
const TEXT: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"twelve bytes\"}}\n\n";
const END: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":0,\"cache_read_input_tokens\":null,\"output_tokens\":7}}\n\n";
const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// Sonnet 5.5: input $2, output $10, cache read $0.10 a million tokens. 10 + 4 + 7 tokens.
const WHOLE_NANO_USD: i64 = 10 * 2000 + 4 * 100 + 7 * 10_000;

/// 10 + 4 input tokens, and twice twelve bytes of text at three bytes a token.
const CUT_NANO_USD: i64 = 10 * 2000 + 4 * 100 + 8 * 10_000;

/// Unknown events, comments, CRLF and a missing last blank line come out as they went in, whatever the chunks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_comes_out_byte_for_byte() {
    let odd = ": comment\r\n\r\nevent: from_the_future\r\ndata: {\"x\":\r\ndata: 1}\r\n\r\nretry: 5\n\n\u{feff}data: \u{e9}\n\n";
    let text =
        [START, PING, odd, TEXT, END, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n"].concat();
    let chunked = |size: usize| {
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        Answer::stream(&pieces, Then::Keep)
    };
    let raw = Raw::new([1, 7, 100, 100_000].map(chunked).into()).await;
    let rig = Rig::new(&raw.url).await;
    let door = rig.door();
    let mut client = door.connect().await;
    for _ in 0..4 {
        let reply = client.ask(&ask(true, 50)).await;
        assert!(reply.whole);
        assert_eq!(reply.text(), text);
        assert_eq!(reply.header("content-type").unwrap(), "text/event-stream");
    }
    let spent = door.door.close().await;
    assert_eq!(spent.cost.0, 4 * WHOLE_NANO_USD);
    let usage = rig.usage().await;
    assert_eq!((usage.requests, usage.open_requests, usage.inexact_requests), (4, 0, 0));
    assert_eq!(usage.cost, spent.cost);
    assert_eq!(usage.tokens, spent.by_model["claude-sonnet-5-5"].tokens);
    assert_eq!(
        (usage.tokens.input_tokens, usage.tokens.cache_read_tokens, usage.tokens.output_tokens),
        (40, 16, 28)
    );
}

/// The same usage costs the same, in one piece or streamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_costs_what_the_reply_in_one_piece_costs() {
    let usage = r#"{"input_tokens":1234,"output_tokens":567,"cache_read_input_tokens":8901,"cache_creation_input_tokens":300,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200}}"#;
    let script = format!(r#"{{"replies":[{{"text":"Hello.","usage":{usage},"repeat":true}}]}}"#);
    let model = model(&script).await;
    let rig = Rig::new(&model.base_url()).await;
    let mut costs = Vec::new();
    for stream in [true, false] {
        let door = rig.door();
        let reply = door.connect().await.ask(&ask(stream, 1000)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        costs.push(door.door.close().await);
    }
    assert_eq!(costs[0], costs[1]);
    // Input $2, output $10, read $0.10, write $2.50 and $4 a million.
    assert_eq!(costs[0].cost.0, 1234 * 2000 + 567 * 10_000 + 8901 * 100 + 100 * 2500 + 200 * 4000);
}

/// The client leaves: the upstream's connection is cut within a second, and what came is billed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_stops_the_upstream_and_pays_what_came() {
    let raw = Raw::new(vec![
        Answer::stream(&[START, TEXT, TEXT, PING].map(str::as_bytes), Then::Hold),
        Answer::of("", Then::Hold),
    ])
    .await;
    let rig = Rig::new(&raw.url).await;
    let door = rig.door();
    let mut client = door.connect().await;
    client.request("POST", "/v1/messages", &ask(true, 50)).await;
    client.until("event: ping").await;
    drop(client);
    tokio::time::timeout(Duration::from_secs(1), raw.client_left()).await.expect("the upstream is cut off");

    // The same before the reply has begun.
    let mut client = door.connect().await;
    client.request("POST", "/v1/messages", &ask(true, 50)).await;
    raw.wait_for(2).await;
    drop(client);
    tokio::time::timeout(Duration::from_secs(1), raw.client_left()).await.expect("the upstream is cut off");

    let spent = door.door.close().await;
    let usage = rig.usage().await;
    assert_eq!((usage.requests, usage.open_requests, usage.inexact_requests), (2, 0, 2));
    let prompt_by_length = i64::try_from(ask(true, 50).len().div_ceil(3)).unwrap();
    assert_eq!(spent.cost.0, CUT_NANO_USD + prompt_by_length * 2000);
    assert_eq!(usage.cost, spent.cost);
}

/// A stream that breaks off, with and without the encoding's end, and one with an error inside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_stream_is_passed_on_as_cut_and_estimated() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let (start, text, end) = (START.as_bytes(), TEXT.as_bytes(), END.as_bytes());
    let cases = [
        (vec![start, text, text], Then::Close, false, CUT_NANO_USD),
        (vec![start, text, text], Then::Keep, true, CUT_NANO_USD),
        (vec![start, text, text, error.as_bytes()], Then::Keep, true, CUT_NANO_USD),
        (vec![error.as_bytes()], Then::Keep, true, 0),
        (vec![start, text, end], Then::Close, false, WHOLE_NANO_USD),
        (
            vec![&start[..start.len() - 2], b"\r\n\r\n", &end[..end.len() - 1]],
            Then::Keep,
            true,
            WHOLE_NANO_USD,
        ),
    ];
    for (pieces, then, whole, cost) in cases {
        let answer = Answer::stream(&pieces, then);
        let sent: Vec<u8> = answer.pieces.concat();
        let raw = Raw::new(vec![answer]).await;
        let rig = Rig::new(&raw.url).await;
        let door = rig.door();
        let reply = door.connect().await.ask(&ask(true, 50)).await;
        let shown = String::from_utf8_lossy(&sent).into_owned();
        assert_eq!((reply.status, reply.whole), (200, whole), "{shown}");
        let last = String::from_utf8_lossy(pieces.last().unwrap()).into_owned();
        assert!(reply.text().ends_with(&last), "what came before the cut is passed on: {}", reply.text());
        assert_eq!(door.door.close().await.cost.0, cost, "{shown}");
        assert_eq!(rig.usage().await.cost.0, cost);
        assert_eq!(rig.usage().await.open_requests, 0);
    }
}

/// A reply in one piece that was cut, that is no JSON, or that is squeezed: never free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_cannot_be_read_is_charged_at_its_bound() {
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{lines}\r\n");
    for text in [
        head("content-length: 6\r\n") + "<html>",
        head("content-length: 2\r\n") + "{}",
        head("content-encoding: gzip\r\ncontent-length: 4\r\n") + "\u{1f}\u{8}zz",
    ] {
        let raw = Raw::new(vec![Answer::of(text.clone(), Then::Keep)]).await;
        let rig = Rig::new(&raw.url).await;
        let door = rig.door();
        assert_eq!(door.connect().await.ask(&ask(false, 50)).await.status, 200);
        let spent = door.door.close().await;
        // At least fifty tokens of reply and a byte a token of prompt.
        assert!(spent.cost.0 > 50 * 10_000 + 100 * 2000, "{text}: {}", spent.cost);
        assert_eq!(rig.usage().await.inexact_requests, 1);
    }
    let raw = Raw::new(vec![Answer::of(head("content-length: 99\r\n") + "{\"usage\":", Then::Close)]).await;
    let rig = Rig::new(&raw.url).await;
    let door = rig.door();
    let reply = door.connect().await.ask(&ask(false, 50)).await;
    assert!(!reply.whole);
    assert!(door.door.close().await.cost.0 > 0);
}

/// Silence with pings goes on, silence without them ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_keep_a_stream_alive_and_nothing_else_does() {
    let pings = [PING.as_bytes(); 8];
    let mut living = vec![START.as_bytes()];
    living.extend(pings);
    living.push(END.as_bytes());
    let mut answer = Answer::stream(&living, Then::Keep);
    answer.pause = Duration::from_millis(60);
    let raw = Raw::new(vec![answer, Answer::stream(&[START.as_bytes()], Then::Hold)]).await;
    let rig = Rig::with(&raw.url, |config| config.timeouts.response_idle = Duration::from_millis(250)).await;
    let door = rig.door();
    let reply = door.connect().await.ask(&ask(true, 50)).await;
    assert!(reply.whole && reply.text().matches("event: ping").count() == 8, "{}", reply.text());
    let silent = door.connect().await.ask(&ask(true, 50)).await;
    assert_eq!((silent.whole, silent.text().as_str()), (false, START));
    raw.client_left().await;
    door.door.close().await;
    assert_eq!(rig.usage().await.open_requests, 0);
}

/// The scripted model server agrees: its streams, cut and whole, through the gateway and beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_server_sees_its_clients_leave() {
    let model = model(
        r#"{"replies":[{"match":{"model":"claude-sonnet-5-5"},"text":"a b c d","chunk_bytes":1,"hold":true}]}"#,
    )
    .await;
    let rig = Rig::new(&model.base_url()).await;
    let door = rig.door();
    let mut client = door.connect().await;
    client.request("POST", "/v1/messages?beta=true", &ask(true, 50)).await;
    client.until("content_block_delta").await;
    drop(client);
    tokio::time::timeout(Duration::from_secs(1), model.wait_for_aborted(1)).await.expect("it is cut off");
    let spent = door.door.close().await;
    assert!(spent.cost.0 > 0);
    assert_eq!(rig.usage_by_model().await[0].model.as_deref(), Some("claude-sonnet-5-5"));
}

/// Closing the door cuts what is under way, and waits until it is settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_door_cuts_and_settles() {
    let raw = Raw::new(vec![Answer::stream(&[START.as_bytes()], Then::Hold)]).await;
    let rig = Rig::with(&raw.url, |_: &mut GatewayConfig| ()).await;
    let door = rig.door();
    let mut client = door.connect().await;
    client.request("POST", "/v1/messages", &ask(true, 50)).await;
    client.until("message_start").await;
    assert!(door.door.reserved().0 > 0);
    let spent = door.door.close().await;
    assert!(spent.cost.0 > 0);
    assert_eq!(rig.usage().await.open_requests, 0);
    assert_eq!(rig.usage().await.cost, spent.cost);
    raw.client_left().await;
}
