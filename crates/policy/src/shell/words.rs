//! From letters to words, redirects and simple commands.

use super::{MAX_DEPTH, Redirect, Script, Simple, Word};

/// Reads from `at` to the closing `end` or the end of the letters, and adds the commands to the script.
pub(super) fn read(letters: &[char], at: &mut usize, end: Option<char>, depth: usize, script: &mut Script) {
    if depth > MAX_DEPTH {
        script.note("it nests too deep");
        *at = letters.len();
        return;
    }
    let mut reader = Reader {
        letters,
        at: *at,
        depth,
        script,
        word: None,
        simple: Simple::default(),
        awaits: None,
        documents: Vec::new(),
    };
    reader.run(end);
    *at = reader.at;
}

struct Reader<'a> {
    letters: &'a [char],
    at: usize,
    depth: usize,
    script: &'a mut Script,
    word: Option<Word>,
    simple: Simple,
    awaits: Option<Awaits>,
    /// The here-documents that begin on the next line.
    documents: Vec<Document>,
}

/// A here-document that was announced.
struct Document {
    end: String,
    /// `<<-`: tabs before lines do not count.
    indented: bool,
    /// Its end was quoted: the shell puts nothing in.
    literal: bool,
}

/// What the next word is to be.
#[derive(Clone, Copy, PartialEq)]
enum Awaits {
    Reads,
    Writes,
    /// A descriptor's number after `>&`, or a file.
    Descriptor,
    /// Text for standard input.
    Text,
    /// The end of a here-document.
    Document {
        indented: bool,
    },
}

