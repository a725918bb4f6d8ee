//! Part of a text by lines, held within bounds however long the text and its lines are.

use crate::tools::text::json_bytes;

/// Takes a text in chunks of any size and keeps the lines that are asked for.
///
/// Lines are what lies between line feeds, so a text that ends in one has an empty last line.
#[derive(Debug)]
pub struct Window {
    page: Page,
    max_lines: usize,
    bytes_left: usize,
    line_chars: usize,
    /// The line that is being fed: its start, up to what can be shown, and how long it is.
    line: Vec<u8>,
    line_bytes: usize,
    empty: bool,
    full: bool,
}

/// The lines kept.
#[derive(Debug, Default)]
pub struct Page {
    /// The number of the first line, from 1.
    pub first: usize,
    pub lines: Vec<String>,
    /// Lines of the whole text; none when it is empty.
    pub total_lines: usize,
    lossy: bool,
    cut_lines: usize,
}

impl Window {
    /// A window of at most so many lines from line `first`, and so many bytes, counted as they are in JSON.
    pub fn new(first: usize, max_lines: usize, max_bytes: usize, line_chars: usize) -> Self {
        Self {
            page: Page { first, ..Page::default() },
            max_lines,
            bytes_left: max_bytes,
            line_chars,
            line: Vec::new(),
            line_bytes: 0,
            empty: true,
            full: false,
        }
    }

    /// Takes the next piece of the text.
    pub fn feed(&mut self, chunk: &[u8]) {
        if !chunk.is_empty() {
            self.empty = false;
        }
        let mut rest = chunk;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.extend_line(&rest[..end]);
            self.end_line();
            rest = &rest[end + 1..];
            if self.full {
                // Nothing is kept any more: only count.
                self.page.total_lines += memchr::memchr_iter(b'\n', rest).count();
                return;
            }
        }
        self.extend_line(rest);
    }

    /// Ends the text.
    pub fn page(mut self) -> Page {
        if !self.empty {
            self.end_line();
        }
        self.page
    }

    fn extend_line(&mut self, part: &[u8]) {
        self.line_bytes += part.len();
        // A character is at most four bytes.
        let room = (self.line_chars * 4 + 4).saturating_sub(self.line.len());
        if !self.full && self.page.total_lines + 1 >= self.page.first {
            self.line.extend_from_slice(&part[..part.len().min(room)]);
        }
    }

    fn end_line(&mut self) {
        self.page.total_lines += 1;
        if !self.full && self.page.total_lines >= self.page.first {
            self.keep_line();
        }
        self.line.clear();
        self.line_bytes = 0;
    }

    fn keep_line(&mut self) {
        if self.page.lines.len() == self.max_lines {
            self.full = true;
            return;
        }
        let mut bytes = self.line.as_slice();
        if self.page.total_lines == 1 {
            bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        }
        bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let text = String::from_utf8_lossy(bytes);
        let cut = text.char_indices().nth(self.line_chars).map(|(at, _)| at);
        let shown = match cut {
            Some(at) => format!("{}… [{} bytes in this line]", &text[..at], self.line_bytes),
            None => text.clone().into_owned(),
        };
        let cost = json_bytes(&shown) + 8;
        // At least one line, or reading on would never get anywhere.
        if cost > self.bytes_left && !self.page.lines.is_empty() {
            self.full = true;
            return;
        }
        self.page.lossy |= text.contains('\u{fffd}');
        self.page.cut_lines += usize::from(cut.is_some());
        self.bytes_left = self.bytes_left.saturating_sub(cost);
        self.page.lines.push(shown);
    }
}

impl Page {
    /// The lines as one text.
    pub fn content(&self) -> String {
        self.lines.join("\n")
    }

    /// The numbered lines and what is to be known about them.
    pub fn text(&self, given: &str, whole: bool) -> String {
        let at_least = if whole { "" } else { "at least " };
        if self.total_lines == 0 {
            return format!("[{given} exists, and is empty]");
        }
        if self.lines.is_empty() {
            return format!(
                "[nothing at line {}: {given} has {at_least}{} lines]",
                self.first, self.total_lines
            );
        }
        let numbered: Vec<_> =
            self.lines.iter().zip(self.first..).map(|(line, number)| format!("{number}\t{line}")).collect();
        let mut text = numbered.join("\n");
        let next = self.first + self.lines.len();
        if next <= self.total_lines {
            text.push_str(&format!(
                "\n\n[{given} has {at_least}{} lines; to read on, set offset to {next}]",
                self.total_lines
            ));
        }
        if self.cut_lines > 0 {
            text.push_str(&format!("\n\n[{} long lines are cut]", self.cut_lines));
        }
        if self.lossy {
            text.push_str("\n\n[some bytes are not UTF-8, and shown as \u{fffd}]");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(text: &[u8], chunk: usize, first: usize, lines: usize, bytes: usize, chars: usize) -> Page {
        let mut window = Window::new(first, lines, bytes, chars);
        text.chunks(chunk).for_each(|chunk| window.feed(chunk));
        window.page()
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same(
            text in "[a-cé\n\r]{0,60}", chunk in 1..9_usize, first in 1..12_usize, lines in 1..12_usize
        ) {
            let all: Vec<&str> = if text.is_empty() { vec![] } else { text.split('\n').collect() };
            let expected: Vec<_> =
                all.iter().skip(first - 1).take(lines).map(|l| l.strip_suffix('\r').unwrap_or(l)).collect();
            let page = page(text.as_bytes(), chunk, first, lines, 10_000, 100);
            prop_assert_eq!(page.lines, expected);
            prop_assert_eq!(page.total_lines, all.len());
        }
    }

    #[test]
    fn the_page_ends_where_its_bytes_do() {
        let text = "\u{1}\u{1}\n".repeat(100);
        let page = page(text.as_bytes(), 7, 1, 1_000, 100, 1_000);
        // Each line costs 12 in JSON and 8 for its number.
        assert_eq!(page.lines.len(), 5);
        assert_eq!(page.total_lines, 101);
        assert!(page.text("f", true).ends_with("[f has 101 lines; to read on, set offset to 6]"));
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let text = format!("{}\nb", "é".repeat(50_000));
        let page = page(text.as_bytes(), 1_000, 1, 10, 10_000, 10);
        assert_eq!(page.lines, ["éééééééééé… [100000 bytes in this line]", "b"]);
        assert_eq!(
            page.text("f", true),
            "1\téééééééééé… [100000 bytes in this line]\n2\tb\n\n[1 long lines are cut]"
        );
    }
}
