//! What the end of a command means. Read off its words, not parsed: it only shapes what is told.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

/// Returns what a status other than 0 means where it is no failure.
pub fn of_status(command: &str, status: ExitStatus) -> Option<&'static str> {
    if status.code() != Some(1) {
        return None;
    }
    // The last command of a line decides its status.
    let last = command.trim_end().rsplit(['|', ';', '&', '\n']).next()?;
    match program(last)? {
        "grep" | "egrep" | "fgrep" | "rg" | "zgrep" => Some("nothing matched"),
        "diff" | "cmp" => Some("the files differ"),
        "test" | "[" => Some("the condition is false"),
        _ => None,
    }
}

/// Says whether a command prints nothing when all goes well.
pub fn is_silent(command: &str) -> bool {
    const SILENT: [&str; 16] = [
        "cd", "chgrp", "chmod", "chown", "cp", "export", "kill", "ln", "mkdir", "mv", "rm", "rmdir", "sleep",
        "touch", "true", "unset",
    ];
    command
        .split(['|', ';', '&', '\n'])
        .filter(|part| !part.trim().is_empty())
        .all(|part| program(part).is_some_and(|program| SILENT.contains(&program)))
}

/// Returns the line that tells a failure.
pub fn status_line(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("Exit code {code}"),
        (None, Some(signal)) => format!("Exit code {} (killed by signal {signal})", 128 + signal),
        (None, None) => "Exit code unknown".to_owned(),
    }
}

/// Returns the first word that is no assignment, without its folder.
fn program(command: &str) -> Option<&str> {
    let is_assignment = |word: &str| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
    };
    let word = command.split_whitespace().find(|word| !is_assignment(word))?;
    word.rsplit('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_meanings() {
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        for (command, code, expected) in [
            ("grep x f", 1, Some("nothing matched")),
            ("cat f | LC_ALL=C /usr/bin/grep x", 1, Some("nothing matched")),
            ("grep x f", 2, None),
            ("grep x f; make", 1, None),
            ("cd a && diff b c", 1, Some("the files differ")),
            ("[ -e x ]", 1, Some("the condition is false")),
            ("false", 1, None),
            ("", 1, None),
        ] {
            assert_eq!(of_status(command, exit(code)), expected, "{command}");
        }
        assert_eq!(status_line(exit(3)), "Exit code 3");
        assert_eq!(status_line(ExitStatus::from_raw(9)), "Exit code 137 (killed by signal 9)");
    }

    #[test]
    fn silence_is_expected_of_some() {
        for (command, expected) in
            [("mkdir -p a && cp b a/", true), ("A=1 touch x; rm y", true), ("ls", false), ("rm x; ls", false)]
        {
            assert_eq!(is_silent(command), expected, "{command}");
        }
    }
}
