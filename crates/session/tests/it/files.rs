//! The files that a session is given are where its agent looks for them, and nowhere else.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};
use wardian_protocol::{FileId, OrgId, ResourceId, SessionId};
use wardian_session::{SessionUpdate, blob_path};

use super::managed::{Sessions, find, kinds, message, random, stop_reason, toolset};

/// Uploads bytes, and returns the resource that shows them at a path.
fn uploaded(sessions: &Sessions, path: &str, content: &str) -> Value {
    let file: FileId = random();
    let blob = blob_of(sessions, &sessions.world.org, &file);
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(&blob, content).unwrap();
    resource(&file, path)
}

fn resource(file: &FileId, path: &str) -> Value {
    let id: ResourceId = random();
    json!({"id": id, "type": "file", "file_id": file, "mount_path": path})
}

fn blob_of(sessions: &Sessions, org: &OrgId, file: &FileId) -> PathBuf {
    blob_path(&sessions.world.engine.files(), org, file)
}

/// A script that runs each of these, one in a turn.
fn commands(commands: &[&str]) -> Value {
    let replies = commands.iter().enumerate().flat_map(|(number, command)| {
        let call = json!([{"id": format!("toolu_{number}"), "name": "Bash", "input": {"command": command}}]);
        [json!({"tool_use": call}), json!({"text": "Done."})]
    });
    json!({"replies": replies.collect::<Vec<_>>()})
}

async fn world(script: Value) -> Sessions {
    Sessions::new(script, json!([toolset("always_allow")])).await
}

/// Runs a turn, and returns the text of what its tool said.
async fn turn(sessions: &Sessions, id: &SessionId) -> String {
    let view = sessions.world.engine.get_session(&sessions.caller(), id).await.unwrap();
    sessions.send(id, message("Go on.").1).await.unwrap();
    let rows = sessions.until(id, view.last_seq, |row| row["type"] == "session.status_idle").await;
    assert_eq!(stop_reason(&rows), "end_turn", "{rows:#?}");
    find(&rows, "agent.tool_result")["content"][0]["text"].as_str().unwrap().to_owned()
}

/// Runs a turn that cannot begin, and returns why.
async fn refused(sessions: &Sessions, id: &SessionId) -> String {
    let view = sessions.world.engine.get_session(&sessions.caller(), id).await.unwrap();
    sessions.send(id, message("Go on.").1).await.unwrap();
    let rows = sessions.until(id, view.last_seq, |row| row["type"] == "session.status_idle").await;
    assert_eq!(stop_reason(&rows), "retries_exhausted", "{rows:#?}");
    assert!(!kinds(&rows).contains(&"session.status_rescheduled"), "once is enough: {rows:#?}");
    let why = find(&rows, "session.error")["error"]["message"].as_str().unwrap().to_owned();
    assert!(why.starts_with("give the session its files: "), "{why}");
    why
}

