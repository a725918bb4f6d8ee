//! Rust source taken apart just enough: code without its comments and texts, and the texts.

/// A file's code and texts.
#[derive(Debug)]
pub(super) struct Source {
    /// The source with every character of comments, string and character literals blanked; lines stay where they were.
    pub(super) code: String,
    /// The string literals as written, each with the line that it begins on.
    pub(super) strings: Vec<(usize, String)>,
}

impl Source {
    pub(super) fn new(text: &str) -> Self {
        let mut lexer =
            Lexer { rest: text, line: 1, source: Self { code: String::new(), strings: Vec::new() } };
        while lexer.step() {}
        lexer.source
    }

    /// Lines of code with their numbers.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }

    /// Lines on which this word stands, by itself, followed by `then`.
    pub(super) fn lines_with<'a>(&'a self, word: &'a str, then: &'a str) -> impl Iterator<Item = usize> {
        self.lines().filter(move |(_, line)| has_word(line, word, then)).map(|(number, _)| number)
    }

    /// What stands in `#[…]` and `#![…]`, each with the line that it begins on.
    pub(super) fn attributes(&self) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices('#') {
            let Some(rest) = self.code[at + 1..].trim_start_matches('!').strip_prefix('[') else { continue };
            let mut depth = 1;
            let end = rest.find(|character| {
                depth += match character {
                    '[' => 1,
                    ']' => -1,
                    _ => 0,
                };
                depth == 0
            });
            let line = self.code[..at].matches('\n').count() + 1;
            found.push((line, &rest[..end.unwrap_or(rest.len())]));
        }
        found
    }
}

/// Whether a word stands by itself in a line, followed by `then`.
pub(super) fn has_word(line: &str, word: &str, then: &str) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(at, _)| {
        let rest = &line[at + word.len()..];
        !line[..at].ends_with(part_of_word)
            && !rest.starts_with(part_of_word)
            && rest.trim_start().starts_with(then)
    })
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    source: Source,
}

impl Lexer<'_> {
    /// Takes one token; `false` at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        let before = self.source.code.chars().next_back();
        let in_word = before.is_some_and(|before| before.is_alphanumeric() || before == '_');
        if self.rest.starts_with("//") {
            let length = self.rest.find('\n').unwrap_or(self.rest.len());
            self.blank(length);
        } else if self.rest.starts_with("/*") {
            self.blank(comment(self.rest));
        } else if let Some((opening, length)) =
            string(self.rest).filter(|(opening, _)| *opening == 1 || !in_word)
        {
            self.source.strings.push((self.line, self.rest[opening..length].to_owned()));
            self.blank(length);
        } else if let Some(length) = character(self.rest) {
            self.blank(length);
        } else {
            self.line += usize::from(first == '\n');
            self.source.code.push(first);
            self.rest = &self.rest[first.len_utf8()..];
        }
        true
    }

    fn blank(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.source.code.extend(taken.chars().map(|character| if character == '\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }
}

/// The length of the block comment that the text begins with; they nest.
fn comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        let step = match rest {
            [b'/', b'*', ..] => 1,
            [b'*', b'/', ..] => -1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of the opening and of the whole of the string literal that the text begins with.
fn string(text: &str) -> Option<(usize, usize)> {
    let unprefixed = text.trim_start_matches(['b', 'c']);
    let (raw, unprefixed) = match unprefixed.strip_prefix('r') {
        Some(rest) => (true, rest),
        None => (false, unprefixed),
    };
    if text.len() - unprefixed.len() > 2 {
        return None;
    }
    let hashes = if raw { unprefixed.len() - unprefixed.trim_start_matches('#').len() } else { 0 };
    let inner = unprefixed[hashes..].strip_prefix('"')?;
    let opening = text.len() - inner.len();
    let end = if raw {
        let closing = format!("\"{}", "#".repeat(hashes));
        inner.find(&closing).map(|at| at + closing.len())
    } else {
        let mut escaped = false;
        let closing = inner.find(|character| {
            let closes = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            closes
        });
        closing.map(|at| at + 1)
    };
    Some((opening, opening + end.unwrap_or(inner.len())))
}

/// The length of the character literal that the text begins with; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        let first = escape.chars().next()?.len_utf8();
        return escape[first..].find('\'').map(|at| 2 + first + at + 1);
    }
    let length = inner.chars().next()?.len_utf8();
    inner[length..].starts_with('\'').then_some(length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_texts_and_comments() {
        let text = r###"let a = "x // y"; // "no" string
/* a /* nested "one" */ */ let b: &'static str = r#"raw "quoted" text"#; let c = ('"', '\'', b'"', '\u{41}');
let d = b"bytes\"more"; let attr"abc""###;
        let source = Source::new(text);
        let strings: Vec<_> = source.strings.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(
            strings,
            [(1, "x // y\""), (2, "raw \"quoted\" text\"#"), (3, "bytes\\\"more\""), (3, "abc\"")]
        );
        assert_eq!(source.code.lines().count(), text.lines().count());
        assert!(!source.code.contains("nested") && !source.code.contains("quoted"));
        assert!(source.code.contains("let b: &'static str"));
        assert_eq!(source.lines_with("d", "=").collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn what_has_no_end_ends_with_the_file() {
        for text in ["\"", "r#\"x\"", "/* /* */", "'\\", "//", "b'", "'"] {
            Source::new(text);
        }
    }

    #[test]
    fn attributes_are_found_across_lines() {
        let source = Source::new("#![a]\n#[b(\n  c[1],\n)]\nfn x() { y[0] }\n#[d");
        assert_eq!(source.attributes(), [(1, "a"), (2, "b(\n  c[1],\n)"), (6, "d")]);
    }
}
