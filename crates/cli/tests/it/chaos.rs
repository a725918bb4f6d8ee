//! A network that delays every byte and cuts every connection: a client that comes again where it was ends with exactly
//! the list.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::support::{Options, PATIENCE, Wardian};
use super::talk::{Client, Talk, fold};

/// How long connections live, in turn; most are cut in the middle of something.
const LIVES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(60),
    Duration::from_millis(2000),
    Duration::from_millis(130),
    Duration::from_millis(20),
];
/// Bytes that go through at once, an odd number so that they end anywhere in a line.
const PIECE: usize = 311;
/// Turns, each with a call that takes a moment.
const TURNS: usize = 30;

/// The network between a client and the server.
struct Chaos {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Chaos {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::Relaxed);
                let life = LIVES[number as usize % LIVES.len()];
                let server = TcpStream::connect(server).await.unwrap();
                open.spawn(async move {
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    let both = async {
                        tokio::join!(slowly(from_client, to_server), slowly(from_server, to_client))
                    };
                    // Dropped in the middle of whatever it carries.
                    let _cut = tokio::time::timeout(life, both).await;
                });
                while open.try_join_next().is_some() {}
            }
        });
        Self { address, connections, _tasks: tasks }
    }
}

/// Passes bytes on piece by piece, each a little late.
async fn slowly(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut piece = [0; PIECE];
    let mut late = 0;
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        late = (late + 1) % 4;
        tokio::time::sleep(Duration::from_millis(late)).await;
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

fn script() -> Value {
    json!({"replies": [
        {"match": {"tool_result_contains": "ran"}, "repeat": true, "thinking": "x".repeat(500), "text": "Done. ".repeat(100)},
        {"repeat": true, "tool_use": [{"name": "Bash", "input": {"command": "sleep 0.02; echo ran"}}]},
    ]})
}

/// Follows until it has seen this many turns end, coming again with the last id that it has whole.
async fn follow(mut talk: Talk, client: Client, turns: usize, query: &str) -> Talk {
    let path = format!("/v1/sessions/{}/events/stream{query}", talk.session);
    loop {
        let last = talk.rows.len().to_string();
        if let Ok(mut events) = client.call("GET", &path, &[("last-event-id", &last)], &Value::Null).await {
            assert_eq!(events.status, 200);
            while let Some(event) = events.next().await {
                talk.take(event);
                let ended = talk.rows.iter().filter(|row| row["type"] == "session.status_idle").count();
                if ended == turns {
                    return talk;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_again_misses_nothing() {
    let mut wardian = Wardian::start(&script().to_string(), Options::default()).await;
    let direct = Client::of(&wardian);
    let session = direct.session("always_allow").await;
    let chaos = Chaos::before(wardian.address).await;
    let cut = Client { address: chaos.address, ..direct.clone() };
    let talk = || Talk::new(session.clone());
    let mut followers = JoinSet::new();
    for query in ["", "?event_deltas[]=agent.message&event_deltas[]=agent.thinking", ""] {
        followers.spawn(follow(talk(), cut.clone(), TURNS, query));
    }
    // The one who speaks has the same network, and says all again until it hears that it was heard.
    let mut speaker = talk();
    let speaking = async {
        for turn in 0..TURNS {
            while speaker.turn(&cut, &format!("turn-{turn}")).await.is_err() {}
        }
        followers.join_all().await
    };
    let followers = tokio::time::timeout(PATIENCE, speaking).await;
    let Ok(followers) = followers else {
        panic!("stuck, these came last: {:#?}", speaker.rows.iter().rev().take(8))
    };
    let connections = chaos.connections.load(Ordering::Relaxed);
    assert!(connections > 40, "{connections} connections");

    speaker.is_what_is_listed(&direct).await;
    let list = direct.list(&session).await.unwrap();
    assert_eq!(list.iter().filter(|event| event["type"] == "user.message").count(), TURNS, "each said once");
    for mut follower in followers {
        follower.is_what_is_listed(&direct).await;
        assert_eq!(fold(&follower.rows), list);
    }
    wardian.stop().await;
}
