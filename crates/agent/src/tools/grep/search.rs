//! Searching files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use grep_matcher::Matcher as _;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{
    BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkContextKind, SinkMatch,
};
use ignore::WalkBuilder;
use ignore::overrides::OverrideBuilder;
use ignore::types::TypesBuilder;

use super::page::Page;
use super::{Ended, Input, Mode};
use crate::tool::ToolContext;
use crate::tools::Failure;
use crate::tools::file::{self, OpenError};
use crate::tools::text::{excerpt, shown_path};
use crate::tools::walk::{self, Watch};

/// The longest pattern, in bytes.
const PATTERN_BYTES: usize = 64 * 1024;

/// How large a compiled pattern may become, in bytes. It bounds how long one byte of a file can take.
const COMPILED_BYTES: usize = 4 * 1024 * 1024;

/// How much of a file is held: the longest line, or with `multiline` the longest file.
const HELD_BYTES: usize = 16 * 1024 * 1024;

/// Lines around a match, at most.
const MAX_CONTEXT: usize = 1_000;

/// Characters given of a line; of a longer one those around the match.
const LINE_CHARS: usize = 500;

/// Bytes at the start of a file in which a NUL tells that it is binary; one further on ends it as well.
const SNIFF_BYTES: usize = 1_024;

/// A search, ready to go.
pub struct Search {
    matcher: RegexMatcher,
    searcher: Searcher,
    walker: WalkBuilder,
    root: PathBuf,
    cwd: PathBuf,
    only_matching: bool,
    line_numbers: bool,
    has_context: bool,
    multiline: bool,
}

/// Why a file was not searched.
type Reason = String;

impl Search {
    pub fn new(input: &Input, context: &ToolContext) -> Result<Self, Failure> {
        let root = walk::root(input.path.as_deref(), context)?;
        if !root.is_dir()
            && let Err(error) = file::open_regular(&root)
        {
            return Err(error.told(input.path.as_deref().unwrap_or("."), context));
        }
        let (before, after) = lines_around(input);
        let mut searcher = SearcherBuilder::new();
        searcher
            .binary_detection(BinaryDetection::quit(0))
            .heap_limit(Some(HELD_BYTES))
            .line_number(true)
            .multi_line(input.multiline)
            .before_context(before)
            .after_context(after);
        Ok(Self {
            matcher: matcher(input).map_err(Failure::new)?,
            searcher: searcher.build(),
            walker: walker(input, &root, context).map_err(Failure::new)?,
            root,
            cwd: context.cwd.clone(),
            only_matching: input.only_matching,
            line_numbers: input.line_numbers.unwrap_or(true),
            has_context: before + after > 0,
            multiline: input.multiline,
        })
    }

