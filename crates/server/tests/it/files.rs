//! Files: up, down, gone; and what a crash leaves.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wardian_protocol::FileId;
use wardian_store::Scope;

use super::agents::NO_MODEL;
use super::app::{App, form};
use super::client::request;

/// How many files lie on the disk.
fn on_disk(app: &App) -> usize {
    std::fs::read_dir(app.files()).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_back_as_it_went() {
    let app = App::new(NO_MODEL).await;
    let content = "line\r\n--X\r\n".repeat(50_000);
    let up = app.upload(&app.key, &[], &form("../notes é.txt", "text/plain; charset=utf-8", &content)).await;
    assert_eq!(up.status, 200, "{up:#?}");
    let file = up.json();
    let id = file["id"].as_str().unwrap();
    let told = ["type", "filename", "mime_type", "size_bytes", "expires_at", "downloadable", "scope"];
    assert_eq!(
        told.map(|field| file[field].clone()),
        [
            json!("file"),
            json!("notes é.txt"),
            json!("text/plain"),
            json!(content.len()),
            json!(null),
            json!(true),
            json!(null)
        ]
    );
    let path = format!("/v1/files/{id}");
    assert_eq!(app.get(&app.key, &path).await.json(), file);
    let down = app.get(&app.key, &format!("{path}/content")).await;
    assert!(down.status == 200 && down.body == content, "{}", down.head);
    assert_eq!(down.header("content-type"), Some("text/plain"));
    let disposition = "attachment; filename=\"notes _.txt\"; filename*=UTF-8''notes%20%C3%A9.txt";
    assert_eq!(down.header("content-disposition"), Some(disposition));
    assert_eq!(down.header("content-security-policy"), Some("default-src 'none'; sandbox"));
    assert_eq!(
        (on_disk(&app), app.get(&app.key, "/v1/files").await.json()["data"].clone()),
        (1, json!([file]))
    );
    assert_eq!(app.delete(&app.key, &path).await.json(), json!({"id": id, "type": "file_deleted"}));
    for gone in [
        app.get(&app.key, &path).await,
        app.get(&app.key, &format!("{path}/content")).await,
        app.delete(&app.key, &path).await,
    ] {
        assert_eq!((gone.status, gone.error_type().as_str()), (404, "not_found_error"), "{gone:#?}");
    }
    assert_eq!(on_disk(&app), 0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_listed_by_id() {
    let app = App::new(NO_MODEL).await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let file = app.upload(&app.key, &[], &form(name, "text/plain", name)).await.json();
        ids.push(file["id"].as_str().unwrap().to_owned());
    }
    let unknown = FileId::from_random([7; 16]);
    let path = format!(
        "/v1/files?ids[]={}&ids[]={unknown}&ids[]=nonsense&ids[]={}&ids[]={}",
        ids[2], ids[0], ids[0]
    );
    let found = app.get(&app.key, &path).await.json();
    let seen: Vec<_> =
        found["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!((seen, &found["next_page"]), (vec![ids[2].as_str(), ids[0].as_str()], &json!(null)));
    assert_eq!(app.get(&app.key, "/v1/files?ids[]=nonsense").await.json()["data"], json!([]));
    let mixed = app.get(&app.key, &format!("/v1/files?ids[]={}&limit=5", ids[0])).await;
    assert_eq!((mixed.status, mixed.error_type().as_str()), (400, "invalid_request_error"), "{mixed:#?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_only_their_own() {
    let app = App::new(NO_MODEL).await;
    let ann = app.new_key(&[Scope::Sessions], Some("ann")).await;
    let bob = app.new_key(&[Scope::Sessions], Some("bob")).await;
    let file = app.upload(&ann, &[], &form("a", "text/plain", "secret of ann")).await.json();
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    for (key, seen) in [(&ann, 1), (&bob, 0), (&app.key, 1)] {
        assert_eq!(app.get(key, "/v1/files").await.json()["data"].as_array().unwrap().len(), seen);
        let statuses =
            [app.get(key, &path).await.status, app.get(key, &format!("{path}/content")).await.status];
        assert_eq!(statuses, if seen == 1 { [200; 2] } else { [404; 2] });
    }
    assert_eq!(app.delete(&bob, &path).await.status, 404);
    assert_eq!(app.delete(&ann, &path).await.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused_and_leaves_nothing() {
    let app = App::with(NO_MODEL, |config| {
        config.max_file_bytes = 1000;
        config.max_org_file_bytes = 2500;
    })
    .await;
    let with = |bytes: usize| form("a", "text/plain", &"x".repeat(bytes));
    for bytes in [1001, 2000, 100_000] {
        let large = app.upload(&app.key, &[], &with(bytes)).await;
        assert_eq!((large.status, large.error_type().as_str()), (413, "request_too_large"), "{large:#?}");
    }
    for _ in 0..2 {
        assert_eq!(app.upload(&app.key, &[], &with(1000)).await.status, 200);
    }
    let full = app.upload(&app.key, &[], &with(501)).await;
    assert_eq!(
        (full.status, &full.json()["error"]["details"]["error_code"]),
        (400, &json!("storage_quota_exceeded"))
    );
    let rest = with(400);
    // Many at once do not get past the limit together.
    let uploads = (0..8).map(|_| app.upload(&app.key, &[], &rest));
    let replies = futures_util::future::join_all(uploads).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "{replies:#?}");
    assert_eq!(on_disk(&app), 3);
    // The other organisation has its own limit.
    let foreign = app.foreign_key().await;
    assert_eq!(app.upload(&foreign, &[], &with(1000)).await.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_say_how_long_it_is_kept() {
    let expiring = |seconds: &str| {
        let end = "\r\n--XX--\r\n";
        let plain = form("a", "text/plain", "content");
        let more = format!(
            "\r\n--XX\r\nContent-Disposition: form-data; name=\"expires_in_seconds\"\r\n\r\n{seconds}{end}"
        );
        plain.replace(end, &more)
    };
    let app = App::with(NO_MODEL, |config| {
        config.clock = || jiff::Timestamp::from_second(NOW.load(Ordering::Relaxed)).unwrap();
    })
    .await;
    for wrong in ["", "3599", "7776001", "-1", "1e4", "tomorrow", &"9".repeat(100)] {
        let reply = app.upload(&app.key, &[], &expiring(wrong)).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{reply:#?}");
        assert!(reply.body.contains("expires_in_seconds: "), "{reply:#?}");
    }
    let file = app.upload(&app.key, &[], &expiring("3600")).await.json();
    let times = ["created_at", "expires_at"]
        .map(|field| file[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    assert_eq!(times[1].duration_since(times[0]), jiff::SignedDuration::from_secs(3600));
    let path = format!("/v1/files/{}/content", file["id"].as_str().unwrap());
    assert_eq!(app.get(&app.key, &path).await.body, "content");
    NOW.store(3600, Ordering::Relaxed);
    let gone = app.get(&app.key, &path).await;
    assert_eq!(
        (gone.status, &gone.json()["error"]["details"]["error_code"]),
        (404, &json!("file_expired")),
        "{gone:#?}"
    );
    app.stop().await;
    // Then it is deleted.
    let app = app.serve_again().await;
    while on_disk(&app) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.stop().await;
}

/// Seconds since the epoch, for the test above.
static NOW: AtomicI64 = AtomicI64::new(0);

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_leaves_nothing() {
    let app = App::with(NO_MODEL, |config| config.body_timeout = Duration::from_millis(300)).await;
    let whole = form("a", "text/plain", &"x".repeat(100_000));
    let headers = [("x-api-key", app.key.as_str()), ("content-type", "multipart/form-data; boundary=XX")];
    let bytes = request("POST", "/v1/files", &headers, whole.as_bytes());
    // One leaves, one is silent.
    let mut leaving = TcpStream::connect(app.address).await.unwrap();
    leaving.write_all(&bytes[..50_000]).await.unwrap();
    drop(leaving);
    let silent = super::client::send(app.address, &bytes[..50_000], false).await;
    assert_eq!((silent.status, silent.error_type().as_str()), (408, "timeout_error"), "{silent:#?}");
    while on_disk(&app) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(app.get(&app.key, "/v1/files").await.json()["data"], json!([]));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_start_removes_what_a_crash_left() {
    let app = App::new(NO_MODEL).await;
    let kept = app.upload(&app.key, &[], &form("a", "text/plain", "kept")).await.json();
    let kept = kept["id"].as_str().unwrap();
    let lost = FileId::from_random([7; 16]);
    app.stop().await;
    std::fs::write(app.files().join(".upload-0000"), "half").unwrap();
    std::fs::write(app.files().join(lost.as_str()), "no row").unwrap();
    let app = app.serve_again().await;
    while on_disk(&app) > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(app.get(&app.key, &format!("/v1/files/{kept}/content")).await.body, "kept");
    app.stop().await;
}
