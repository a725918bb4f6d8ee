//! The difference between two texts, as programs get it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::{ChangeTag, DiffOp, group_diff_ops};

/// Lines around each change.
const CONTEXT_LINES: usize = 3;

/// How long may be searched for a short difference; after that it is only correct.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Texts longer than this, in bytes, are left out of what programs get: a line of the protocol stays under 1 MiB
/// (reference, section 2.1), and it holds the old text, the new one and the patch.
pub const TEXT_BYTES: usize = 192 * 1024;

/// Returns the lines of a text, each with its end.
pub fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Returns how the new lines come from the old ones; within the time the shortest way.
///
/// One algorithm, called by its name: `TextDiff` compiles all of them into the program, 700 KB.
pub fn difference(old: &[&str], new: &[&str], time: Duration) -> Vec<DiffOp> {
    let mut found = Compact::new(Replace::new(Capture::new()), old, new);
    let deadline = Some(Instant::now() + time);
    let Ok(()) = myers::diff_deadline(&mut found, old, 0..old.len(), new, 0..new.len(), deadline);
    found.into_inner().into_inner().into_ops()
}

/// Returns the hunks of a unified diff. Empty when nothing changed, or when they would be too long.
pub fn structured(old: &str, new: &str) -> Value {
    let (old, new) = (lines(old), lines(new));
    let mut bytes = 0;
    let mut hunks = Vec::new();
    for ops in group_diff_ops(difference(&old, &new, TIMEOUT), CONTEXT_LINES) {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else { continue };
        let mut lines = Vec::new();
        for change in ops.iter().flat_map(|op| op.iter_changes(&old[..], &new[..])) {
            let text = change.value();
            bytes += text.len();
            if bytes > TEXT_BYTES {
                return json!([]);
            }
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            let whole = text.strip_suffix('\n');
            let shown = whole.unwrap_or(text);
            lines.push(format!("{sign}{}", shown.strip_suffix('\r').unwrap_or(shown)));
            if whole.is_none() {
                lines.push("\\ No newline at end of file".to_owned());
            }
        }
        hunks.push(json!({
            "oldStart": first.old_range().start + 1,
            "oldLines": last.old_range().end - first.old_range().start,
            "newStart": first.new_range().start + 1,
            "newLines": last.new_range().end - first.new_range().start,
            "lines": lines,
        }));
    }
    Value::Array(hunks)
}

/// Returns the text for a program, or null when it is too long.
pub fn text_or_null(text: &str) -> Value {
    if text.len() > TEXT_BYTES { Value::Null } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_are_those_of_a_unified_diff() {
        let old: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("\n5\n", "\nfive\nand a half\n").replace("20\n", "20");
        assert_eq!(
            structured(&old, &new),
            json!([
                {"oldStart": 2, "oldLines": 7, "newStart": 2, "newLines": 8,
                 "lines": [" 2", " 3", " 4", "-5", "+five", "+and a half", " 6", " 7", " 8"]},
                {"oldStart": 17, "oldLines": 4, "newStart": 18, "newLines": 4,
                 "lines": [" 17", " 18", " 19", "-20", "+20", "\\ No newline at end of file"]},
            ])
        );
        assert_eq!(structured(&old, &old), json!([]));
        assert_eq!(structured("", ""), json!([]));
        assert_eq!(structured("a\r\n", "b\r\n")[0]["lines"], json!(["-a", "+b"]));
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let long = "x".repeat(TEXT_BYTES + 1);
        assert_eq!(structured("", &long), json!([]));
        assert_eq!(text_or_null(&long), Value::Null);
        assert_eq!(text_or_null("a"), json!("a"));
    }
}
