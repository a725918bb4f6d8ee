//! `kill -9` of the server at random moments of turns with tools, in several sessions at once: nothing acknowledged is
//! lost, no session is stuck, no call runs twice, and the next message works.
//!
//! `WARDIAN_KILLS` says how many moments (20), `WARDIAN_KILL_SEED` which (a new seed each time; it is printed).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::crash::{groups, lives};
use super::support::{Options, PATIENCE, Wardian, children, comm, descendants};
use super::talk::{Client, Talk};

/// Moments in the life of one data folder.
const MOMENTS: u64 = 10;
/// Those whose tools run at once, and one that asks first.
const POLICIES: [&str; 3] = ["always_allow", "always_allow", "always_ask"];

/// A small generator of numbers that anybody can repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// What is said to a session in a round. The model answers it with calls that write this and a letter into a file.
fn step(round: u64, session: usize) -> String {
    format!("step-{round}-{session}.")
}

/// Two calls at once, or one; each says that it ran, before and after a moment.
fn script() -> Value {
    let mut replies = vec![
        json!({"match": {"tool_result_contains": "ran"}, "repeat": true, "text": "Done."}),
        json!({"match": {"tool_result_contains": "interrupted"}, "repeat": true, "text": "It was cut."}),
    ];
    for round in 0..=MOMENTS + 1 {
        for session in 0..POLICIES.len() {
            let step = step(round, session);
            let call = |letter: &str| {
                let command = format!("echo {step}{letter} >> log; sleep 0.0{}; echo ran", round % 10);
                json!({"name": "Bash", "input": {"command": command}})
            };
            let calls = if (round as usize + session).is_multiple_of(2) {
                vec![call("a"), call("b")]
            } else {
                vec![call("a")]
            };
            replies.push(json!({"match": {"last_text_contains": step}, "repeat": true, "tool_use": calls}));
        }
    }
    json!({"replies": replies})
}

#[tokio::test(flavor = "multi_thread")]
async fn at_random_moments() {
    let seed = number("WARDIAN_KILL_SEED").unwrap_or_else(|| {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).unwrap();
        u32::from_le_bytes(bytes).into()
    });
    let kills = number("WARDIAN_KILLS").unwrap_or(20);
    eprintln!("WARDIAN_KILL_SEED={seed} WARDIAN_KILLS={kills}");
    let mut random = Random(seed);
    let mut left = kills;
    while left > 0 {
        let moments = left.min(MOMENTS);
        Killed::start().await.live(moments, &mut random).await;
        left -= moments;
    }
}

struct Killed {
    wardian: Wardian,
    talks: Vec<Talk>,
}

impl Killed {
    async fn start() -> Self {
        let wardian = Wardian::start(&script().to_string(), Options::default()).await;
        let client = Client::of(&wardian);
        let mut talks = Vec::new();
        for policy in POLICIES {
            talks.push(Talk::new(client.session(policy).await));
        }
        Self { wardian, talks }
    }

    /// Everybody says what belongs to the round, and waits for the end of the turn.
    async fn turns(&mut self, round: u64) {
        let client = Client::of(&self.wardian);
        let turns = self.talks.iter_mut().enumerate().map(|(session, talk)| {
            let client = client.clone();
            async move { talk.turn(&client, &step(round, session)).await }
        });
        let ended = tokio::time::timeout(PATIENCE / 2, join_all(turns)).await;
        let Ok(ended) = ended else {
            let last = |talk: &Talk| talk.rows.iter().rev().take(8).cloned().collect::<Vec<_>>();
            let rows: Vec<_> = self.talks.iter().map(last).collect();
            panic!("stuck, these came last: {rows:#?}");
        };
        assert!(ended.iter().all(Result::is_ok), "only the kill cuts: {ended:?}");
    }

    async fn live(mut self, moments: u64, random: &mut Random) {
        let begun = Instant::now();
        self.turns(0).await;
        let mut usual = begun.elapsed();
        for round in 1..=moments {
            let moment = Duration::from_micros(random.below(usual.as_micros() as u64 * 5 / 4));
            let begun = Instant::now();
            tokio::select! {
                () = self.turns(round) => {
                    usual = begun.elapsed();
                    tokio::time::sleep(moment.saturating_sub(begun.elapsed())).await;
                }
                () = tokio::time::sleep(moment) => (),
            }
            eprintln!("round {round}: killed after {moment:?}");
            self.kill().await;
            self.wardian.restart().await;
            let ready = self.wardian.get("", "/readyz").await;
            assert_eq!(ready.status, 200, "{ready:#?}");
            self.turns(round).await;
            self.check(round).await;
        }
        self.turns(moments + 1).await;
        self.check(moments + 1).await;
        self.wardian.stop().await;
    }

    /// Kills the server; nothing of it is left.
    async fn kill(&mut self) {
        let launcher =
            children(self.wardian.pid()).into_iter().find(|pid| comm(*pid) == "wardian-guest").unwrap();
        let (groups, below) = (groups(launcher), descendants(self.wardian.pid()));
        self.wardian.kill().await;
        let begun = Instant::now();
        loop {
            let processes: Vec<_> = below.iter().filter(|pid| lives(**pid)).collect();
            let groups: Vec<_> = groups.iter().filter(|group| group.exists()).collect();
            if processes.is_empty() && groups.is_empty() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "left: {processes:?} {groups:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What must hold of each session whose turns have ended.
    async fn check(&mut self, rounds: u64) {
        let client = Client::of(&self.wardian);
        for (session, talk) in self.talks.iter_mut().enumerate() {
            talk.is_what_is_listed(&client).await;
            let list = super::talk::fold(&talk.rows);
            for round in 0..=rounds {
                let said = |event: &&Value| event["content"][0]["text"] == step(round, session);
                assert_eq!(list.iter().filter(said).count(), 1, "said once: {round}");
            }
            let log = self.wardian.workspace(&talk.session).join("log");
            let log = std::fs::read_to_string(log).unwrap();
            let ran = runs(&log);
            assert!(ran.values().all(|times| *times == 1), "once each: {ran:#?}");
            each_call_ended(talk, &ran);
        }
    }
}

/// How many times each call ran.
fn runs(log: &str) -> BTreeMap<&str, u32> {
    let mut ran = BTreeMap::new();
    for call in log.lines() {
        *ran.entry(call).or_default() += 1;
    }
    ran
}

/// Each call has one result, and one that ended well has run.
fn each_call_ended(talk: &Talk, ran: &BTreeMap<&str, u32>) {
    let mut open = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for row in &talk.rows {
        let id = row["id"].as_str().unwrap();
        if row["type"] == "agent.tool_use" && seen.insert(id) {
            open.insert(id, row["input"]["command"].as_str().unwrap());
        } else if row["type"] == "agent.tool_result" && seen.insert(id) {
            let command =
                open.remove(row["tool_use_id"].as_str().unwrap()).expect("one result for each call");
            let name = command.split_whitespace().nth(1).unwrap();
            assert!(row["is_error"] == true || ran.contains_key(name), "{name} did not run: {row:#}");
        }
    }
    assert!(open.is_empty(), "without a result: {open:#?}");
}
