//! Text as it is shown.

use std::borrow::Cow;
use std::path::Path;

/// What one call gives, in bytes as they are in JSON: about 25,000 tokens. The text goes twice into a line of the
/// protocol, to the model and to the program, and the line stays under 1 MiB (reference, section 2.1).
pub const PAGE_BYTES: usize = 100 * 1024;

/// Returns how long a text is inside a JSON string.
pub fn json_bytes(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'\n' | b'\r' | b'\t' | b'"' | b'\\' => 2,
            0..=0x1f => 6,
            _ => 1,
        })
        .sum()
}

/// Returns a path as it is shown: relative to the working directory where it lies in it, and on one line.
pub fn shown_path(path: &Path, cwd: &Path) -> String {
    let path = match path.strip_prefix(cwd) {
        Ok(relative) if relative.as_os_str().is_empty() => Path::new("."),
        Ok(relative) => relative,
        Err(_) => path,
    };
    let text = path.to_string_lossy();
    if text.chars().any(char::is_control) { text.escape_debug().collect() } else { text.into_owned() }
}

/// Returns bytes as text of at most so many characters. Of a longer one the part from a little before `interesting`,
/// a position in the bytes, is kept.
pub fn excerpt(bytes: &[u8], interesting: usize, max_chars: usize) -> Cow<'_, str> {
    let is_short = bytes.len() <= max_chars;
    if is_short {
        return String::from_utf8_lossy(bytes);
    }
    let mut start = interesting.saturating_sub(max_chars / 4).min(bytes.len());
    // If all of the end fits, the whole room is for it.
    start = start.min(bytes.len().saturating_sub(max_chars));
    while start > 0 && bytes[start] & 0xc0 == 0x80 {
        start -= 1;
    }
    let window = &bytes[start..bytes.len().min(start + max_chars * 4)];
    let text = String::from_utf8_lossy(window);
    let kept = text.char_indices().nth(max_chars).map_or(text.as_ref(), |(at, _)| &text[..at]);
    if start == 0 && kept.len() == bytes.len() {
        return Cow::Owned(kept.to_owned());
    }
    let before = if start > 0 { "…" } else { "" };
    Cow::Owned(format!("{before}{kept}… [{} bytes in this line]", bytes.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn excerpts_are_bounded(text in "[aé😀]{0,80}", at in 0..200_usize, max in 1..40_usize) {
            let excerpt = excerpt(text.as_bytes(), at.min(text.len()), max);
            prop_assert!(excerpt.chars().count() <= max + 40);
            if text.chars().count() <= max && text.len() <= max {
                prop_assert_eq!(excerpt.as_ref(), text.as_str());
            }
        }

        #[test]
        fn excerpts_of_anything(bytes in proptest::collection::vec(any::<u8>(), 0..99), at in 0..99_usize) {
            let _ = excerpt(&bytes, at.min(bytes.len()), 10);
        }
    }

    #[test]
    fn excerpts_show_what_is_interesting() {
        let line = format!("{}needle{}", "a".repeat(1_000), "b".repeat(1_000));
        assert_eq!(excerpt(line.as_bytes(), 1_000, 20), "…aaaaaneedlebbbbbbbbb… [2006 bytes in this line]");
        assert_eq!(excerpt(b"short", 3, 20), "short");
        assert_eq!(excerpt(b"0123456789abc", 12, 10), "…3456789abc… [13 bytes in this line]");
    }

    #[test]
    fn paths_are_shown_on_one_line() {
        let cwd = Path::new("/w");
        for (path, expected) in [
            ("/w/a/b", "a/b"),
            ("/w", "."),
            ("/x/y", "/x/y"),
            ("/w/a\nb", "a\\nb"),
            ("/w/\u{1b}[1m", "\\u{1b}[1m"),
        ] {
            assert_eq!(shown_path(Path::new(path), cwd), expected);
        }
    }
}
