//! `kill -9` of the server at different moments: within a second nothing of its sandboxes is left, and the next server
//! has what clients were told and goes on with their sessions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardian_protocol::SessionId;
use wardian_store::{EventRecord, SqliteStore, Store};

use super::support::{
    Event, Events, Options, PATIENCE, Wardian, children, comm, descendants, processes, random_word, until,
};

/// What the issue promises.
const SOON: Duration = Duration::from_secs(1);

/// Twice forked, in a session and with a name of its own, and it never stops writing.
const HIDES: &str = r#"
import os, sys
BEATS = """
import itertools, os, time
os.closerange(0, 100)
for count in itertools.count():
    with open("beat", "w") as beat:
        beat.write(str(count))
    time.sleep(0.01)
"""
marker = open("marker").read()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("python3", ["python3", "-c", BEATS, marker])
    os._exit(0)
os.wait()
print("hidden", flush=True)
"#;

const REPLIES: &str = r#"{"replies": [
    {"match": {"last_text_contains": "hide a child"}, "repeat": true, "model": "claude-haiku-4-5",
     "tool_use": [{"name": "Bash", "input": {"command": "python3 hide.py; sleep 600"}}],
     "usage": {"input_tokens": 1000, "output_tokens": 100}},
    {"match": {"last_text_contains": "think long"}, "model": "claude-haiku-4-5", "text": "Let me think", "hold": true},
    {"match": {"tool_result_contains": "marker"}, "repeat": true, "model": "claude-haiku-4-5",
     "text": "They are still there.", "usage": {"input_tokens": 2000, "output_tokens": 10}},
    {"match": {"last_text_contains": "what is there"}, "repeat": true, "model": "claude-haiku-4-5",
     "tool_use": [{"name": "Bash", "input": {"command": "ls"}}],
     "usage": {"input_tokens": 100, "output_tokens": 10}}
]}"#;

/// A run in a server that is about to be killed.
struct Victim {
    wardian: Wardian,
    events: Events,
    told: Vec<Event>,
    session: String,
    request: String,
    marker: String,
}

impl Victim {
    /// Starts a run, in this session or a new one.
    async fn run(wardian: Wardian, mut body: Value, session: Option<&str>) -> Self {
        let marker = format!("marker-{}", random_word());
        body["files"] = json!([{"path": "hide.py", "content": HIDES}, {"path": "marker", "content": marker}]);
        body["session_id"] = json!(session);
        let mut events = wardian.stream(&wardian.key, &body).await;
        assert_eq!(events.status, 200, "{body}");
        let started = events.next().await.unwrap();
        assert_eq!(started.name, "run_started");
        let id = |name: &str| started.data[name].as_str().unwrap().to_owned();
        let (session, request) = (id("session_id"), id("request_id"));
        Self { wardian, events, told: vec![started], session, request, marker }
    }

    /// Reads on until an event for which this holds.
    async fn told(&mut self, holds: impl Fn(&Event) -> bool) {
        while !self.told.last().is_some_and(&holds) {
            self.told.push(self.events.next().await.expect("the stream goes on"));
        }
    }

    /// The hidden child lives: the host sees it below the launcher, and what it writes changes.
    async fn hidden_child_lives(&self) {
        let [child] = until("the hidden child", || <[i32; 1]>::try_from(marked(&self.marker)).ok()).await;
        assert!(descendants(self.wardian.pid()).contains(&child));
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().last().unwrap().parse::<i32>().unwrap()
        };
        assert_eq!(of("NSsid:") + 1, of("NSpid:"), "a session of its own, whose leader has gone");
        let beat = self.wardian.workspace(&self.session).join("beat");
        let read = || std::fs::read_to_string(&beat).ok().filter(|beat| !beat.is_empty());
        let first = until("a heartbeat", read).await;
        until("another heartbeat", || read().filter(|beat| *beat != first)).await;
    }

    /// Kills the server and asserts that nothing is left in time; then everything that was told is told.
    async fn kill(mut self) -> Survivor {
        let remains = Remains::of(&self);
        let begun = Instant::now();
        self.wardian.kill().await;
        while !remains.found().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "left: {:#?}", remains.found());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let took = begun.elapsed();
        assert!(took < SOON, "it took {took:?}");
        while let Some(event) = self.events.next().await {
            self.told.push(event);
        }
        self.wardian.restart().await;
        let doors: Vec<_> = std::fs::read_dir(self.wardian.data_dir().join("doors")).unwrap().collect();
        assert!(doors.is_empty(), "{doors:?}");
        Survivor { wardian: self.wardian, told: self.told, session: self.session, request: self.request }
    }
}