async fn update(sessions: &Sessions, id: &SessionId, add: Vec<Value>, remove: Option<&Value>) {
    let remove_resource = remove.map(|resource| resource["id"].as_str().unwrap().parse().unwrap());
    let update = SessionUpdate { add_resources: add, remove_resource, ..SessionUpdate::default() };
    sessions.world.engine.update_session(&sessions.caller(), id, update).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_where_the_session_says_and_not_changed() {
    let read =
        json!([{"id": "toolu_r", "name": "Read", "input": {"file_path": "/mnt/session/uploads/a b.txt"}}]);
    let mut script = commands(&[
        "cat data/in.csv; for attempt in 'echo x > /mnt/new' 'rm -f /mnt/session/uploads/a*' \
         'chmod 666 /mnt/session/uploads/a*' 'ln /mnt/session/uploads/a* /workspace/a' \
         'echo x >> /mnt/session/uploads/a*'; do sh -c \"$attempt\" 2>/dev/null && echo worked: $attempt; done; \
         stat -c %a /mnt/session/uploads/a*; find /mnt -type f; echo changed >> data/in.csv",
    ]);
    script["replies"]
        .as_array_mut()
        .unwrap()
        .splice(0..0, [json!({"tool_use": read}), json!({"text": "Read."})]);
    let mut sessions = world(script).await;
    let shown = uploaded(&sessions, "/mnt/session/uploads/a b.txt", "shown\n");
    let given = uploaded(&sessions, "/workspace/data/in.csv", "given\n");
    sessions.resources = vec![shown.clone(), given.clone()];
    let session = sessions.create(vec![message("Read.")]).await;
    let rows = sessions.until_idle(&session.id).await;
    let text = find(&rows, "agent.tool_result")["content"].to_string();
    assert!(text.contains("shown"), "{rows:#?}");
    let said = turn(&sessions, &session.id).await;
    assert_eq!(said.trim_end(), "given\n444\n/mnt/session/uploads/a b.txt");
    let blob = |resource: &Value| {
        let file = resource["file_id"].as_str().unwrap().parse().unwrap();
        std::fs::read_to_string(blob_of(&sessions, &sessions.world.org, &file)).unwrap()
    };
    assert_eq!((blob(&shown), blob(&given)), ("shown\n".to_owned(), "given\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_sandbox_has_what_the_session_has_then() {
    let list = "find /mnt -mindepth 1 | sort; cat /mnt/a/file in.csv 2>&1; echo changed > in.csv";
    let mut sessions = world(commands(&[list, list, list])).await;
    let first = uploaded(&sessions, "/mnt/a/file", "first\n");
    let kept = uploaded(&sessions, "/mnt/b/kept", "kept\n");
    sessions.resources = vec![first.clone(), kept, uploaded(&sessions, "/workspace/in.csv", "given\n")];
    let session = sessions.create(vec![]).await;
    assert_eq!(
        turn(&sessions, &session.id).await.trim_end(),
        "/mnt/a\n/mnt/a/file\n/mnt/b\n/mnt/b/kept\nfirst\ngiven"
    );
    // What the agent changed stays, and what it is given while its sandbox is up it has at once.
    update(&sessions, &session.id, vec![uploaded(&sessions, "/mnt/b/c/new", "new\n")], Some(&first)).await;
    let said = turn(&sessions, &session.id).await;
    assert!(said.starts_with("/mnt/b\n/mnt/b/c\n/mnt/b/c/new\n/mnt/b/kept\n"), "{said}");
    assert!(said.trim_end().ends_with("changed") && said.contains("No such file"), "{said}");
    // The same path, another file; an uploaded file that is gone is still the session's; and what lies in the folder
    // without being asked for goes: what a crash left, a link, a file that is not the one.
    let again = uploaded(&sessions, "/mnt/a/file", "second\n");
    update(&sessions, &session.id, vec![again.clone()], None).await;
    sessions.world.engine.stop(std::time::Duration::ZERO).await;
    let file = again["file_id"].as_str().unwrap().parse().unwrap();
    std::fs::remove_file(blob_of(&sessions, &sessions.world.org, &file)).unwrap();
    let root = sessions.world.engine.workspace(&session.id).parent().unwrap().to_owned();
    let outside = sessions.world.temp.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "outside\n").unwrap();
    std::fs::remove_dir_all(root.join("mnt/b")).unwrap();
    symlink(&outside, root.join("mnt/b")).unwrap();
    symlink(&outside, root.join("mnt/link")).unwrap();
    std::fs::create_dir(root.join("mnt/stray")).unwrap();
    std::fs::write(root.join("mnt/stray/file"), "stray").unwrap();
    std::fs::remove_file(root.join("mnt/a/file")).unwrap();
    std::fs::write(root.join("mnt/a/file"), "forged").unwrap();
    std::fs::write(root.join("given/.partial"), "half").unwrap();
    sessions.restart().await;
    let said = turn(&sessions, &session.id).await;
    assert_eq!(
        said.trim_end(),
        "/mnt/a\n/mnt/a/file\n/mnt/b\n/mnt/b/c\n/mnt/b/c/new\n/mnt/b/kept\nsecond\nchanged"
    );
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert!(!root.join("given/.partial").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_ends_the_turn_with_a_reason_and_the_session_goes_on_without_it() {
    let sessions = world(commands(&["ls -A /mnt | wc -l"])).await;
    let session = sessions.create(vec![]).await;
    let missing = resource(&random(), "/mnt/missing");
    update(&sessions, &session.id, vec![missing.clone()], None).await;
    let why = refused(&sessions, &session.id).await;
    assert!(
        why.contains(missing["file_id"].as_str().unwrap()) && why.contains("not there any more"),
        "{why}"
    );
    update(&sessions, &session.id, vec![], Some(&missing)).await;
    assert_eq!(turn(&sessions, &session.id).await.trim_end(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_reach_nothing() {
    let mut sessions = world(commands(&["rm -rf d && ln -s /etc d; cat /mnt/* | wc -c", "echo fine"])).await;
    let odd = ["-rf", "a\\b", "*", "é\u{202e}", "$(touch x)", " "];
    let odd = odd.map(|name| uploaded(&sessions, &format!("/mnt/{name}"), "odd"));
    sessions.resources = odd.to_vec();
    let session = sessions.create(vec![]).await;
    assert_eq!(turn(&sessions, &session.id).await.trim_end(), (odd.len() * "odd".len()).to_string());
    // The agent has put a link where a file is to go.
    sessions.restart().await;
    let linked = uploaded(&sessions, "/workspace/d/passwd", "x");
    update(&sessions, &session.id, vec![linked.clone()], None).await;
    assert!(refused(&sessions, &session.id).await.contains("through a link"));
    update(&sessions, &session.id, vec![], Some(&linked)).await;
    assert_eq!(turn(&sessions, &session.id).await.trim_end(), "fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_that_are_none_are_refused_by_name() {
    let mut sessions = world(json!({"replies": []})).await;
    let file: FileId = uploaded(&sessions, "", "own")["file_id"].as_str().unwrap().parse().unwrap();
    let (foreign, theirs, link): (OrgId, FileId, FileId) = (random(), random(), random());
    let blob = blob_of(&sessions, &foreign, &theirs);
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(&blob, "theirs").unwrap();
    let secret = sessions.world.temp.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    symlink(&secret, blob_of(&sessions, &sessions.world.org, &link)).unwrap();
    let mut bad = vec![
        vec![resource(&theirs, "/mnt/theirs")],
        vec![resource(&link, "/mnt/secret")],
        vec![resource(&link, "/workspace/secret")],
        vec![json!({"id": "../../x", "type": "file", "file_id": file, "mount_path": "/mnt/x"})],
        vec![json!({"type": "repository"})],
        vec![json!("file")],
        vec![resource(&file, "/mnt/a"), resource(&file, "/mnt/a/b")],
        vec![resource(&file, "/workspace/a"), resource(&file, "/workspace/a")],
    ];
    let long = format!("/mnt/{}", "x/".repeat(600));
    for path in
        ["/mnt/../workspace/x", "/mnt", "/mnt/", "/etc/x", "/mnt//x", "mnt/x", "/mnt/a\0b", "/mntx/a", &long]
    {
        bad.push(vec![resource(&file, path)]);
    }
    for resources in bad {
        sessions.resources = resources;
        let session = sessions.create(vec![]).await;
        refused(&sessions, &session.id).await;
    }
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "secret");
}
