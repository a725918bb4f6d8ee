//! Conversations that go on from the middle of another, or beside it.

use serde_json::{Value, json};
use wardian_agent::Transcripts;

use crate::process::{Agent, kind_of};
use crate::support::model;
use crate::transcripts::{ID, Place, messages};

const FORK: &str = "22222222-2222-3333-4444-555555555555";
const PROMPTS: [&str; 4] = [
    "aaaaaaaa-0000-4000-8000-000000000001",
    "aaaaaaaa-0000-4000-8000-000000000002",
    "aaaaaaaa-0000-4000-8000-000000000003",
    "aaaaaaaa-0000-4000-8000-000000000004",
];

async fn ask(agent: &mut Agent, uuid: &str, text: &str) -> Vec<Value> {
    agent
        .send(json!({"type": "user", "uuid": uuid, "session_id": "", "parent_tool_use_id": null,
            "message": {"role": "user", "content": [{"type": "text", "text": text}]}}))
        .await;
    agent.until("result/success").await
}

/// Everything that was said in a request.
fn said(server: &wardian_model::Server, request: usize) -> Vec<String> {
    let messages = messages(server, request);
    let blocks =
        messages.as_array().unwrap().iter().flat_map(|message| message["content"].as_array().unwrap());
    blocks.map(|block| block["text"].as_str().unwrap_or("?").to_owned()).collect()
}

/// A conversation of three turns; the uuids of its replies.
async fn three_turns(server: &wardian_model::Server, place: &Place) -> Vec<String> {
    let mut agent = place.agent(server, &["--session-id", ID]);
    let mut replies = Vec::new();
    for (index, uuid) in PROMPTS[..3].iter().enumerate() {
        let frames = ask(&mut agent, uuid, &format!("p{}", index + 1)).await;
        let reply = frames.iter().find(|frame| frame["type"] == "assistant").unwrap();
        replies.push(reply["uuid"].as_str().unwrap().to_owned());
    }
    assert_eq!(agent.end().await.2, Some(0));
    replies
}

async fn replies() -> wardian_model::Server {
    model(
        &json!({"replies": [{"text": "r1"}, {"text": "r2"}, {"text": "r3"}, {"text": "r", "repeat": true}]}),
    )
    .await
}

fn path(place: &Place, id: &str) -> std::path::PathBuf {
    Transcripts::of(place.kept.path(), &place.cwd.path().canonicalize().unwrap()).path(id)
}

