//! The examples of `docs/model-scripts.md` are scripts that run.

use crate::client::{ask, send, serve};

const PAGE: &str = include_str!("../../../../docs/model-scripts.md");

/// One example: what stands after the fence, and the script.
struct Example {
    ask: String,
    status: u16,
    script: serde_json::Value,
}

fn examples() -> Vec<Example> {
    let blocks = PAGE.split("\n```json ").skip(1).map(|rest| {
        let (info, rest) = rest.split_once('\n').unwrap();
        let (script, _) = rest.split_once("\n```").unwrap();
        let ask = info.split('"').nth(1).unwrap().to_owned();
        let status = info.split_once("status=").map_or(200, |(_, status)| status.parse().unwrap());
        Example { ask, status, script: serde_json::from_str(script).unwrap() }
    });
    blocks.collect()
}

#[tokio::test]
async fn every_example_parses_and_answers() {
    let examples = examples();
    assert_eq!(examples.len(), PAGE.matches("```json").count());
    assert!(examples.len() >= 5);
    for example in examples {
        for stream in [true, false] {
            let server = serve(&example.script).await;
            let answer = send(&server, &ask(&example.ask, stream)).await;
            assert_eq!(answer.status, example.status, "{}", example.script);
            assert!(answer.complete);
        }
    }
}

#[test]
fn every_field_of_the_page_exists_and_every_field_is_on_the_page() {
    // An unknown field makes the parser list what it knows.
    let known = |script: &str| {
        let problem = wardian_model::Script::parse(script).unwrap_err().to_string();
        let (_, list) = problem.split_once("known are ").unwrap();
        list.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    let fields =
        [r#"{"replies": [], "?": 1}"#, r#"{"replies": [{"text": "a", "?": 1}]}"#].map(known).concat();
    for field in &fields {
        assert!(PAGE.contains(&format!("`{field}")), "{field} is not documented");
    }
    let rows =
        PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name);
    for name in rows {
        let name = name.strip_prefix("match.").map_or(name, |_| "match");
        assert!(fields.iter().any(|field| field == name), "{name} is documented and does not exist");
    }
}
