//! Everyday commands whose effect can be read off them: those that only look, and those that only edit files.
//!
//! A command that is not known here, or is called in a way that is not, is neither. Letters that the shell would replace
//! make it neither, too.

use crate::shell::Simple;

/// What a command does, as far as it can be read off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Everyday {
    /// It only looks, at these files among others that it was given no name of.
    Looks(Vec<String>),
    /// It changes these files, and no others.
    Edits(Vec<String>),
}

/// Commands that print what they are told, or what is no file's.
const PRINT: &[&str] =
    &["echo", "expr", "false", "groups", "id", "nproc", "printf", "pwd", "seq", "true", "uname", "whoami"];

/// Commands that look at the files that they are given, or at their standard input, and have no option to write a file
/// or to run anything. Options that name files are caught by their slashes, or are operands here.
const LOOK: &[&str] = &[
    "basename",
    "cat",
    "cksum",
    "cmp",
    "comm",
    "cut",
    "diff",
    "dirname",
    "du",
    "egrep",
    "fgrep",
    "fold",
    "grep",
    "head",
    "ls",
    "md5sum",
    "nl",
    "od",
    "paste",
    "readlink",
    "realpath",
    "rev",
    "sha1sum",
    "sha256sum",
    "stat",
    "strings",
    "tac",
    "tail",
    "test",
    "tr",
    "wc",
    "[",
];

/// Of `git`, what only looks.
const GIT_LOOK: &[&str] =
    &["blame", "describe", "diff", "log", "ls-files", "rev-parse", "shortlog", "show", "status"];

/// Options that read names of files from files, write files, run programs, or follow links out of a folder. Programs
/// take a beginning of a long option for the whole.
const FAR_REACHING: &[&str] = &[
    "--dereference-recursive",
    "--ext-diff",
    "--files0-from",
    "--no-index",
    "--output",
    "--recursive",
    "--textconv",
];

/// The shortest beginning of a long option that may stand for it.
const SHORTEST: usize = 3;

fn is_far_reaching(name: &str, argument: &str) -> bool {
    if !argument.starts_with('-') {
        return false;
    }
    let option = argument.split('=').next().unwrap_or(argument);
    let is_long = option.starts_with("--");
    let has = |letter: char| !is_long && option.contains(letter);
    let abbreviates =
        |far: &&str| option.len() >= SHORTEST && (far.starts_with(option) || option.starts_with(*far));
    let is_far = is_long && FAR_REACHING.iter().any(abbreviates);
    let in_short = match name {
        // `-f` brings a file; as a word of its own that is an operand.
        "grep" | "egrep" | "fgrep" => has('R') || (has('f') && !option.ends_with('f')),
        "cp" => has('L') || has('H'),
        "diff" => has('r'),
        "git" => option.starts_with("-O"),
        _ => false,
    };
    argument.contains('/') || is_far || in_short
}

/// Commands that change the files that they are given.
const EDIT: &[&str] = &["cp", "mkdir", "mv", "rm", "rmdir", "touch"];

/// Options that make something else of them.
const ODD_EDITS: &[&str] = &[
    "--dereference",
    "--target-directory",
    "-t",
    "--backup",
    "--suffix",
    "-S",
    "--reference",
    "-Z",
    "--context",
];

/// Says what a command does, if that can be read off it.
pub(crate) fn read(simple: &Simple) -> Option<Everyday> {
    if simple.hazard().is_some() || simple.words.iter().any(|word| word.expands) {
        return None;
    }
    let words: Vec<&str> = simple.words.iter().map(|word| word.text.as_str()).collect();
    let (&name, arguments) = words.split_first()?;
    // A name that is spelt oddly is none of an everyday command.
    if simple.words.first().is_some_and(|word| word.raw != word.text)
        || arguments.iter().any(|argument| is_far_reaching(name, argument))
    {
        return None;
    }
    // Behind `--` nothing is an option, whatever it begins with.
    let end = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
    let operands = || {
        let before = arguments[..end].iter().filter(|argument| !argument.starts_with('-'));
        before.chain(arguments.iter().skip(end + 1)).map(|&path| path.to_owned())
    };
    match name {
        name if PRINT.contains(&name) => Some(Everyday::Looks(Vec::new())),
        name if LOOK.contains(&name) => Some(Everyday::Looks(operands().collect())),
        "cd" if arguments.len() == 1 && !arguments[0].starts_with('-') => {
            Some(Everyday::Looks(operands().collect()))
        }
        "date" if arguments.iter().all(|argument| argument.starts_with('+') || *argument == "-u") => {
            Some(Everyday::Looks(Vec::new()))
        }
        "find" => {
            let ends = |argument: &&&str| !argument.starts_with(['-', '(', '!']);
            let paths = arguments.iter().take_while(ends).map(|&path| path.to_owned());
            let quiet =
                arguments.iter().all(|argument| FIND_LOOK.contains(argument) || !argument.starts_with('-'));
            quiet.then(|| Everyday::Looks(paths.collect()))
        }
        "git" => {
            let known = arguments.first().is_some_and(|command| GIT_LOOK.contains(command));
            // A revision is no file, and as a path it lies here.
            known.then(|| Everyday::Looks(operands().skip(1).collect()))
        }
        "sed" => sed(arguments),
        name if EDIT.contains(&name) => {
            let odd = arguments.iter().any(|argument| ODD_EDITS.iter().any(|odd| argument.starts_with(odd)));
            (!odd).then(|| Everyday::Edits(operands().collect()))
        }
        _ => None,
    }
}

/// What `find` may be told and still only finds.
const FIND_LOOK: &[&str] = &[
    "-name",
    "-iname",
    "-type",
    "-path",
    "-ipath",
    "-maxdepth",
    "-mindepth",
    "-size",
    "-mtime",
    "-mmin",
    "-newer",
    "-print",
    "-print0",
    "-empty",
    "-not",
    "-o",
    "-a",
    "-or",
    "-and",
    "-prune",
];

/// `sed -n 3,9p FILE` looks; `sed -i s/a/b/g FILE` edits. Other scripts may write and run things.
fn sed(arguments: &[&str]) -> Option<Everyday> {
    let (&option, rest) = arguments.split_first()?;
    let (&script, files) = rest.split_first()?;
    if files.iter().any(|file| file.starts_with('-')) {
        return None;
    }
    let files = files.iter().map(|&file| file.to_owned()).collect();
    match option {
        "-n" if script.strip_suffix('p').is_some_and(is_range) => Some(Everyday::Looks(files)),
        "-i" if is_plain_substitution(script) => Some(Everyday::Edits(files)),
        _ => None,
    }
}

fn is_range(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit());
    match text.split_once(',') {
        Some((from, to)) => number(from) && (number(to) || to == "$"),
        None => number(text),
    }
}

/// `s/a/b/` with no flag but `g`, `I`, `p` and digits: `e` runs what it made, `w` writes it.
fn is_plain_substitution(script: &str) -> bool {
    let Some(rest) = script.strip_prefix("s/") else { return false };
    let parts: Vec<&str> = rest.split('/').collect();
    let plain = |letter: char| matches!(letter, 'g' | 'I' | 'p') || letter.is_ascii_digit();
    !script.contains(['\n', ';', '\\', '{', '}']) && parts.len() == 3 && parts[2].chars().all(plain)
}
