//! Everything from inside a sandbox is hostile: malformed, truncated, over the limit, slow. After each the next good
//! request works.

use std::time::Duration;

use wardian_model::Server;

use super::client::Client;
use super::raw::{Answer, Raw, Then};
use super::rig::{Rig, TestDoor, ask, model};

const MIB: usize = 1024 * 1024;

async fn echo() -> Server {
    model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await
}

async fn works(door: &TestDoor) {
    let reply = door.connect().await.ask(&ask(false, 50)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// What a connection may begin with, and what it gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_begins_with_the_line_or_is_told_so() {
    let model = echo().await;
    let rig =
        Rig::with(&model.base_url(), |config| config.timeouts.opening = Duration::from_millis(200)).await;
    let door = rig.door();
    let huge = "w".repeat(MIB);
    for line in [
        "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
        "wardian/2 gateway\n",
        "wardian/1 gateway\r\n",
        "wardian/1 control\n",
        "WARDIAN/1 GATEWAY\n",
        "\n",
        "\0\0\0\0",
        &huge,
    ] {
        let mut client = Client::bare(&door.socket, "").await;
        client.send(line.as_bytes()).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.error().0.as_str()), (400, "invalid_request_error"), "{:.20}", line);
        assert!(reply.error().1.contains("wardian/1 gateway"));
        works(&door).await;
    }
    // A line that stops in the middle, with and without the end of the connection, gets nothing.
    for part in ["", "ward", "wardian/1 gateway"] {
        let mut client = Client::bare(&door.socket, "").await;
        client.send(part.as_bytes()).await;
        assert!(client.ends().await, "{part:?}");
        drop(Client::bare(&door.socket, "").await);
        works(&door).await;
    }
    // The line may come in pieces, and with the request behind it.
    let mut client = Client::bare(&door.socket, &door.key()).await;
    client.send(b"wardian/1 ").await;
    client
        .send(
            format!("gateway\nGET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n", door.key())
                .as_bytes(),
        )
        .await;
    assert_eq!(client.reply().await.status, 200);
}

/// Requests that two readers could cut apart in two ways, and others that are no HTTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smuggled_and_broken_heads_go_nowhere() {
    let model = echo().await;
    let rig = Rig::new(&model.base_url()).await;
    let door = rig.door();
    let key = door.key();
    let head =
        |lines: &str| format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n{lines}\r\n");
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases = [
        head("content-length: 5\r\ncontent-length: 6\r\n") + "{}{}{}",
        head("content-length: 5, 6\r\n") + "{}{}{}",
        head("content-length: -1\r\n"),
        head("content-length: +5\r\n") + "{}{}{}",
        head("content-length: 0x5\r\n") + "{}{}{}",
        head("content-length: 99999999999999999999999\r\n"),
        head("transfer-encoding: xchunked\r\n") + "0\r\n\r\n",
        head("transfer-encoding: chunked, identity\r\n") + "0\r\n\r\n",
        head("transfer-encoding : chunked\r\n") + "0\r\n\r\n",
        head("transfer-encoding: chunked\r\n") + "zz\r\n",
        head("transfer-encoding: chunked\r\n") + "ffffffffffffffffff\r\n",
        head("x-folded: a\r\n b\r\n"),
        head("x-nul: a\0b\r\n"),
        head("no colon\r\n"),
        head(": no name\r\n"),
        head(&format!("x-long: {}\r\n", "a".repeat(200_000))),
        head(&many),
        "GET  /v1/models  HTTP/1.1\r\n\r\n".to_owned(),
        "GET /v1/models HTTP/9.9\r\n\r\n".to_owned(),
        "GET /v1/models\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\0\x01".to_owned(),
        "G\0T / HTTP/1.1\r\n\r\n".to_owned(),
    ];
    for case in cases {
        let mut client = door.connect().await;
        client.send(case.as_bytes()).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
        if let Some(reply) = client.try_reply().await {
            assert!((400..=501).contains(&reply.status), "{case:.200}: {}", reply.head);
        }
        assert_eq!(model.request_count(), 0, "{case:.200}");
    }
    works(&door).await;
}

