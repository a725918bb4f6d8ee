use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::Place;
use crate::tool::ToolLimits;

/// Edits a file that was read before, and gives the text and what the file holds then.
async fn edit(before: &str, old: &str, new: &str, all: bool) -> (bool, String, String) {
    let place = Place::new();
    place.put("f", before);
    place.ok("Read", json!({"file_path": "f"})).await;
    let input = json!({"file_path": "f", "old_string": old, "new_string": new, "replace_all": all});
    let output = place.call("Edit", input).await;
    (!output.is_error, super::text(&output), place.get("f"))
}

#[tokio::test]
async fn what_is_replaced() {
    for (before, old, new, all, after) in [
        ("a\nb\nc\n", "b", "x", false, "a\nx\nc\n"),
        ("a\nb\nc\n", "b\n", "", false, "a\nc\n"),
        ("a\nb\nb\n", "b", "x", true, "a\nx\nx\n"),
        ("aaa", "aa", "b", true, "ba"),
        ("", "", "new", false, "new"),
        ("é😀", "😀", "é", false, "éé"),
        ("a.b*c", ".b*", "$1", false, "a$1c"),
        // Lines that end in CRLF stay so, whatever the model writes.
        ("a\r\nb\r\n", "a\nb", "x\ny\nz", false, "x\r\ny\r\nz\r\n"),
        ("a\r\nb\r\n", "a\r\nb", "x\r\ny", false, "x\r\ny\r\n"),
        ("a\r\nb\r\n", "b", "x\ny", false, "a\r\nx\r\ny\r\n"),
        // Mixed ones too, as far as they are not touched.
        ("a\r\nb\nc\n", "b\nc", "x\ny", false, "a\r\nx\ny\n"),
        ("a\nb\r\nc\n", "a", "x\ny", false, "x\ny\nb\r\nc\n"),
        ("\u{feff}a\n", "a", "b", false, "\u{feff}b\n"),
    ] {
        let (ok, text, now) = edit(before, old, new, all).await;
        assert!(ok, "{text}");
        assert_eq!(now, after, "{before:?} {old:?} {new:?}");
    }
}

#[tokio::test]
async fn what_is_refused() {
    for (before, old, new, all, says) in [
        ("a", "a", "a", false, "the same"),
        ("a", "", "b", false, "old_string is empty"),
        ("a", "b", "c", false, "does not occur in it; read it again"),
        ("a\n  b\n  c\n", "b\nc", "x", false, "at line 2 when white space is not compared"),
        ("a\nb\n", "1\ta\n2\tb", "x", false, "leave out the line numbers"),
        ("aa", "a", "b", false, "occurs 2 times"),
        ("a", "b", "c", true, "does not occur"),
        ("a\n", "a\r\n", "b", false, "does not occur"),
    ] {
        let (ok, text, now) = edit(before, old, new, all).await;
        assert!(!ok && text.contains(says), "{text}");
        assert_eq!(now, before);
    }
}

#[tokio::test]
async fn programs_get_the_change() {
    let place = Place::new();
    let path = place.put("f", "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    place.ok("Read", json!({"file_path": path})).await;
    let input = json!({"file_path": path, "old_string": "5", "new_string": "five"});
    let output = place.call("Edit", input).await;
    assert_eq!(output.content, json!(format!("Edited {} at line 5.", path.display())));
    assert_eq!(
        output.structured,
        json!({
            "filePath": path, "oldString": "5", "newString": "five",
            "originalFile": "1\n2\n3\n4\n5\n6\n7\n8\n9\n",
            "structuredPatch": [{"oldStart": 2, "oldLines": 7, "newStart": 2, "newLines": 7,
                "lines": [" 2", " 3", " 4", "-5", "+five", " 6", " 7", " 8"]}],
            "userModified": false, "replaceAll": false,
        })
    );
    // Edits follow each other without reading again.
    place.ok("Edit", json!({"file_path": path, "old_string": "five", "new_string": "5"})).await;
    let all = json!({"file_path": path, "old_string": "\n", "new_string": ",", "replace_all": true});
    let output = place.call("Edit", all).await;
    assert_eq!(output.content, json!(format!("Edited {} in 9 places, the first at line 1.", path.display())));
    assert_eq!(output.structured["replaceAll"], true);
}

#[tokio::test]
async fn what_was_not_read_or_has_changed_is_refused() {
    let place = Place::new();
    let path = place.put("f", "abc");
    let input = json!({"file_path": "f", "old_string": "b", "new_string": "x"});
    assert!(place.fails("Edit", input.clone()).await.contains("has not been read yet"));
    place.ok("Read", json!({"file_path": path})).await;
    std::fs::write(&path, "abcd").unwrap();
    assert!(place.fails("Edit", input.clone()).await.contains("has changed since it was read"));
    assert_eq!(place.get("f"), "abcd");
    place.ok("Read", json!({"file_path": "./f"})).await;
    place.ok("Edit", input).await;
    assert_eq!(place.get("f"), "axcd");
}

#[tokio::test]
async fn a_new_file_by_an_empty_text() {
    let place = Place::new();
    let input = json!({"file_path": "d/f", "old_string": "", "new_string": "x\n"});
    let output = place.call("Edit", input.clone()).await;
    assert!(!output.is_error);
    assert_eq!(output.structured["structuredPatch"][0]["lines"], json!(["+x"]));
    assert_eq!(place.get("d/f"), "x\n");
    assert!(place.fails("Edit", input).await.contains("old_string is empty"));
    let missing = json!({"file_path": "nope", "old_string": "a", "new_string": "x"});
    assert!(place.fails("Edit", missing).await.starts_with("nope does not exist"));
}

#[tokio::test]
async fn other_encodings_stay_as_they_are() {
    let place = Place::new();
    place.put("f", b"caf\xe9\nname = 1\n");
    place.ok("Read", json!({"file_path": "f"})).await;
    place.ok("Edit", json!({"file_path": "f", "old_string": "name = 1", "new_string": "name = 2"})).await;
    assert_eq!(std::fs::read(place.path("f")).unwrap(), b"caf\xe9\nname = 2\n");
}

#[tokio::test]
async fn a_change_that_grows_too_far_is_refused_before_it_is_made() {
    let place = Place::with_limits(ToolLimits { file_bytes: 100_000, ..ToolLimits::default() });
    place.put("f", "a".repeat(90_000));
    place.ok("Read", json!({"file_path": "f", "limit": 1})).await;
    let grows = |text: &str| -> Value {
        json!({"file_path": "f", "old_string": "a", "new_string": text, "replace_all": true})
    };
    let error = place.fails("Edit", grows(&"b".repeat(90_000))).await;
    assert!(error.contains("8100000000 bytes"), "{error}");
    place.ok("Edit", grows("b")).await;
}

#[tokio::test]
async fn a_file_made_read_only_stays() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let path = place.put("f", "a");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    place.ok("Read", json!({"file_path": "f"})).await;
    let error = place.fails("Edit", json!({"file_path": "f", "old_string": "a", "new_string": "b"})).await;
    assert!(error.contains("Permission denied"), "{error}");
}