    /// Goes through all files, in the order of their paths.
    pub fn each_file(
        &mut self,
        watch: &Watch<'_>,
        mut visit: impl FnMut(&mut Self, &Path) -> Result<(), Reason>,
    ) -> Ended {
        let mut ended = Ended::default();
        for entry in self.walker.build() {
            if watch.is_over() {
                ended.timed_out = true;
                break;
            }
            let visited = match entry {
                Ok(entry) if is_searched(&entry, &self.root) => visit(self, entry.path()),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            // A file cut short by the watch is no failure of the file.
            if let Err(failure) = visited
                && !watch.is_over()
            {
                ended.failed += 1;
                ended.first_failure.get_or_insert(failure);
            }
        }
        ended
    }

    /// Pushes the matching lines of a file, with what is around them, and gives the number of matching lines.
    pub fn lines(
        &mut self,
        path: &Path,
        name: &str,
        watch: &Watch<'_>,
        page: &mut Page,
    ) -> Result<usize, Reason> {
        let before = page.mark();
        let mut sink = Lines {
            matcher: &self.matcher,
            name,
            only_matching: self.only_matching,
            line_numbers: self.line_numbers,
            separate: self.has_context && page.total() > 0,
            matches: 0,
            is_binary: false,
            page,
        };
        let searched = run(&mut self.searcher, &self.matcher, path, &self.cwd, watch, &mut sink);
        let (matches, is_binary) = (sink.matches, sink.is_binary);
        if is_binary || searched.is_err() {
            page.back_to(before);
        }
        searched.map(|()| if is_binary { 0 } else { matches })
    }

    /// Gives the number of matching lines of a file, or with `multiline` of matches.
    pub fn count(&mut self, path: &Path, watch: &Watch<'_>) -> Result<usize, Reason> {
        let matcher = self.multiline.then_some(&self.matcher);
        let mut sink = Count { matcher, first_only: false, matches: 0, is_binary: false };
        run(&mut self.searcher, &self.matcher, path, &self.cwd, watch, &mut sink)?;
        Ok(if sink.is_binary { 0 } else { sink.matches })
    }

    /// Says whether there is a match in a file.
    pub fn is_in(&mut self, path: &Path, watch: &Watch<'_>) -> Result<bool, Reason> {
        let mut sink = Count { matcher: None, first_only: true, matches: 0, is_binary: false };
        run(&mut self.searcher, &self.matcher, path, &self.cwd, watch, &mut sink)?;
        Ok(!sink.is_binary && sink.matches > 0)
    }
}

fn lines_around(input: &Input) -> (usize, usize) {
    if input.output_mode != Mode::Content || input.only_matching {
        return (0, 0);
    }
    let around = input.context.or(input.around).unwrap_or(0);
    let lines = |given: Option<usize>| given.unwrap_or(around).min(MAX_CONTEXT);
    (lines(input.before), lines(input.after))
}

fn matcher(input: &Input) -> Result<RegexMatcher, String> {
    if input.pattern.is_empty() {
        return Err("the pattern is empty".to_owned());
    }
    if input.pattern.len() > PATTERN_BYTES {
        return Err(format!("the pattern is longer than {PATTERN_BYTES} bytes"));
    }
    let mut builder = RegexMatcherBuilder::new();
    builder
        .case_insensitive(input.ignore_case)
        .multi_line(true)
        .dot_matches_new_line(input.multiline)
        .size_limit(COMPILED_BYTES)
        .dfa_size_limit(COMPILED_BYTES);
    if !input.multiline {
        builder.line_terminator(Some(b'\n'));
    }
    builder.build(&input.pattern).map_err(|error| {
        let error = error.to_string();
        let hint = if error.contains(r#""\n""#) || error.contains(r"'\n'") {
            "; set multiline for that"
        } else {
            ""
        };
        format!("failed to understand the pattern: {error}{hint}")
    })
}

fn walker(input: &Input, root: &Path, context: &ToolContext) -> Result<WalkBuilder, String> {
    let mut walker = walk::not_ignored(root);
    walker.current_dir(&context.cwd);
    // The order of files is then the same each time, and pages fit together.
    walker.sort_by_file_path(Path::cmp);
    if let Some(globs) = &input.glob {
        let mut overrides = OverrideBuilder::new(root);
        for glob in split_globs(globs) {
            overrides.add(glob).map_err(|error| format!("failed to understand the glob: {error}"))?;
        }
        walker
            .overrides(overrides.build().map_err(|error| format!("failed to understand the glob: {error}"))?);
    }
    if let Some(name) = &input.r#type {
        let types = TypesBuilder::new().add_defaults().select(name).build();
        walker.types(
            types.map_err(|_| {
                format!("there is no file type {name:?}; give a glob instead, like `*.{name}`")
            })?,
        );
    }
    Ok(walker)
}

/// Several globs may be given, divided by white space or commas; commas in braces belong to a glob.
fn split_globs(globs: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = globs.split(move |sign: char| {
        match sign {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => (),
        }
        sign.is_whitespace() || (sign == ',' && depth == 0)
    });
    parts.filter(|glob| !glob.is_empty()).collect()
}

/// Files are, and the root itself, which was asked for by name, also where it is a link.
fn is_searched(entry: &ignore::DirEntry, root: &Path) -> bool {
    entry.file_type().is_some_and(|kind| kind.is_file()) || (entry.depth() == 0 && !root.is_dir())
}

fn run<S: Sink<Error = io::Error>>(
    searcher: &mut Searcher,
    matcher: &RegexMatcher,
    path: &Path,
    cwd: &Path,
    watch: &Watch<'_>,
    sink: S,
) -> Result<(), Reason> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", shown_path(path, cwd));
    let file = match file::open_listed(path) {
        Ok((file, _)) => file,
        // Gone since the folder was listed, or nothing to search.
        Err(OpenError::Missing | OpenError::Folder | OpenError::Special(_)) => return Ok(()),
        Err(OpenError::Process) => return Err(failed(&"it is about a process")),
        Err(OpenError::Io(error)) => return Err(failed(&error)),
    };
    let reader = Watched { file, watch, reads: Reads::First };
    searcher.search_reader(matcher, reader, sink).map_err(|error| failed(&error))
}

/// UTF-16 with its mark is full of NUL bytes, but the searcher understands it.
fn looks_binary(start: &[u8]) -> bool {
    !start.starts_with(&[0xff, 0xfe])
        && !start.starts_with(&[0xfe, 0xff])
        && memchr::memchr(0, start).is_some()
}

/// A file whose reading ends with an error when the search is over, and that looks empty when it is binary.
struct Watched<'a> {
    file: File,
    watch: &'a Watch<'a>,
    reads: Reads,
}

