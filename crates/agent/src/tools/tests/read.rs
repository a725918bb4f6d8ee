use std::io::Write as _;

use serde_json::json;

use super::{Place, text};
use crate::tool::ToolLimits;

#[tokio::test]
async fn lines_are_numbered() {
    let place = Place::new();
    let path = place.put("a.txt", "one\ntwo\n");
    let output = place.call("Read", json!({"file_path": path})).await;
    assert_eq!(output.content, json!("1\tone\n2\ttwo\n3\t"));
    assert_eq!(
        output.structured,
        json!({"type": "text", "file": {
            "filePath": path, "content": "one\ntwo\n", "numLines": 3, "startLine": 1, "totalLines": 3,
        }})
    );
    assert!(!output.is_error);
}

#[tokio::test]
async fn parts_of_a_file() {
    let place = Place::new();
    place.put("f", "a\nb\nc\nd");
    for (input, expected) in [
        (json!({}), "1\ta\n2\tb\n3\tc\n4\td"),
        (json!({"offset": 0}), "1\ta\n2\tb\n3\tc\n4\td"),
        (json!({"offset": 1, "limit": 1}), "1\ta\n\n[f has 4 lines; to read on, set offset to 2]"),
        (json!({"offset": 3}), "3\tc\n4\td"),
        (json!({"offset": 3, "limit": 100}), "3\tc\n4\td"),
        (json!({"offset": "2", "limit": "2"}), "2\tb\n3\tc\n\n[f has 4 lines; to read on, set offset to 4]"),
        (json!({"offset": 5}), "[nothing at line 5: f has 4 lines]"),
        (json!({"offset": 4_000_000_000_u64}), "[nothing at line 4000000000: f has 4 lines]"),
        (json!({"limit": 9_000_000_000_000_000_000_u64}), "1\ta\n2\tb\n3\tc\n4\td"),
        (json!({"allow_large": true}), "1\ta\n2\tb\n3\tc\n4\td"),
    ] {
        let mut input = input;
        input["file_path"] = json!("f");
        assert_eq!(place.ok("Read", input.clone()).await, expected, "{input}");
    }
}

#[tokio::test]
async fn kinds_of_text() {
    let place = Place::new();
    for (bytes, expected) in [
        (b"".as_slice(), "[f exists, and is empty]"),
        (b"\n", "1\t\n2\t"),
        (b"x", "1\tx"),
        (b"a\r\nb\r\n", "1\ta\n2\tb\n3\t"),
        (b"\xef\xbb\xbfa", "1\ta"),
        (b"caf\xe9", "1\tcaf\u{fffd}\n\n[some bytes are not UTF-8, and shown as \u{fffd}]"),
        ("é😀".as_bytes(), "1\té😀"),
    ] {
        place.put("f", bytes);
        assert_eq!(place.ok("Read", json!({"file_path": "f"})).await, expected, "{bytes:?}");
    }
}

#[tokio::test]
async fn long_files_and_lines_are_cut() {
    let place =
        Place::with_limits(ToolLimits { read_lines: 10, read_line_chars: 5, ..ToolLimits::default() });
    place.put("f", "1234567\n".repeat(20));
    let text = place.ok("Read", json!({"file_path": "f"})).await;
    assert!(text.starts_with("1\t12345… [7 bytes in this line]\n2\t"), "{text}");
    assert!(
        text.ends_with("\n\n[f has 21 lines; to read on, set offset to 11]\n\n[10 long lines are cut]"),
        "{text}"
    );
    assert_eq!(place.ok("Read", json!({"file_path": "f", "allow_large": true})).await.lines().count(), 23);
}

#[tokio::test]
async fn one_read_stays_far_below_a_protocol_line() {
    let place = Place::new();
    place.put("f", "\u{1}\n".repeat(50_000));
    for (input, most) in
        [(json!({"file_path": "f"}), 250_000), (json!({"file_path": "f", "allow_large": true}), 950_000)]
    {
        let output = place.call("Read", input).await;
        let line = output.content.to_string().len() + output.structured.to_string().len();
        assert!(line < most, "{line}");
        assert!(text(&output).contains("to read on, set offset to"));
    }
}

#[tokio::test]
async fn a_file_over_the_limit_is_read_in_parts() {
    let place = Place::with_limits(ToolLimits { file_bytes: 1_000, ..ToolLimits::default() });
    let lines: String = (1..=1_000).map(|n| format!("line {n}\n")).collect();
    place.put("f", lines);
    let error = place.fails("Read", json!({"file_path": "f"})).await;
    assert!(
        error.contains("has 8893 bytes, more than the 1000 that are read at once; give offset and limit"),
        "{error}"
    );
    assert_eq!(
        place.ok("Read", json!({"file_path": "f", "offset": 999, "limit": 1})).await,
        "999\tline 999\n\n[f has 1001 lines; to read on, set offset to 1000]"
    );
}