/// The processes whose arguments have the marker.
fn marked(marker: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(marker)
    };
    processes().into_iter().filter(has).collect()
}

/// What must not be left of a run.
struct Remains {
    marker: String,
    request: String,
    processes: BTreeSet<i32>,
    groups: BTreeSet<PathBuf>,
    namespaces: BTreeSet<PathBuf>,
    folder: PathBuf,
}

impl Remains {
    fn of(victim: &Victim) -> Self {
        let processes = BTreeSet::from_iter(descendants(victim.wardian.pid()));
        let names: Vec<_> = processes.iter().map(|pid| comm(*pid)).collect();
        assert!(names.iter().filter(|name| *name == "wardian-guest").count() >= 2, "{names:?}");
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let namespaces =
            processes.iter().filter_map(|pid| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok());
        let namespaces: BTreeSet<_> = namespaces.filter(|namespace| *namespace != own).collect();
        let remains = Self {
            marker: victim.marker.clone(),
            request: victim.request.clone(),
            groups: processes.iter().flat_map(|pid| groups(*pid)).collect(),
            processes,
            namespaces,
            folder: victim.wardian.folder().to_owned(),
        };
        // What is looked for is there; the kernel shows the namespaces of others to root only.
        let found = remains.found();
        let is_found = |what: &str| found.iter().any(|found| found.starts_with(what));
        assert!(is_found("process"), "{found:#?}");
        assert!(is_found("namespace") || !rustix::process::geteuid().is_root(), "{found:#?}");
        assert!(is_found("group") || victim.wardian.tier() == "no-cgroup", "{found:#?}");
        remains
    }

    fn found(&self) -> Vec<String> {
        let mut found: Vec<_> = marked(&self.marker).iter().map(|pid| format!("marked {pid}")).collect();
        found.extend(
            self.processes
                .iter()
                .filter(|pid| lives(**pid))
                .map(|pid| format!("process {pid} {}", comm(*pid))),
        );
        found.extend(
            self.groups.iter().filter(|group| group.exists()).map(|group| format!("group {group:?}")),
        );
        // A mount lives as long as a process sees it.
        for pid in processes() {
            let Ok(namespace) = std::fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
            if self.namespaces.contains(&namespace) {
                found.push(format!("namespace {namespace:?} of {pid}"));
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = |line: &&str| line.contains(self.folder.to_str().unwrap()) || line.contains(&self.request);
        found.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
        for place in [&self.folder.join("data/launcher"), Path::new("/run"), Path::new("/sys/fs/cgroup")] {
            named(place, &self.request, &mut found);
        }
        found
    }
}

/// Everything in a folder that is named after the run.
fn named(folder: &Path, name: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(name) {
            found.push(format!("named {}", entry.path().display()));
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            named(&entry.path(), name, found);
        }
    }
}

/// Whether a process runs.
pub fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The launcher's control groups that a process is in.
pub fn groups(pid: i32) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let [_, controllers, path] = <[&str; 3]>::try_from(line.splitn(3, ':').collect::<Vec<_>>()).unwrap();
        let hierarchy = if controllers.is_empty() { "unified" } else { controllers };
        for mount in [format!("/sys/fs/cgroup/{hierarchy}"), "/sys/fs/cgroup".to_owned()] {
            let path = PathBuf::from(format!("{mount}{path}"));
            let ours = |path: &&Path| path.to_string_lossy().contains("/wardian-") && path.exists();
            found.extend(path.ancestors().filter(ours).map(Path::to_owned));
        }
    }
    found
}

/// The next server, and what clients of the last one know.
struct Survivor {
    wardian: Wardian,
    told: Vec<Event>,
    session: String,
    request: String,
}

impl Survivor {
    async fn log(&self) -> Vec<EventRecord> {
        let store = SqliteStore::open(&self.wardian.data_dir().join("wardian.db")).unwrap();
        let org = store.default_org().await.unwrap();
        let session: SessionId = self.session.parse().unwrap();
        let mut log: Vec<EventRecord> = Vec::new();
        loop {
            let after = log.last().map_or(0, |row| row.seq);
            let page = store.events(&org, &session, after, 1000).await.unwrap();
            if page.is_empty() {
                return log;
            }
            log.extend(page);
        }
    }

