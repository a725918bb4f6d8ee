//! Commands that do other than their words say: they run another command, or evaluate a text.

use super::Word;

/// Commands that run another command, or text, as theirs.
const WRAPPERS: &[&str] = &[
    ".",
    "alias",
    "ash",
    "bash",
    "bind",
    "builtin",
    "busybox",
    "bwrap",
    "capsh",
    "choom",
    "chronic",
    "chroot",
    "chrt",
    "command",
    "compgen",
    "complete",
    "coproc",
    "csh",
    "dash",
    "dbus-run-session",
    "doas",
    "dumb-init",
    "elvish",
    "enable",
    "entr",
    "env",
    "eval",
    "exec",
    "fakeroot",
    "faketime",
    "fc",
    "firejail",
    "fish",
    "flock",
    "hash",
    "i386",
    "ionice",
    "ksh",
    "linux32",
    "linux64",
    "lksh",
    "ltrace",
    "mapfile",
    "mksh",
    "nice",
    "nohup",
    "nsenter",
    "nu",
    "numactl",
    "oksh",
    "parallel",
    "perf",
    "pkexec",
    "prlimit",
    "proot",
    "pwsh",
    "rbash",
    "readarray",
    "runcon",
    "runuser",
    "script",
    "setarch",
    "setpriv",
    "setsid",
    "sg",
    "sh",
    "source",
    "ssh",
    "stdbuf",
    "strace",
    "su",
    "sudo",
    "systemd-inhibit",
    "systemd-run",
    "taskset",
    "tcsh",
    "time",
    "timeout",
    "tini",
    "torsocks",
    "toybox",
    "trap",
    "unbuffer",
    "unshare",
    "valgrind",
    "watch",
    "x86_64",
    "xargs",
    "yash",
    "zsh",
];

/// What `find` does beyond finding.
const FIND_ACTIONS: &[&str] =
    &["-exec", "-execdir", "-ok", "-okdir", "-delete", "-fprint", "-fprint0", "-fprintf", "-fls"];

/// Commands whose arguments are files that they read or change.
const FILE_COMMANDS: &[&str] = &[
    ".",
    "awk",
    "base64",
    "bat",
    "bunzip2",
    "bzip2",
    "cat",
    "chmod",
    "chown",
    "cksum",
    "cmp",
    "column",
    "comm",
    "cp",
    "csplit",
    "curl",
    "cut",
    "dd",
    "diff",
    "du",
    "ed",
    "egrep",
    "emacs",
    "ex",
    "expand",
    "fgrep",
    "file",
    "find",
    "fmt",
    "fold",
    "gawk",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "iconv",
    "install",
    "jq",
    "less",
    "ln",
    "ls",
    "mawk",
    "md5sum",
    "mkdir",
    "more",
    "mv",
    "nano",
    "nl",
    "node",
    "nvim",
    "od",
    "openssl",
    "paste",
    "perl",
    "pr",
    "python",
    "python3",
    "readlink",
    "realpath",
    "rev",
    "rg",
    "rm",
    "rmdir",
    "rsync",
    "ruby",
    "scp",
    "sed",
    "sha1sum",
    "sha256sum",
    "sha512sum",
    "shred",
    "shuf",
    "sort",
    "source",
    "split",
    "stat",
    "strings",
    "tac",
    "tail",
    "tar",
    "tee",
    "touch",
    "tree",
    "truncate",
    "uniq",
    "unzip",
    "vi",
    "view",
    "vim",
    "wc",
    "wget",
    "xxd",
    "xz",
    "yq",
    "zcat",
    "zip",
    "zstd",
];

/// Builtins that evaluate the index of an array which an argument names, also in quotes: `read 'a[$(rm x)]'` runs `rm`.
const EVALUATES: &[&str] =
    &["declare", "export", "getopts", "let", "local", "read", "readonly", "typeset", "unset", "wait"];

/// Why a command may do other than it says, if so.
pub(super) fn hazard(name: &str, arguments: &[Word]) -> Option<&'static str> {
    if is_wrapper(name) {
        return Some("a command runs another one");
    }
    if name == "find" && arguments.iter().any(|word| FIND_ACTIONS.contains(&word.text.as_str())) {
        return Some("find runs a command or writes");
    }
    let has_index = arguments.iter().any(|word| word.text.contains('['));
    let may_be_option = |word: &Word| word.text.starts_with("-v") || may_begin_with_dash(word);
    let evaluates = match name {
        // It sets a variable: `PATH`, for one.
        "printf" => arguments.first().is_some_and(may_be_option),
        "test" | "[" => has_index && arguments.iter().any(may_be_option),
        name => has_index && EVALUATES.contains(&name),
    };
    evaluates.then_some("a builtin may evaluate what it is given")
}

/// Whether the shell may make an option of a word.
fn may_begin_with_dash(word: &Word) -> bool {
    word.expands && word.text.starts_with(['-', '$', '`', '{', '*', '?', '['])
}

/// Whether a command's arguments are files.
pub(super) fn is_about_files(name: &str) -> bool {
    FILE_COMMANDS.contains(&name)
}

fn is_wrapper(name: &str) -> bool {
    let is_loader = ["ld-linux", "ld-musl", "ld.so"].iter().any(|loader| name.starts_with(loader));
    // `bash5.2` is a shell as well.
    let unversioned =
        name.trim_end_matches(|letter: char| letter.is_ascii_digit() || matches!(letter, '.' | '-'));
    is_loader || WRAPPERS.contains(&name) || (unversioned.ends_with("sh") && WRAPPERS.contains(&unversioned))
}