#[tokio::test]
async fn a_hundred_megabytes_are_read_in_parts_within_little_memory() {
    let place = Place::new();
    let file = std::fs::File::create(place.path("sparse")).unwrap();
    file.set_len(100 * 1024 * 1024).unwrap();
    // A hole reads as NUL bytes.
    let error = place.fails("Read", json!({"file_path": "sparse", "limit": 5})).await;
    assert!(error.contains("binary"), "{error}");
    // Written piece by piece, or the peak would be that of the test.
    let mut big = std::fs::File::create(place.path("big")).unwrap();
    let piece = vec![b'x'; 1024 * 1024];
    (0..100).for_each(|_| big.write_all(&piece).unwrap());
    big.write_all(b"\nlast").unwrap();
    let before = peak_memory_kb();
    let text = place.ok("Read", json!({"file_path": "big", "offset": 2, "limit": 5})).await;
    assert_eq!(text, "2\tlast");
    let text = place.ok("Read", json!({"file_path": "big", "limit": 1})).await;
    assert!(text.contains("x… [104857600 bytes in this line]") && text.len() < 3_000, "{}", text.len());
    assert!(peak_memory_kb() - before < 20_000, "{} KiB more", peak_memory_kb() - before);
}

fn peak_memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_is_no_text_is_refused_with_a_hint() {
    let place = Place::new();
    for (bytes, hint) in [
        (b"\x7fELF\x02\x01\0".as_slice(), "a program"),
        (b"PK\x03\x04abc", "unzip"),
        (b"\x1f\x8b\x08", "zcat"),
        (b"a\0b", "binary"),
        (b"\xff\xfea\0b\0", "iconv"),
        (b"GIF89a", "broken"),
        (b"\x89PNG\r\n\x1a\n", "broken"),
    ] {
        place.put("f", bytes);
        let error = place.fails("Read", json!({"file_path": "f"})).await;
        assert!(error.contains(hint), "{error}");
    }
    place.put("huge.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\0\x02\x08\x06\0\0\0");
    let error = place.fails("Read", json!({"file_path": "huge.png"})).await;
    assert!(error.contains("65535x2 pixels"), "{error}");
    let mut large = b"GIF89a\x03\0\x04\0".to_vec();
    large.resize(3_750_001, 0);
    place.put("large.gif", large);
    let error = place.fails("Read", json!({"file_path": "large.gif"})).await;
    assert!(error.contains("3750001 bytes"), "{error}");
}

#[tokio::test]
async fn images_are_shown() {
    let place = Place::new();
    place.put("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x02\x08\x06\0\0\0");
    let output = place.call("Read", json!({"file_path": "a.png"})).await;
    let data = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAACCAYAAAA=";
    assert_eq!(
        output.content,
        json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}])
    );
    assert_eq!(
        output.structured,
        json!({"type": "image", "file": {
            "base64": data, "type": "image/png", "originalSize": 29,
            "dimensions": {"originalWidth": 1, "originalHeight": 2},
        }})
    );
    let mut large = b"GIF89a\x03\0\x04\0".to_vec();
    large.resize(400_000, 0);
    place.put("b.gif", large);
    let output = place.call("Read", json!({"file_path": "b.gif"})).await;
    assert_eq!(output.structured["file"]["base64"], "");
    assert!(output.content[0]["source"]["data"].as_str().unwrap().len() > 500_000);
}

#[tokio::test]
async fn what_is_not_there_is_told_with_a_hint() {
    let place = Place::new();
    place.put("src/Main.rs", "x");
    assert_eq!(
        place.fails("Read", json!({"file_path": "nope"})).await,
        format!("nope does not exist. The working directory is {}.", place.cwd.display())
    );
    let error = place.fails("Read", json!({"file_path": "src/main.py"})).await;
    assert!(error.ends_with(&format!("Did you mean {}?", place.path("src/Main.rs").display())), "{error}");
    for (path, says) in [
        ("", "the path is empty"),
        ("a\0b", "NUL byte"),
        ("src", "is a folder"),
        ("src/Main.rs/x", "Not a directory"),
        (&"x".repeat(10_000), "too long"),
        (&"x/".repeat(5_000), "too long"),
    ] {
        let error = place.fails("Read", json!({"file_path": path})).await;
        assert!(error.contains(says), "{error}");
    }
}
