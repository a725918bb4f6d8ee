//! A full disk under a server with sessions: nothing acknowledged is lost, refusals say why, and when there is room
//! again the same server goes on.
//!
//! The disk is a real one of sixteen megabytes, in memory, mounted in a mount namespace of a process of its own.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use wardian_testkit::disk::{ON_A_DISK, small_disk};

use super::support::{Options, PATIENCE, Wardian, until};
use super::talk::{Client, Talk, message};

const DISK: &str = "WARDIAN_TEST_DISK";

#[test]
fn a_full_disk_under_sessions() {
    let folder = tempfile::tempdir().unwrap();
    if let Err(said) = small_disk(folder.path(), 16, "it::disk::child", DISK) {
        eprintln!("no small disk to be had here: {said:?}");
    }
}

fn script() -> Value {
    let wait = "echo begun >> log; until [ -e go ]; do sleep 0.01; done; echo ran";
    json!({"replies": [
        {"match": {"tool_result_contains": "ran"}, "repeat": true, "text": "It ran."},
        {"match": {"last_text_contains": "wait"}, "repeat": true, "tool_use": [{"name": "Bash", "input": {"command": wait}}]},
        {"repeat": true, "text": "Done."},
    ]})
}

/// Takes all the room that there is, to the last page.
fn fill(ballast: &Path) {
    let mut file = File::options().create(true).append(true).open(ballast).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

/// Not a test of its own: the body of the process that has the small disk.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(disk) = std::env::var_os(DISK) else { return };
    println!("{ON_A_DISK}");
    let (ballast, data) = (Path::new(&disk).join("ballast"), Path::new(&disk).join("data"));
    let options = Options { data_dir: Some(data), ..Options::default() };
    let mut wardian = Wardian::start(&script().to_string(), options).await;
    let client = Client::of(&wardian);
    let mut talks =
        [Talk::new(client.session("always_allow").await), Talk::new(client.session("always_allow").await)];
    for talk in &mut talks {
        talk.turn(&client, "hello").await.unwrap();
    }
    // One turn is in the middle of a call when the disk is full.
    let [works, rests] = &mut talks;
    works.post(&client, "wait", &json!([message("wait")])).await.unwrap();
    let workspace = wardian.workspace(&works.session);
    until("the call runs", || workspace.join("log").exists().then_some(())).await;

    // Messages are acknowledged until the disk is full, and then refused in words.
    fill(&ballast);
    let path = format!("/v1/sessions/{}/events", rests.session);
    let mut tries = 0;
    let refused = loop {
        tries += 1;
        fill(&ballast);
        let text = format!("{tries} {}", "x".repeat(20_000));
        let reply = client.call("POST", &path, &[], &json!({"events": [message(&text)]})).await.unwrap();
        let reply = reply.whole().await;
        if reply.status != 200 {
            break reply;
        }
        rests.acknowledged.insert(reply.json()["data"][0]["id"].as_str().unwrap().to_owned());
    };
    assert_eq!(refused.status, 503, "{refused:#?}");
    assert!(refused.body.contains("the storage is full"), "{refused:#?}");
    let agent = json!({"name": "x".repeat(200), "model": "haiku", "system": "x".repeat(90_000)});
    let made = client.call("POST", "/v1/agents", &[], &agent).await.unwrap().whole().await;
    assert_eq!(made.status, 503, "{made:#?}");
    let ready = wardian.get("", "/readyz").await;
    assert_eq!((ready.status, &ready.json()["store"]["status"]), (503, &json!("failed")), "{ready:#?}");
    assert_eq!(wardian.get("", "/livez").await.status, 200);
    // What is there can be read, all of it.
    let listed = client.list(&rests.session).await.unwrap();
    for id in &rests.acknowledged {
        assert!(listed.iter().any(|event| event["id"] == id.as_str()), "{id}");
    }
    // The call ends while the disk is full.
    File::create(workspace.join("go")).unwrap();

    // There is room again: the same server goes on.
    std::fs::remove_file(&ballast).unwrap();
    let recovered = async {
        while wardian.get("", "/readyz").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.expect("ready again");
    for talk in &mut talks {
        let turn = talk.turn(&client, "still-there");
        let ended = tokio::time::timeout(PATIENCE, turn).await;
        assert!(
            matches!(ended, Ok(Ok(()))),
            "{ended:?}: {:#?}",
            talk.rows.iter().rev().take(5).collect::<Vec<_>>()
        );
        talk.is_what_is_listed(&client).await;
    }
    let log = std::fs::read_to_string(workspace.join("log")).unwrap();
    assert_eq!(log, "begun\n", "once");
    // And so does the next one.
    wardian.kill().await;
    wardian.restart().await;
    let client = Client::of(&wardian);
    for talk in &mut talks {
        talk.turn(&client, "and-now").await.unwrap();
        talk.is_what_is_listed(&client).await;
    }
    wardian.stop().await;
}