/// Both framings in one head: whatever is taken, one request goes up, and it is the one that was checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_framings_make_one_request() {
    let reply = r#"{"type":"message","usage":{"input_tokens":1,"output_tokens":1}}"#;
    let raw = Raw::new(vec![Answer::json("200 OK", "", reply), Answer::json("200 OK", "", reply)]).await;
    let rig = Rig::new(&raw.url).await;
    let door = rig.door();
    let body = ask(false, 5);
    let smuggled = "POST /v1/files HTTP/1.1\r\nhost: x\r\n\r\n";
    let text = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n{smuggled}",
        door.key(),
        body.len() + 100,
        body.len(),
    );
    let mut client = door.connect().await;
    client.send(text.as_bytes()).await;
    let first = client.reply().await.status;
    if first == 200 {
        let sent = raw.requests();
        assert!(sent.len() == 1 && sent[0].ends_with(&body), "{sent:?}");
        assert!(!sent[0].contains("transfer-encoding"));
    } else {
        assert_eq!((first, raw.requests().len()), (400, 0));
    }
    drop(client);
    assert_eq!(door.connect().await.ask(&body).await.status, 200);
}

/// Bodies that are no request, on one connection with good ones between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_bodies_are_refused_and_the_connection_goes_on() {
    let model = echo().await;
    let rig = Rig::new(&model.base_url()).await;
    let door = rig.door();
    let mut client = door.connect().await;
    let nested = format!(r#"{{"model":"m","max_tokens":1,"messages":{}"#, "[".repeat(2 * MIB));
    let doubled = ask(false, 5).replacen('{', r#"{"model":"claude-haiku-5-5","#, 1);
    for (body, message) in [
        ("", "not a JSON object"),
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("\u{feff}{}", "not a JSON object"),
        (r#"{"model":"m"}"#, "max_tokens"),
        (r#"{"model":7,"max_tokens":1}"#, "wrong type"),
        (&nested, "not valid JSON"),
        (&doubled, "duplicate field `model`"),
    ] {
        let reply = client.ask(body).await;
        assert_eq!((reply.status, reply.error().0.as_str()), (400, "invalid_request_error"), "{body:.60}");
        assert!(reply.error().1.contains(message), "{}", reply.text());
        assert_eq!(client.ask(&ask(false, 50)).await.status, 200);
    }
    for lines in ["content-encoding: gzip\r\n", "anthropic-workspace-id: w\r\n"] {
        client
            .request_with(
                "POST",
                "/v1/messages",
                &format!("x-api-key: {}\r\n{lines}", door.key()),
                &ask(false, 5),
            )
            .await;
        assert_eq!(client.reply().await.status, 400, "{lines}");
    }
    client.request("POST", &format!("/v1/messages?{}", "q".repeat(2000)), &ask(false, 5)).await;
    assert_eq!(client.reply().await.error().1, "the query is too long");
    assert_eq!(model.request_count(), 8);
    assert_eq!(door.door.reserved().0, 0);
}

/// 31 MB pass, over 32 MB is refused in JSON, announced or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_up_to_the_limit() {
    let model = echo().await;
    let rig = Rig::new(&model.base_url()).await;
    let door = rig.door();
    let sized = |bytes: usize| ask(false, 5).replace("\"hi\"", &format!("\"{}\"", "x".repeat(bytes)));
    let large = sized(31 * MIB);
    assert_eq!(door.connect().await.ask(&large).await.status, 200);
    assert!(model.requests()[0].header("content-length") == Some(large.len().to_string().as_str()));
    let too_large = sized(33 * MIB);
    let mut client = door.connect().await;
    let reply = client.ask(&too_large).await;
    assert_eq!((reply.status, reply.error().0.as_str()), (413, "request_too_large"));
    assert_eq!(reply.error().1, "the request is over 32 MB");
    assert_eq!(client.ask(&ask(false, 5)).await.status, 200, "on the same connection");

    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ntransfer-encoding: chunked\r\n\r\n",
        door.key()
    );
    client.send(head.as_bytes()).await;
    client.send(format!("{:x}\r\n{too_large}\r\n0\r\n\r\n", too_large.len()).as_bytes()).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.error().0.as_str()), (413, "request_too_large"));
    assert_eq!(client.ask(&ask(false, 5)).await.status, 200);
    assert_eq!(model.request_count(), 3);
}