#[tokio::test]
async fn a_fork_goes_on_by_itself_and_the_old_conversation_stays() {
    let (server, place) = (replies().await, Place::new());
    three_turns(&server, &place).await;
    let before = std::fs::read(place.file()).unwrap();
    let mut agent = place.agent(&server, &["--resume", ID, "--fork-session", "--session-id", FORK]);
    let frames = ask(&mut agent, PROMPTS[3], "p4").await;
    assert_eq!(said(&server, 3), ["p1", "r1", "p2", "r2", "p3", "r3", "p4"]);
    let result = frames.last().unwrap();
    assert_eq!(result["session_id"], FORK);
    // Four replies of 10 and 5 tokens.
    assert_eq!(result["total_cost_usd"], json!(0.00028));
    assert_eq!(agent.end().await.2, Some(0));
    assert_eq!(std::fs::read(place.file()).unwrap(), before);
    let text = std::fs::read_to_string(path(&place, FORK)).unwrap();
    assert!(!text.contains(ID), "nothing in it names the old session");
    // It is a conversation as any other then, and its prompts are known.
    let mut agent = place.agent(&server, &["--resume", FORK]);
    ask(&mut agent, "aaaaaaaa-0000-4000-8000-000000000005", "p5").await;
    assert_eq!(said(&server, 4), ["p1", "r1", "p2", "r2", "p3", "r3", "p4", "r", "p5"]);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_fork_that_is_asked_nothing_leaves_no_file() {
    let (server, place) = (replies().await, Place::new());
    three_turns(&server, &place).await;
    let mut agent = place.agent(&server, &["--resume", ID, "--fork-session", "--session-id", FORK]);
    agent.control("1", json!({"subtype": "initialize"})).await;
    assert_eq!(agent.end().await.2, Some(0));
    assert_eq!(std::fs::read_dir(place.file().parent().unwrap()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_conversation_is_forked_while_another_process_works_on_it() {
    let (server, place) = (replies().await, Place::new());
    let mut first = place.agent(&server, &["--session-id", ID]);
    ask(&mut first, PROMPTS[0], "p1").await;
    let mut fork = place.agent(&server, &["--resume", ID, "--fork-session", "--session-id", FORK]);
    ask(&mut fork, PROMPTS[1], "other").await;
    ask(&mut first, PROMPTS[2], "p2").await;
    assert_eq!(
        (said(&server, 1), said(&server, 2)),
        (vec!["p1".into(), "r1".into(), "other".into()], vec!["p1".into(), "r1".into(), "p2".into()])
    );
    assert_eq!((fork.end().await.2, first.end().await.2), (Some(0), Some(0)));
}

#[tokio::test]
async fn it_is_taken_up_at_an_earlier_message_with_and_without_a_fork() {
    for fork in [true, false] {
        let (server, place) = (replies().await, Place::new());
        let replies = three_turns(&server, &place).await;
        let id = if fork { FORK } else { ID };
        let mut flags = vec!["--resume", ID, "--resume-session-at", &replies[1]];
        if fork {
            flags.extend(["--fork-session", "--session-id", FORK]);
        }
        let mut agent = place.agent(&server, &flags);
        let frames = ask(&mut agent, PROMPTS[3], "p4").await;
        assert_eq!(said(&server, 3), ["p1", "r1", "p2", "r2", "p4"], "{fork}");
        assert_eq!(
            frames.last().unwrap()["total_cost_usd"],
            json!(0.00028),
            "what was left out was paid for"
        );
        assert_eq!(agent.end().await.2, Some(0));
        // The next start finds it so.
        let mut agent = place.agent(&server, &["--resume", id]);
        let frames = ask(&mut agent, "aaaaaaaa-0000-4000-8000-000000000005", "p5").await;
        assert_eq!(said(&server, 4), ["p1", "r1", "p2", "r2", "p4", "r", "p5"], "{fork}");
        assert_eq!(frames.last().unwrap()["total_cost_usd"], json!(0.00035));
        assert_eq!(agent.end().await.2, Some(0));
        // The chain of the new messages goes back past what was left out, as the SDKs' helpers walk it.
        let text = std::fs::read_to_string(path(&place, id)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let p4 = lines.into_iter().find(|line| line["uuid"] == PROMPTS[3]).unwrap();
        assert_eq!(p4["parentUuid"], json!(replies[1]));
    }
}

#[tokio::test]
async fn a_prompt_that_was_left_out_can_be_given_again() {
    let (server, place) = (replies().await, Place::new());
    let replies = three_turns(&server, &place).await;
    let flags = ["--resume", ID, "--resume-session-at", &replies[1], "--resume-drops-turn", PROMPTS[2]];
    let mut agent = place.agent(&server, &flags);
    ask(&mut agent, PROMPTS[2], "p3, better").await;
    assert_eq!(said(&server, 3), ["p1", "r1", "p2", "r2", "p3, better"]);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn what_cannot_be_taken_up_so_is_said_in_the_words_that_programs_know() {
    let (server, place) = (replies().await, Place::new());
    let replies = three_turns(&server, &place).await;
    let before = std::fs::read(place.file()).unwrap();
    let nobody = "99999999-0000-4000-8000-000000000001";
    for (flags, expected) in [
        (vec!["--resume-session-at", nobody], format!("No message found with message.uuid of: {nobody}")),
        (
            vec!["--resume-session-at", "nonsense"],
            "No message found with message.uuid of: nonsense".to_owned(),
        ),
        (
            vec!["--fork-session", "--resume-session-at", &replies[0], "--resume-drops-turn", PROMPTS[2]],
            format!(
                "Resume rejected by --resume-drops-turn: resuming at {} would discard entries",
                replies[0]
            ),
        ),
    ] {
        let agent = place.agent(&server, &[&["--resume", ID], &flags[..]].concat());
        let (frames, stderr, code) = agent.end().await;
        assert_eq!(
            (frames.len(), kind_of(&frames[0]).as_str(), code),
            (1, "result/error_during_execution", Some(1))
        );
        assert!(frames[0]["errors"][0].as_str().unwrap().starts_with(&expected), "{}", frames[0]);
        assert_eq!((&frames[0]["num_turns"], &frames[0]["is_error"]), (&json!(0), &json!(true)));
        assert!(stderr.contains(&expected), "{stderr}");
        assert_eq!(frames[0]["session_id"] == ID, !flags.contains(&"--fork-session"));
    }
    for (flags, expected) in [
        (vec!["--resume-session-at", nobody], "--resume-session-at requires --resume"),
        (
            vec!["--resume", ID, "--session-id", FORK],
            "--session-id with --continue or --resume also needs --fork-session.",
        ),
        (vec!["--resume", ID, "--fork-session", "--session-id", ID], "already in use"),
    ] {
        let (frames, stderr, code) = place.agent(&server, &flags).end().await;
        assert_eq!((frames.len(), code), (0, Some(1)));
        assert!(stderr.contains(expected), "{stderr}");
    }
    assert_eq!(std::fs::read(place.file()).unwrap(), before);
}

#[tokio::test]
async fn the_newest_conversation_is_forked_too_and_a_fork_of_nothing_is_a_new_one() {
    let (server, place) = (replies().await, Place::new());
    let mut agent = place.agent(&server, &["--fork-session"]);
    ask(&mut agent, PROMPTS[0], "p1").await;
    assert_eq!(agent.end().await.2, Some(0));
    let mut agent = place.agent(&server, &["--continue", "--fork-session"]);
    ask(&mut agent, PROMPTS[1], "p2").await;
    assert_eq!(said(&server, 1), ["p1", "r1", "p2"]);
    assert_eq!(agent.end().await.2, Some(0));
    assert_eq!(std::fs::read_dir(place.file().parent().unwrap()).unwrap().count(), 2);
}