enum Reads {
    First,
    Further,
    None,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.watch.is_over() {
            return Err(io::Error::other("the search was ended"));
        }
        match self.reads {
            Reads::First => {
                let read = self.file.read(buffer)?;
                let is_binary = looks_binary(&buffer[..read.min(SNIFF_BYTES)]);
                self.reads = if is_binary { Reads::None } else { Reads::Further };
                Ok(if is_binary { 0 } else { read })
            }
            Reads::Further => self.file.read(buffer),
            Reads::None => Ok(0),
        }
    }
}

struct Count<'a> {
    /// Counts matches instead of lines.
    matcher: Option<&'a RegexMatcher>,
    first_only: bool,
    matches: usize,
    is_binary: bool,
}

impl Sink for Count<'_> {
    type Error = io::Error;

    fn matched(&mut self, _searcher: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        match self.matcher {
            Some(matcher) => matcher
                .find_iter(found.bytes(), |_| {
                    self.matches += 1;
                    true
                })
                .map_err(io::Error::other)?,
            None => self.matches += 1,
        }
        Ok(!self.first_only)
    }

    fn binary_data(&mut self, _searcher: &Searcher, _at: u64) -> Result<bool, io::Error> {
        self.is_binary = true;
        Ok(false)
    }
}

struct Lines<'a> {
    matcher: &'a RegexMatcher,
    name: &'a str,
    only_matching: bool,
    line_numbers: bool,
    /// A separator comes before the first line.
    separate: bool,
    matches: usize,
    is_binary: bool,
    page: &'a mut Page,
}

impl Lines<'_> {
    fn push(&mut self, number: Option<u64>, sign: char, line: &[u8], interesting: usize) {
        if !self.page.takes() {
            return self.page.pass();
        }
        let number = match number.filter(|_| self.line_numbers) {
            Some(number) => format!("{number}{sign}"),
            None => String::new(),
        };
        let text = excerpt(line, interesting.min(line.len()), LINE_CHARS);
        self.page.push(&format!("{}{sign}{number}{text}", self.name));
    }

    fn push_separator(&mut self) {
        if std::mem::take(&mut self.separate) {
            self.page.push("--");
        }
    }

    /// Pushes each part of a line that matches, or of several lines.
    fn push_parts(&mut self, found: &SinkMatch<'_>) -> io::Result<()> {
        let bytes = found.bytes();
        let matcher = self.matcher;
        let (mut number, mut counted) = (found.line_number().unwrap_or(0), 0);
        matcher
            .find_iter(bytes, |part| {
                number += memchr::memchr_iter(b'\n', &bytes[counted..part.start()]).count() as u64;
                counted = part.start();
                for (line, index) in bytes[part].split(|byte| *byte == b'\n').zip(0..) {
                    if !line.is_empty() {
                        self.push(Some(number + index), ':', without_end(line), 0);
                    }
                }
                true
            })
            .map_err(io::Error::other)
    }
}

impl Sink for Lines<'_> {
    type Error = io::Error;

    fn matched(&mut self, _searcher: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        self.push_separator();
        if self.only_matching {
            self.matches += 1;
            self.push_parts(found)?;
            return Ok(true);
        }
        for (line, number) in found.lines().zip(found.line_number().unwrap_or(0)..) {
            self.matches += 1;
            let line = without_end(line);
            // Only of a line that will be cut it matters where the match is.
            let interesting = if line.len() > LINE_CHARS && self.page.takes() {
                self.matcher.find(line).map_err(io::Error::other)?.map_or(0, |part| part.start())
            } else {
                0
            };
            self.push(Some(number), ':', line, interesting);
        }
        Ok(true)
    }

    fn context(&mut self, _searcher: &Searcher, line: &SinkContext<'_>) -> Result<bool, io::Error> {
        if matches!(line.kind(), SinkContextKind::Other) {
            return Ok(true);
        }
        self.push_separator();
        self.push(line.line_number(), '-', without_end(line.bytes()), 0);
        Ok(true)
    }

    fn context_break(&mut self, _searcher: &Searcher) -> Result<bool, io::Error> {
        self.page.push("--");
        Ok(true)
    }

    fn binary_data(&mut self, _searcher: &Searcher, _at: u64) -> Result<bool, io::Error> {
        self.is_binary = true;
        Ok(false)
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_split_outside_of_braces() {
        for (globs, expected) in [
            ("*.rs", vec!["*.rs"]),
            ("*.{ts,tsx}", vec!["*.{ts,tsx}"]),
            ("*.rs, *.toml  !x", vec!["*.rs", "*.toml", "!x"]),
            ("{a,b},c", vec!["{a,b}", "c"]),
            (" , ", vec![]),
        ] {
            assert_eq!(split_globs(globs), expected, "{globs}");
        }
    }
}