/// Bodies and heads that stop half-way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_not_waited_for() {
    let model = echo().await;
    let rig = Rig::with(&model.base_url(), |config| {
        config.timeouts.request_head = Duration::from_millis(200);
        config.timeouts.request_body = Duration::from_millis(200);
        config.limits.connections = 2;
    })
    .await;
    let door = rig.door();
    let head = format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n", door.key());

    let mut half = door.connect().await;
    half.send(format!("{head}content-length: 500\r\n\r\n{{\"model\":").as_bytes()).await;
    let reply = half.reply().await;
    assert_eq!((reply.status, reply.error().0.as_str()), (408, "timeout_error"));

    let mut cut = door.connect().await;
    cut.send(format!("{head}content-length: 500\r\n\r\n{{").as_bytes()).await;
    drop(cut);
    works(&door).await;

    let mut loris = door.connect().await;
    loris.send(head.as_bytes()).await;
    let mut idle = door.connect().await;
    idle.send(b"").await;
    // Both places are taken; whoever comes next waits until they are given up.
    works(&door).await;
    assert!(loris.try_reply().await.is_none_or(|reply| reply.status == 408));
    assert!(idle.ends().await);
    assert_eq!(model.request_count(), 2);
}

/// A client that asks and does not read: given up, and the upstream with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_given_up() {
    let piece = format!("data: {{\"type\":\"ping\",\"pad\":\"{}\"}}\n\n", "x".repeat(60_000));
    let pieces = vec![piece.as_bytes(); 400];
    let raw = Raw::new(vec![Answer::stream(&pieces, Then::Hold)]).await;
    let rig = Rig::with(&raw.url, |config| config.timeouts.client_idle = Duration::from_millis(200)).await;
    let door = rig.door();
    let mut client = door.connect().await;
    client.request("POST", "/v1/messages", &ask(true, 50)).await;
    raw.wait_for(1).await;
    tokio::time::timeout(Duration::from_secs(5), async {
        while door.door.reserved().0 > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the reservation is given back");
    drop(client);
    door.door.close().await;
    assert_eq!(rig.usage().await.open_requests, 0);
}

/// Requests behind one another in one write are answered one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let model = echo().await;
    let rig = Rig::new(&model.base_url()).await;
    let door = rig.door();
    let mut client = door.connect().await;
    let one = |method: &str, path: &str, body: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nanthropic-version: 2023-06-01\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
            door.key(),
            body.len()
        )
    };
    let all =
        [one("POST", "/v1/messages", &ask(true, 50)), one("GET", "/nope", ""), one("GET", "/v1/models", "")];
    client.send(all.concat().as_bytes()).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client.reply().await.status);
    }
    assert_eq!(statuses, [200, 404, 200]);
}

/// A socket whose owner was killed is taken over; one that is in use, or anything else, is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_abandoned_socket_is_taken_over() {
    let model = echo().await;
    let rig = Rig::new(&model.base_url()).await;
    let grant = rig.grant(None);
    let socket = rig.folder.path().join(format!("{}.sock", grant.session_id));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let door = rig.open(grant.clone());
    works(&door).await;
    let spec = |socket: &std::path::Path| wardian_gateway::DoorSpec {
        socket: socket.to_owned(),
        grant: grant.clone(),
        observer: None,
    };
    assert!(rig.gateway.open(spec(&socket)).is_err());
    let file = rig.folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(rig.gateway.open(spec(&file)).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert!(rig.gateway.open(spec(&rig.folder.path().join("x".repeat(200)))).is_err());
    works(&door).await;
}
