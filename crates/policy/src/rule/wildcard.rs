//! Texts with `*`.

use super::Flaw;

/// A pattern over a whole text, in which `*` stands for anything, also nothing.
#[derive(Clone, Debug)]
pub(crate) struct Wildcard {
    /// What stands between the stars, in order; a pattern without stars has one piece.
    pieces: Vec<String>,
    /// Ends in a `*` behind a space: what comes before may also stand alone, since `git *` means git with or without
    /// arguments.
    or_alone: bool,
}

impl Wildcard {
    /// Reads the specifier of a `Bash` rule: an exact command, `prefix:*`, or `*` anywhere. `\*` is a star itself.
    pub(super) fn command(text: &str) -> Result<Self, Flaw> {
        let trimmed = text.trim();
        // `git:*` is another spelling of `git *`.
        let (head, prefix) = match trimmed.strip_suffix(":*") {
            Some(head) => (head, true),
            None => (trimmed, false),
        };
        if let Some(at) = head.find(":*") {
            return Err(Flaw {
                at,
                problem: "a :* that is not at the end",
                hint: "use a plain * within a command",
            });
        }
        if prefix && head.trim().is_empty() {
            return Err(Flaw {
                at: 0,
                problem: "no command before the :*",
                hint: "write Bash to name every command",
            });
        }
        let mut pattern = if prefix { Self::glob(&format!("{head} *")) } else { Self::glob(trimmed) };
        let stars = pattern.pieces.len() - 1;
        let last = pattern.pieces.last().is_some_and(String::is_empty);
        pattern.or_alone = last && stars > 0 && pattern.pieces[stars - 1].ends_with(' ');
        Ok(pattern)
    }

    /// Reads any text with `*`.
    pub(super) fn glob(text: &str) -> Self {
        let mut pieces = vec![String::new()];
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match (letter, letters.peek()) {
                ('\\', Some('*' | '\\')) => pieces.last_mut().into_iter().for_each(|piece| {
                    piece.extend(letters.next());
                }),
                ('*', _) => pieces.push(String::new()),
                _ => pieces.last_mut().into_iter().for_each(|piece| piece.push(letter)),
            }
        }
        Self { pieces, or_alone: false }
    }

    /// Whether it matches everything: `*`.
    pub(crate) fn matches_all(&self) -> bool {
        self.pieces.len() > 1 && self.pieces.iter().all(String::is_empty)
    }

    /// Whether it has no `*`.
    pub(crate) fn is_exact(&self) -> bool {
        self.pieces.len() == 1
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        if self.or_alone && self.matches_pieces(&format!("{text} ")) {
            return true;
        }
        self.matches_pieces(text)
    }

    fn matches_pieces(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.pieces.as_slice() else {
            return self.pieces.first().is_some_and(|only| only == text);
        };
        let Some(rest) = text.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()))
        else {
            return false;
        };
        // The leftmost place for each piece leaves the most room for the next.
        let place = |rest: &str, piece: &String| rest.find(piece.as_str()).map(|at| at + piece.len());
        middle
            .iter()
            .try_fold(rest, |rest, piece| place(rest, piece).and_then(|end| rest.get(end..)))
            .is_some()
    }

    /// Whether it could match some text that begins with `known`.
    pub(crate) fn could_match(&self, known: &str) -> bool {
        let literal = self.pieces.first().map_or("", String::as_str).trim_end();
        known.starts_with(literal) || literal.starts_with(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Wildcard {
        Wildcard::command(text).ok().unwrap()
    }

    #[test]
    fn stars_spaces_and_word_boundaries() {
        for (pattern, yes, no) in [
            ("git status", &["git status"][..], &["git status -s", "git", "git statuses", ""][..]),
            ("git:*", &["git", "git push", "git  x"], &["gitk", "git-lfs", "agit", "git\tx"]),
            ("npm run test:*", &["npm run test", "npm run test -- x"], &["npm run tests", "npm run"]),
            ("ls *", &["ls", "ls -la", "ls "], &["lsof", "l", "als x"]),
            ("ls*", &["ls", "lsof", "ls -la"], &["l", "als"]),
            ("git * main", &["git push main", "git a b main"], &["git main", "git push mainx", "git  "]),
            ("* --help", &["x --help", "a b --help"], &["--help", "x --helpme"]),
            ("a*b*c", &["abc", "a b c", "abbcc"], &["acb", "ab", "bc"]),
            ("a*a", &["aa", "aba"], &["a", ""]),
            (r"echo \*", &["echo *"], &["echo x", "echo"]),
            (r"echo \\*", &[r"echo \", r"echo \x"], &["echo *"]),
        ] {
            let pattern_read = command(pattern);
            for text in yes {
                assert!(pattern_read.matches(text), "{pattern:?} should match {text:?}");
            }
            for text in no {
                assert!(!pattern_read.matches(text), "{pattern:?} should not match {text:?}");
            }
        }
    }

    #[test]
    fn what_could_still_match() {
        assert!(command("git push:*").could_match("git "));
        assert!(command("git push:*").could_match("git push --"));
        assert!(!command("git push:*").could_match("git pull "));
        assert!(!command("rm:*").could_match("echo "));
        assert!(command("*rm*").could_match("echo "));
    }
}