impl Reader<'_> {
    fn run(&mut self, end: Option<char>) {
        let mut open = 0_usize;
        while let Some(letter) = self.next() {
            match letter {
                ')' if end == Some(')') && open == 0 => return self.end_command(),
                ' ' | '\t' => self.end_word(),
                '\n' => {
                    self.end_command();
                    self.skip_documents();
                }
                '#' if self.word.is_none() => self.skip_comment(),
                ';' => self.end_command(),
                '|' => {
                    self.end_command();
                    let _ = self.take('|') || self.take('&');
                }
                '&' if self.take('>') => {
                    self.end_word();
                    let _ = self.take('>');
                    self.await_word(Awaits::Writes);
                }
                '&' => {
                    self.end_command();
                    let _ = self.take('&');
                }
                '(' | ')' => {
                    self.script.note("it has a subshell or a function");
                    open = if letter == '(' { open + 1 } else { open.saturating_sub(1) };
                    self.end_command();
                }
                '<' | '>' => self.redirect(letter),
                letter => self.part_of_word(letter),
            }
        }
        self.end_command();
        if end.is_some() {
            self.script.note("a substitution does not end");
        }
    }

    fn part_of_word(&mut self, letter: char) {
        match letter {
            '\\' => match self.next() {
                Some('\n') => (),
                Some(escaped) => self.push(&['\\', escaped], Some(escaped)),
                None => self.script.note("it ends in a backslash"),
            },
            '\'' => self.single_quotes(),
            '"' => self.double_quotes(),
            '$' => self.dollar(false),
            '`' => self.backticks(),
            '*' | '?' | '[' | ']' | '{' | '}' => {
                // Alone, braces are keywords and brackets a command; in a word they expand.
                self.push(&[letter], Some(letter));
                let alone = self.letters.get(self.at).is_none_or(|next| next.is_whitespace() || *next == ';');
                let word = self.word.get_or_insert_default();
                word.expands |= matches!(letter, '*' | '?') || word.raw.chars().count() > 1 || !alone;
            }
            '~' if self.word.is_none() => {
                self.push(&[letter], Some(letter));
                self.word.get_or_insert_default().expands = true;
            }
            letter => {
                if letter.is_control() {
                    self.script.note("it has a control character");
                }
                self.push(&[letter], Some(letter));
            }
        }
    }

    fn single_quotes(&mut self) {
        self.push(&['\''], None);
        while let Some(letter) = self.next() {
            if letter == '\'' {
                return self.push(&['\''], None);
            }
            self.push(&[letter], Some(letter));
        }
        self.script.note("a quote does not end");
    }

    fn double_quotes(&mut self) {
        self.push(&['"'], None);
        while let Some(letter) = self.next() {
            match letter {
                '"' => return self.push(&['"'], None),
                '\\' => match self.next() {
                    Some('\n') => (),
                    Some(escaped @ ('$' | '`' | '"' | '\\')) => self.push(&['\\', escaped], Some(escaped)),
                    Some(other) => {
                        self.push(&['\\'], Some('\\'));
                        self.push(&[other], Some(other));
                    }
                    None => (),
                },
                '$' => self.dollar(true),
                '`' => self.backticks(),
                letter => self.push(&[letter], Some(letter)),
            }
        }
        self.script.note("a quote does not end");
    }

    /// A `$` was read, within double quotes or not.
    fn dollar(&mut self, quoted: bool) {
        match self.letters.get(self.at) {
            Some('(') => {
                self.at += 1;
                self.script.note("it has a substitution");
                read(self.letters, &mut self.at, Some(')'), self.depth + 1, self.script);
                self.expand('$');
            }
            Some('{') => {
                let name = self.letters[self.at + 1..].iter();
                let name =
                    name.take_while(|letter| letter.is_ascii_alphanumeric() || **letter == '_').count();
                if self.letters.get(self.at + 1 + name) != Some(&'}') {
                    self.script.note("it has a parameter expansion");
                }
                self.expand('$');
            }
            Some('\'' | '"') if !quoted => {
                self.script.note("it has $'…' or $\"…\" quotes");
                self.expand('$');
            }
            Some(letter) if letter.is_ascii_alphanumeric() || "_@*#?$!-".contains(*letter) => {
                self.expand('$')
            }
            Some('[') => {
                self.script.note("it has an arithmetic expansion");
                self.expand('$');
            }
            Some(_) | None => self.push(&['$'], Some('$')),
        }
    }

    /// A backtick was read: its script goes to the next one, with `\` before inner backticks.
    fn backticks(&mut self) {
        self.script.note("it has a substitution");
        let mut inner = Vec::new();
        loop {
            match self.next() {
                Some('`') => break,
                Some('\\') => inner.extend(self.next()),
                Some(letter) => inner.push(letter),
                None => {
                    self.script.note("a quote does not end");
                    break;
                }
            }
        }
        read(&inner, &mut 0, None, self.depth + 1, self.script);
        self.expand('`');
    }

    /// A `<` or `>` was read.
    fn redirect(&mut self, letter: char) {
        // A number right before names the descriptor; it is no argument.
        match &self.word {
            Some(word) if word.raw.chars().all(|letter| letter.is_ascii_digit()) => self.word = None,
            Some(_) | None => self.end_word(),
        }
        if self.take('(') {
            self.script.note("it has a process substitution");
            read(self.letters, &mut self.at, Some(')'), self.depth + 1, self.script);
            return self.expand('$');
        }
        let awaits = if letter == '>' { self.after_greater() } else { self.after_less() };
        self.await_word(awaits);
    }

    fn after_greater(&mut self) -> Awaits {
        if self.take('&') {
            return Awaits::Descriptor;
        }
        let _ = self.take('>') || self.take('|');
        Awaits::Writes
    }

    fn after_less(&mut self) -> Awaits {
        if self.take('&') {
            return Awaits::Descriptor;
        }
        if self.take('>') {
            return Awaits::Writes;
        }
        if !self.take('<') {
            return Awaits::Reads;
        }
        if self.take('<') {
            return Awaits::Text;
        }
        let indented = self.take('-');
        self.script.note("it has a here-document");
        Awaits::Document { indented }
    }

    fn await_word(&mut self, awaits: Awaits) {
        self.simple.redirected = true;
        if self.awaits.replace(awaits).is_some() {
            self.script.note("a redirect has no target");
        }
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        match self.awaits.take() {
            None => self.simple.words.push(word),
            Some(Awaits::Reads) => self.simple.redirects.push(Redirect { target: word, writes: false }),
            Some(Awaits::Writes) => self.simple.redirects.push(Redirect { target: word, writes: true }),
            Some(Awaits::Descriptor) => {
                let number = word.raw.trim_end_matches('-');
                if !number.chars().all(|letter| letter.is_ascii_digit()) {
                    self.simple.redirects.push(Redirect { target: word, writes: true });
                }
            }
            Some(Awaits::Text) => (),
            Some(Awaits::Document { indented }) => {
                let literal = word.raw != word.text;
                self.documents.push(Document { end: word.text, indented, literal });
            }
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        if self.awaits.take().is_some() {
            self.script.note("a redirect has no target");
        }
        let simple = std::mem::take(&mut self.simple);
        if !simple.words.is_empty() || simple.redirected {
            self.script.commands.push(simple);
        }
    }

    fn skip_documents(&mut self) {
        for document in std::mem::take(&mut self.documents) {
            let begin = self.at;
            let mut end = self.letters.len();
            while self.at < self.letters.len() {
                let rest = &self.letters[self.at..];
                let length = rest.iter().position(|letter| *letter == '\n').unwrap_or(rest.len());
                let tabs = if document.indented { tabs(rest) } else { 0 };
                let is_end =
                    rest.get(tabs..length).is_some_and(|line| line.iter().copied().eq(document.end.chars()));
                if is_end {
                    end = self.at;
                }
                self.at = (self.at + length + 1).min(self.letters.len());
                if is_end {
                    break;
                }
            }
            if !document.literal {
                self.substitutions(&self.letters[begin..end]);
            }
        }
    }

    /// Reads what the shell puts into a here-document.
    fn substitutions(&mut self, letters: &[char]) {
        let (simple, script) = (Simple::default(), &mut *self.script);
        let mut inner = Reader {
            letters,
            at: 0,
            depth: self.depth,
            script,
            word: None,
            simple,
            awaits: None,
            documents: Vec::new(),
        };
        while let Some(letter) = inner.next() {
            match letter {
                '\\' => drop(inner.next()),
                '$' => inner.dollar(true),
                '`' => inner.backticks(),
                _ => (),
            }
            inner.word = None;
        }
    }

    fn skip_comment(&mut self) {
        while self.letters.get(self.at).is_some_and(|letter| *letter != '\n') {
            self.at += 1;
        }
    }

    /// Adds a letter that stands for something that the shell puts in.
    fn expand(&mut self, letter: char) {
        self.push(&[letter], Some(letter));
        self.word.get_or_insert_default().expands = true;
    }

    fn push(&mut self, raw: &[char], text: Option<char>) {
        let word = self.word.get_or_insert_default();
        word.raw.extend(raw);
        word.text.extend(text);
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.letters.get(self.at).copied();
        self.at += usize::from(letter.is_some());
        letter
    }

    fn take(&mut self, letter: char) -> bool {
        let there = self.letters.get(self.at) == Some(&letter);
        self.at += usize::from(there);
        there
    }
}

fn tabs(letters: &[char]) -> usize {
    letters.iter().take_while(|letter| **letter == '\t').count()
}