    /// Everything that the client was told is in the store, in this order, and then that it was interrupted.
    async fn has_what_was_told(&self) {
        let log = self.log().await;
        assert!(log.iter().zip(1..).all(|(row, seq)| row.seq == seq), "without gaps");
        let rows: Vec<_> = log
            .iter()
            .filter(|row| row.request_id.as_ref().is_some_and(|id| id.as_str() == self.request))
            .collect();
        let mut rest = rows.iter();
        for event in &self.told {
            let stored = rest.any(|row| match event.name.as_str() {
                "run_started" => row.kind == "run.started",
                "output" => row.payload["text"] == event.data["text"],
                "message" => {
                    let mut frame = row.payload["frame"].clone();
                    frame["session_id"] = json!(self.session);
                    frame == event.data
                }
                other => panic!("a run that was killed says {other}"),
            });
            assert!(stored, "{event:#?} is not in {rows:#?}");
        }
        assert_eq!(rows.last().unwrap().kind, "run.interrupted");
    }

    async fn is_idle(&self, runs: u64) {
        let session = self.wardian.get(&self.wardian.key, &format!("/v1/x/sessions/{}", self.session)).await;
        assert_eq!(session.status, 200, "{session:#?}");
        let session = session.json();
        assert_eq!(
            (&session["status"], &session["active_run"]),
            (&json!("idle"), &Value::Null),
            "{session:#}"
        );
        assert_eq!(session["runs"], runs, "{session:#}");
        assert_eq!(session["last_seq"], self.log().await.len(), "{session:#}");
    }

    async fn usage(&self) -> Value {
        let path = format!("/v1/x/usage?session={}", self.session);
        self.wardian.get(&self.wardian.key, &path).await.json()["data"][0].clone()
    }

    /// A command and the agent find the files.
    async fn goes_on(&self) {
        let again = json!({"prompt": "x", "session_id": self.session, "command": ["cat", "hide.py"]});
        let report = self.wardian.run(&again).await.report();
        assert_eq!(
            (&report["session_id"], &report["stdout"]),
            (&json!(self.session), &json!(HIDES)),
            "{report:#}"
        );
        let again = json!({"prompt": "what is there", "session_id": self.session});
        let report = self.wardian.run(&again).await.report();
        assert_eq!(report["result"], "They are still there.", "{report:#}");
        assert_eq!((&report["status"], &report["session_id"]), (&json!("completed"), &json!(self.session)));
    }
}

async fn start() -> Wardian {
    Wardian::start(REPLIES, Options::default()).await
}

fn calls_bash(event: &Event) -> bool {
    event.data["message"]["content"][0]["name"] == "Bash"
}

#[tokio::test]
async fn in_mid_bash_three_times_in_one_session() {
    let mut wardian = start().await;
    let mut session: Option<String> = None;
    for round in 1..=3_u32 {
        let body = json!({"prompt": "hide a child", "model": "claude-haiku-4-5"});
        let mut victim = Victim::run(wardian, body, session.as_deref()).await;
        victim.told(calls_bash).await;
        victim.hidden_child_lives().await;
        let survivor = victim.kill().await;
        survivor.has_what_was_told().await;
        survivor.is_idle(u64::from(round)).await;
        // What the one answer of each round cost: 1000 × 1 µ$ + 100 × 5 µ$ = $0.0015.
        let usage = survivor.usage().await;
        assert_eq!(usage["cost_usd"], json!([0.0015, 0.003, 0.0045][round as usize - 1]), "{usage:#}");
        assert_eq!((&usage["requests"], &usage["inexact_requests"]), (&json!(round), &json!(0)), "{usage:#}");
        session = Some(survivor.session.clone());
        if round == 3 {
            survivor.goes_on().await;
        }
        wardian = survivor.wardian;
    }
    wardian.stop().await;
}

#[tokio::test]
async fn while_a_command_runs() {
    let body = json!({"prompt": "x", "command":
        ["sh", "-c", "python3 hide.py; n=0; while sleep 0.01; do n=$((n+1)); echo tick $n; done"]});
    let mut victim = Victim::run(start().await, body, None).await;
    victim.told(|event| event.data["text"].as_str().is_some_and(|text| text.contains("tick 5\n"))).await;
    victim.hidden_child_lives().await;
    let mut survivor = victim.kill().await;
    survivor.has_what_was_told().await;
    survivor.is_idle(1).await;
    survivor.goes_on().await;
    survivor.wardian.stop().await;
}

