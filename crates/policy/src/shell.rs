//! Reads a shell command as far as a permission rule needs it.
//!
//! This is a small splitter, not a shell grammar: it finds the simple commands of a script, their words and redirects,
//! and says so ([`Script::hazard`]) whenever it meets something whose meaning it does not follow: substitutions,
//! here-documents, subshells, keywords, unbalanced quotes. What has a hazard is never allowed by a rule. It reads
//! inside substitutions all the same, so that rules that refuse still see the commands there. Why it is no grammar
//! stands in ARCHITECTURE.md.

mod runs;
mod words;

/// The longest command that is looked at, in characters.
pub(crate) const MAX_COMMAND_CHARS: usize = 65_536;

/// How deep substitutions are followed.
const MAX_DEPTH: usize = 12;

/// The most words before a subcommand that may belong to options of its command.
const MAX_LEADING: usize = 12;

/// Words that begin a construct of the shell's own instead of naming a command.
const KEYWORDS: &[&str] = &[
    "!", "[[", "case", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in", "select",
    "then", "until", "while", "{", "}",
];

/// A command line, split.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// The simple commands, also those inside substitutions.
    pub(crate) commands: Vec<Simple>,
    /// The first thing that is not understood.
    pub(crate) hazard: Option<&'static str>,
}

/// A simple command: words and redirects.
#[derive(Debug, Default)]
pub(crate) struct Simple {
    pub(crate) words: Vec<Word>,
    pub(crate) redirects: Vec<Redirect>,
    /// Whether it has any redirect, also one that is no file: then it is a command even without words.
    pub(crate) redirected: bool,
}

/// A word as written, and as the command gets it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Word {
    pub(crate) raw: String,
    pub(crate) text: String,
    /// The shell replaces a part of it: a variable, a substitution, a file name pattern, a brace, a tilde.
    pub(crate) expands: bool,
}

/// A redirect from or to a file.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) target: Word,
    pub(crate) writes: bool,
}

impl Script {
    /// Reads a command. Never fails: what it cannot read is a hazard.
    pub(crate) fn read(command: &str) -> Self {
        let mut script = Self::default();
        let letters: Vec<char> = command.chars().take(MAX_COMMAND_CHARS + 1).collect();
        if letters.len() > MAX_COMMAND_CHARS {
            script.hazard = Some("it is too long");
            return script;
        }
        words::read(&letters, &mut 0, None, 0, &mut script);
        script
    }

    /// Whether the shell's directory changes on the way, so that relative paths cannot be told.
    pub(crate) fn changes_directory(&self) -> bool {
        self.commands.iter().any(Simple::changes_directory)
    }

    pub(crate) fn redirects(&self) -> impl Iterator<Item = &Redirect> {
        self.commands.iter().flat_map(|command| &command.redirects)
    }

    fn note(&mut self, hazard: &'static str) {
        self.hazard.get_or_insert(hazard);
    }
}

impl Simple {
    /// The words without leading assignments.
    fn arguments(&self) -> &[Word] {
        let assignments = self.words.iter().take_while(|word| is_assignment(&word.raw)).count();
        &self.words[assignments..]
    }

    /// The command's name without its directory.
    pub(crate) fn name(&self) -> Option<&str> {
        self.arguments().first().map(|word| base_name(&word.text))
    }

    /// Where the shell goes, if it does and says where.
    pub(crate) fn new_directory(&self) -> Option<&str> {
        let target = self.arguments().iter().skip(1).find(|word| !word.text.starts_with('-'))?;
        self.changes_directory().then_some(target.text.as_str())
    }

    /// Whether the shell's directory is another afterwards.
    pub(crate) fn changes_directory(&self) -> bool {
        matches!(self.name(), Some("cd" | "pushd" | "popd"))
    }

    /// The command as written, one space between words, redirects apart.
    pub(crate) fn raw(&self) -> String {
        join(self.words.iter().map(|word| word.raw.as_str()))
    }

