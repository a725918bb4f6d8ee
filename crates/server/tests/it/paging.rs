//! Lists: every thing once, in order, whatever happens between the pages.

use serde_json::{Value, json};

use super::agents::NO_MODEL;
use super::app::{App, form};

/// Walks a list with pages of this size; the ids in order.
async fn walk(app: &App, list: &str, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut path = format!("{list}limit={limit}");
    loop {
        let page = app.get(&app.key, &path).await;
        assert_eq!(page.status, 200, "{page:#?}");
        let page = page.json();
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= limit);
        ids.extend(data.iter().map(|one| one["id"].as_str().unwrap().to_owned()));
        match page["next_page"].as_str() {
            Some(next) => path = format!("{list}limit={limit}&page={next}"),
            None => return ids,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_walked_to_their_end() {
    let app = App::new(NO_MODEL).await;
    for (route, body) in
        [("agents", json!({"name": "x", "model": "haiku"})), ("environments", json!({"name": "x"}))]
    {
        let path = format!("/v1/{route}");
        let mut made = Vec::new();
        for _ in 0..7 {
            let reply = app.post(&app.key, &path, &body).await.json();
            made.push(reply["id"].as_str().unwrap().to_owned());
        }
        made.reverse();
        for limit in [1, 3, 6, 7, 8] {
            assert_eq!(walk(&app, &format!("{path}?"), limit).await, made, "{limit}");
        }
        // What is made or goes while somebody walks changes nothing of the rest.
        let first = app.get(&app.key, &format!("{path}?limit=3")).await.json();
        app.post(&app.key, &path, &body).await;
        app.call(&app.key, "POST", &format!("{path}/{}/archive", made[2]), &[], &Value::Null).await;
        let next = first["next_page"].as_str().unwrap();
        let second = app.get(&app.key, &format!("{path}?limit=3&page={next}")).await.json();
        let seen: Vec<_> =
            second["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(seen, made[3..6]);
    }
    for number in 0..5 {
        app.upload(&app.key, &[], &form(&format!("{number}.txt"), "text/plain", "x")).await;
    }
    assert_eq!(walk(&app, "/v1/files?", 2).await.len(), 5);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_walked_too() {
    let app = App::new(NO_MODEL).await;
    let made = app.post(&app.key, "/v1/agents", &json!({"name": "0", "model": "haiku"})).await.json();
    let path = format!("/v1/agents/{}", made["id"].as_str().unwrap());
    for number in 1..5 {
        app.post(&app.key, &path, &json!({"name": number.to_string()})).await;
    }
    let first = app.get(&app.key, &format!("{path}/versions?limit=3")).await.json();
    let next = first["next_page"].as_str().unwrap();
    let second = app.get(&app.key, &format!("{path}/versions?limit=3&page={next}")).await.json();
    let versions = |page: &Value| -> Vec<u64> {
        page["data"].as_array().unwrap().iter().map(|one| one["version"].as_u64().unwrap()).collect()
    };
    assert_eq!((versions(&first), versions(&second)), (vec![5, 4, 3], vec![2, 1]));
    assert_eq!(second["next_page"], Value::Null);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_fits_one_list_of_one_organisation() {
    let app = App::new(NO_MODEL).await;
    for _ in 0..2 {
        app.post(&app.key, "/v1/agents", &json!({"name": "x", "model": "haiku"})).await;
    }
    let page = app.get(&app.key, "/v1/agents?limit=1").await.json();
    let cursor = page["next_page"].as_str().unwrap();
    assert_eq!(app.get(&app.key, &format!("/v1/agents?limit=50&page={cursor}")).await.status, 200);
    let foreign = app.foreign_key().await;
    for (key, path) in [
        (&app.key, format!("/v1/agents?include_archived=true&page={cursor}")),
        (&app.key, format!("/v1/agents?created_at[gte]=2020-01-01&page={cursor}")),
        (&app.key, format!("/v1/environments?page={cursor}")),
        (&app.key, format!("/v1/files?page={cursor}")),
        (&app.key, format!("/v1/agents?page={}", &cursor[2..])),
        (&foreign, format!("/v1/agents?page={cursor}")),
    ] {
        let reply = app.get(key, &path).await;
        assert_eq!(
            (reply.status, reply.error_type().as_str()),
            (400, "invalid_request_error"),
            "{path}: {reply:#?}"
        );
        assert!(reply.body.contains("page: "), "{reply:#?}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_by_time() {
    let app = App::new(NO_MODEL).await;
    let made = app.post(&app.key, "/v1/agents", &json!({"name": "x", "model": "haiku"})).await.json();
    let at = made["created_at"].as_str().unwrap();
    for (filter, found) in [
        (format!("created_at[gte]={at}&created_at[lte]={at}"), 1),
        (format!("created_at%5Bgte%5D={at}"), 1),
        ("created_at[lte]=2020-01-01".to_owned(), 0),
        ("created_at[gte]=2999-01-01T00:00:00%2B02:00".to_owned(), 0),
    ] {
        let list = app.get(&app.key, &format!("/v1/agents?{filter}")).await.json();
        assert_eq!(list["data"].as_array().unwrap().len(), found, "{filter}");
    }
    app.stop().await;
}