#[tokio::test]
async fn while_the_model_answers() {
    let body = json!({"prompt": "think long", "model": "claude-haiku-4-5", "limits": {"max_cost_usd": 1}});
    let mut victim = Victim::run(start().await, body, None).await;
    victim.told(|event| event.data["type"] == "system").await;
    victim.wardian.model.wait_for(1).await;
    let mut survivor = victim.kill().await;
    survivor.wardian.model.wait_for_aborted(1).await;
    survivor.has_what_was_told().await;
    survivor.is_idle(1).await;
    // Nobody knows what it came to: it is charged at its bound, and marked so.
    let usage = survivor.usage().await;
    assert_eq!((&usage["requests"], &usage["inexact_requests"]), (&json!(1), &json!(1)), "{usage:#}");
    assert_eq!((&usage["open_requests"], &usage["reserved_usd"]), (&json!(0), &json!(0.0)), "{usage:#}");
    assert!(usage["cost_usd"].as_f64().is_some_and(|cost| cost > 0.0 && cost <= 1.0), "{usage:#}");
    survivor.goes_on().await;
    survivor.wardian.stop().await;
}

#[tokio::test]
async fn as_soon_as_a_run_has_started() {
    let victim = Victim::run(start().await, json!({"prompt": "hide a child"}), None).await;
    let mut survivor = victim.kill().await;
    survivor.has_what_was_told().await;
    survivor.is_idle(1).await;
    survivor.goes_on().await;
    survivor.wardian.stop().await;
}

#[tokio::test]
async fn while_several_sessions_run() {
    let wardian = start().await;
    let files = json!([{"path": "hide.py", "content": HIDES}, {"path": "marker", "content": "another"}]);
    let mut others = Vec::new();
    for _ in 0..2 {
        let body = json!({"prompt": "hide a child", "files": files});
        let mut events = wardian.stream(&wardian.key, &body).await;
        let started = events.next().await.unwrap();
        events.wait_for(calls_bash).await;
        // Who stops listening would cancel the run.
        others.push((started.data["session_id"].as_str().unwrap().to_owned(), events));
    }
    let mut victim = Victim::run(wardian, json!({"prompt": "hide a child"}), None).await;
    victim.told(calls_bash).await;
    victim.hidden_child_lives().await;
    let mut survivor = victim.kill().await;
    survivor.has_what_was_told().await;
    for (session, _) in others {
        survivor.session = session;
        survivor.is_idle(1).await;
        assert_eq!(survivor.log().await.last().unwrap().kind, "run.interrupted");
        survivor.goes_on().await;
    }
    survivor.wardian.stop().await;
}

/// While its sandbox is made, before anybody was told that the run has begun: nothing is known of it but its arguments.
#[tokio::test]
async fn at_any_moment_of_a_run_that_begins() {
    let mut wardian = start().await;
    for moment_ms in [0, 1, 2, 3, 5, 8, 13, 21, 34] {
        let marker = format!("marker-{}", random_word());
        let body = json!({"prompt": "x", "command": ["sh", "-c", "setsid sleep 600 & sleep 600", marker],
            "stream": true, "on_disconnect": "continue"});
        let run = wardian.stream(&wardian.key, &body);
        tokio::select! {
            mut events = run => { events.next().await.unwrap(); }
            () = tokio::time::sleep(Duration::from_millis(moment_ms)) => (),
        }
        let launcher = children(wardian.pid()).into_iter().find(|pid| comm(*pid) == "wardian-guest").unwrap();
        let groups = groups(launcher);
        let below = BTreeSet::from_iter(descendants(launcher));
        let begun = Instant::now();
        wardian.kill().await;
        let left = || {
            let processes = below.iter().copied().chain([launcher]).filter(|pid| lives(*pid)).count();
            (processes, marked(&marker), groups.iter().filter(|group| group.exists()).collect::<Vec<_>>())
        };
        while left() != (0, vec![], vec![]) {
            assert!(begun.elapsed() < PATIENCE, "left: {:?}", left());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let took = begun.elapsed();
        assert!(took < SOON, "it took {took:?}");
        wardian.restart().await;
        let ready = wardian.get("", "/readyz").await;
        assert_eq!(ready.status, 200, "{ready:#?}");
        let report = wardian.run(&json!({"prompt": "x", "command": ["echo", "well"]})).await.report();
        assert_eq!(report["stdout"], "well\n", "{report:#}");
    }
    wardian.stop().await;
}