    /// Why it may do other than it says, if so.
    pub(crate) fn hazard(&self) -> Option<&'static str> {
        let arguments = self.arguments();
        let first = arguments.first()?;
        if first.expands {
            return Some("the name of a command is computed");
        }
        if KEYWORDS.contains(&first.text.as_str()) {
            return Some("it has a control structure");
        }
        runs::hazard(base_name(&first.text), &arguments[1..])
    }

    /// All readings under which a rule that refuses may find the command: as written, unquoted, without assignments,
    /// without its directory; and what it runs, when it runs another.
    pub(crate) fn readings(&self) -> Vec<String> {
        let arguments = self.arguments();
        let mut readings = vec![self.raw(), join(self.words.iter().map(|word| word.text.as_str()))];
        readings.push(plain(arguments));
        // Which word begins the inner command depends on the options of each wrapper: take every one.
        let begins = if self.hazard().is_some() { arguments.len().min(64) } else { 1 };
        for begin in 0..begins {
            let command = arguments.get(begin..).unwrap_or(&[]);
            readings.push(without_directory(command));
            readings.extend(without_leading_options(command));
        }
        readings.dedup();
        readings
    }

    /// Arguments of a command that runs others which may be scripts themselves, as in `sh -c "…"` or `eval …`.
    pub(crate) fn inner_scripts(&self) -> Vec<String> {
        if self.hazard().is_none() {
            return Vec::new();
        }
        let arguments = self.arguments();
        let inner =
            arguments.iter().skip(1).filter(|word| word.text.contains(|letter: char| !is_plain(letter)));
        inner
            .map(|word| word.text.clone())
            .chain([plain(arguments.get(1..).unwrap_or(&[]))])
            .take(64)
            .collect()
    }

    /// What is known of the beginning of the command, when the shell replaces a part of what follows.
    pub(crate) fn known_beginnings(&self) -> Vec<String> {
        let arguments = self.arguments();
        let Some(unknown) = arguments.iter().position(|word| word.expands) else { return Vec::new() };
        let known = &arguments[..unknown];
        let mut beginnings = vec![plain(known), without_directory(known)];
        for beginning in &mut beginnings {
            if !beginning.is_empty() {
                beginning.push(' ');
            }
        }
        beginnings
    }

    /// The arguments that may be files, of a command that is about files, also where another command runs it.
    pub(crate) fn file_arguments(&self) -> &[Word] {
        let arguments = self.arguments();
        let reach = if self.hazard().is_some() { arguments.len() } else { arguments.len().min(1) };
        let about_files = |word: &Word| runs::is_about_files(base_name(&word.text));
        arguments[..reach].iter().position(about_files).map_or(&[], |at| &arguments[at + 1..])
    }
}

fn is_assignment(raw: &str) -> bool {
    let Some((name, _)) = raw.split_once('=') else { return false };
    let name = name.strip_suffix('+').unwrap_or(name);
    let name = name.split('[').next().unwrap_or(name);
    name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric()
        || matches!(letter, '_' | '-' | '/' | '.' | ',' | ':' | '+' | '@' | '%' | '=')
}

fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn plain(words: &[Word]) -> String {
    join(words.iter().map(|word| word.text.as_str()))
}

fn without_directory(words: &[Word]) -> String {
    let first = words.first().map(|word| base_name(&word.text));
    join(first.into_iter().chain(words.iter().skip(1).map(|word| word.text.as_str())))
}

/// `git -C x push` is a `git push`: how many words its leading options take is not known.
fn without_leading_options(words: &[Word]) -> impl Iterator<Item = String> {
    let has_options = words.get(1).is_some_and(|word| word.text.starts_with(['-', '+']));
    let reach = if has_options { words.len().min(MAX_LEADING) } else { 0 };
    let name = words.first().map_or("", |word| base_name(&word.text));
    (2..reach).map(move |begin| format!("{name} {}", plain(&words[begin..])))
}

fn join<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(" ")
}
