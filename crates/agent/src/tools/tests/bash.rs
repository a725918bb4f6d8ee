use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Place, text};
use crate::tool::{ToolLimits, ToolOutput};
use crate::tools::bash::{become_subreaper, reap_orphans};

async fn bash(place: &Place, command: &str) -> ToolOutput {
    place.call("Bash", json!({"command": command})).await
}

#[tokio::test]
async fn output_in_its_order() {
    let place = Place::new();
    let output = bash(&place, "echo out; echo err >&2; echo out again").await;
    assert_eq!(output.content, "out\nerr\nout again");
    assert_eq!(
        output.structured,
        json!({"stdout": "out\nerr\nout again", "stderr": "", "interrupted": false, "isImage": false,
               "noOutputExpected": false})
    );
    for (command, expected) in [
        ("true", "[no output]"),
        ("printf '\\n\\n  a\\n\\n'", "  a"),
        ("printf 'caf\\xe9'", "caf\u{fffd}"),
        ("cat", "[no output]"),
        ("# only a comment", "[no output]"),
        ("cat <<END\na 'b' \"c\" $((1+1))\nEND", "a 'b' \"c\" 2"),
        ("echo ${BASH_VERSION:+bash}", "bash"),
        ("ps -o tty= -p $$ | tr -d ' '", "?"),
        ("yes | head -1", "y"),
        ("true\r", "[no output]"),
    ] {
        let output = bash(&place, command).await;
        if command.ends_with('\r') {
            assert!(text(&output).contains("command not found"), "{output:?}");
        } else {
            assert_eq!(output.content, expected, "{command}");
        }
    }
    assert_eq!(bash(&place, "mkdir a && touch b").await.structured["noOutputExpected"], true);
}

#[tokio::test]
async fn statuses() {
    let place = Place::new();
    for (command, expected) in [
        ("exit 3", "Exit code 3"),
        ("echo said; false", "Exit code 1\nsaid"),
        ("kill -9 $$", "Exit code 137 (killed by signal 9)"),
        ("nope", "Exit code 127\n/bin/bash: line 1: nope: command not found"),
        ("echo 'open", "Exit code 2\n/bin/bash: -c: line 1: unexpected EOF while looking for matching `''"),
        ("exec false", "Exit code 1"),
        ("set -e; false; echo not here", "Exit code 1"),
    ] {
        let failure = place.fails("Bash", json!({"command": command})).await;
        assert!(failure.starts_with(expected), "{failure}");
    }
    let output = bash(&place, "echo a | grep b").await;
    assert_eq!(output.content, "[nothing matched]");
    assert_eq!(
        (output.is_error, &output.structured["returnCodeInterpretation"]),
        (false, &json!("nothing matched"))
    );
}

#[tokio::test]
async fn a_folder_lasts_and_nothing_else() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("a/b'c d")).unwrap();
    std::os::unix::fs::symlink("a", place.path("link")).unwrap();
    let inside = |name: &str| place.path(name).display().to_string();
    for (command, folder) in [
        ("cd a; X=1", "a"),
        ("echo ${X:-unset}; pwd", "a"),
        ("cd \"b'c d\"; exit 0", "a/b'c d"),
        ("cd ..; false", "a"),
        ("cd /nowhere", "a"),
        ("(cd /)", "a"),
        ("set -C; cd ../link", "a"),
        ("set -e; cd b*; set -u; echo $nope", "a/b'c d"),
        ("trap 'cd /' EXIT", "a/b'c d"),
        ("cd /; exec true", "a/b'c d"),
        ("function pwd { echo /; }; function cd { :; }; command cd ..", "a"),
    ] {
        let _ = bash(&place, command).await;
        assert_eq!(*place.context.bash_cwd.lock().unwrap(), place.path(folder), "{command}");
    }
    assert_eq!(place.ok("Bash", json!({"command": "pwd"})).await, inside("a"));
    // Read and the others still start where they did.
    place.put("f", "x");
    place.ok("Read", json!({"file_path": "f"})).await;
    std::fs::remove_dir_all(place.path("a")).unwrap();
    let said = place.ok("Bash", json!({"command": "pwd"})).await;
    assert_eq!(
        said,
        format!("[{} is gone; began in {}]\n{}", inside("a"), place.cwd.display(), place.cwd.display())
    );
    // Nothing of its own is left.
    assert_eq!(std::fs::read_dir(&place.context.output_dir).unwrap().count(), 0);
}

#[tokio::test]
async fn the_environment_is_what_it_was_given() {
    let mut place = Place::new();
    let env = [("PATH", "/usr/bin:/bin"), ("A", "b=c"), ("EMPTY", ""), ("LINES_", "x\ny")];
    place.context.env = Arc::new(env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec());
    let said = place.ok("Bash", json!({"command": "env -0 | sort -z | tr '\\0' ';'"})).await;
    let own = format!("PWD={};SHLVL=0;", place.cwd.display());
    let said = said.replace("SHLVL=1;", "SHLVL=0;");
    assert_eq!(said, format!("A=b=c;EMPTY=;LINES_=x\ny;PATH=/usr/bin:/bin;{own}_=/usr/bin/env;"));
}

#[tokio::test]
async fn what_is_refused() {
    let place = Place::new();
    for (input, says) in [
        (json!({"command": "a\0b"}), "NUL byte"),
        (json!({"command": "true", "run_in_background": true}), "run_in_background is not available here"),
        (
            json!({"command": "true", "dangerouslyDisableSandbox": true}),
            "dangerouslyDisableSandbox is not available",
        ),
        (json!({"command": "true", "timeout": 0}), "`timeout` must be at least 1"),
        (json!({"command": "true", "timeout": "soon"}), "`timeout` must be of type integer"),
        (json!({"command": ["ls"]}), "`command` must be of type string"),
    ] {
        let error = place.fails("Bash", input).await;
        assert!(error.contains(says), "{error}");
    }
    let input = json!({"command": "true", "description": "d", "run_in_background": false,
                       "dangerouslyDisableSandbox": false, "timeout": 99_000_000_000_u64});
    place.ok("Bash", input).await;
}

#[tokio::test]
async fn a_command_longer_than_an_argument_may_be() {
    let place = Place::new();
    let body = "0123456789abcdef\n".repeat(20_000);
    let command = format!("cat > f <<'END'\n{body}END\ncd /; wc -c < /dev/null; exit 4");
    assert_eq!(place.fails("Bash", json!({"command": command})).await, "Exit code 4\n0");
    assert_eq!(place.get("f"), body);
    assert_eq!(*place.context.bash_cwd.lock().unwrap(), std::path::Path::new("/"));
    assert_eq!(std::fs::read_dir(&place.context.output_dir).unwrap().count(), 0);
}

#[tokio::test]
async fn long_output_is_cut_and_kept() {
    let place = Place::with_limits(ToolLimits {
        bash_output_chars: 100,
        bash_output_bytes: 10_000,
        ..ToolLimits::default()
    });
    let output = bash(&place, "seq 1000").await;
    let kept = output.structured["persistedOutputPath"].as_str().unwrap().to_owned();
    assert_eq!(output.structured["persistedOutputSize"], 3_893);
    let all: String = (1..=1_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), all);
    let said = text(&output);
    assert!(said.starts_with("1\n2\n3\n") && said.ends_with("\n999\n1000"), "{said}");
    assert!(
        said.contains(&format!("[3793 of 3893 bytes of output left out here: all of it is in {kept}")),
        "{said}"
    );
    assert_eq!(output.structured["stdout"], said);
    // Beyond what is kept.
    let output = bash(&place, "seq 5000").await;
    let kept = output.structured["persistedOutputPath"].as_str().unwrap();
    assert_eq!(std::fs::metadata(kept).unwrap().len(), 10_000);
    assert!(text(&output).contains("its beginning is in"));
    // A little too many bytes, but not too many characters.
    let output = bash(&place, "printf 'é%.0s' {1..100}").await;
    assert_eq!(output.content, "é".repeat(100));
    assert_eq!(output.structured.get("persistedOutputPath"), None);
    // In the middle of a character, and of a failure.
    let output = bash(&place, "printf 'é%.0s' {1..5000}; exit 5").await;
    let said = text(&output);
    assert!(said.starts_with(&format!("Exit code 5\n{}\n\n[", "é".repeat(50))), "{said}");
    assert!(said.ends_with(&format!("]\n\n{}", "é".repeat(50))), "{said}");
    assert_eq!(std::fs::read_dir(&place.context.output_dir).unwrap().count(), 3);
}

#[tokio::test]
async fn output_that_cannot_be_kept_is_no_failure() {
    let mut place = Place::with_limits(ToolLimits { bash_output_chars: 100, ..ToolLimits::default() });
    place.context.output_dir = "/dev/null/nowhere".into();
    let said = text(&bash(&place, "cd /; seq 1000").await);
    assert!(said.contains("it could not be kept") && said.ends_with("\n1000"), "{said}");
}

#[tokio::test]
async fn a_gigabyte_passes_within_a_few_megabytes() {
    let place = Place::new();
    let before = peak_memory_kb();
    let output = bash(&place, "head -c 1073741824 /dev/zero | tr '\\0' 'x'; echo end").await;
    assert_eq!(output.structured["persistedOutputSize"], 1_073_741_828_u64);
    let said = text(&output);
    assert!(said.starts_with("xxx") && said.ends_with("xxxend"));
    assert!(said.chars().count() < 30_300);
    let kept = output.structured["persistedOutputPath"].as_str().unwrap();
    assert_eq!(std::fs::metadata(kept).unwrap().len(), 16 * 1024 * 1024);
    // Pages of the program itself that were not touched before count too.
    assert!(peak_memory_kb() - before < 12_000, "{} KiB more", peak_memory_kb() - before);
}

fn peak_memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A command that leaves a process behind that has a session and a parent of its own, hears no polite signal, and
/// holds the output open; its id is in the file `pid`.
const DETACHED: &str = "setsid sh -c 'trap \"\" TERM HUP; \
                        (trap \"\" TERM HUP; echo $$ > pid.new; sh -c \"echo \\$PPID\" > pid2; mv pid.new pid; \
                        while :; do sleep 1; done) & exit' & \
                        while ! [ -e pid ]; do sleep 0.01; done; ";

fn processes_of(place: &Place) -> Vec<i32> {
    let marker = format!("{}\0", place.cwd.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_str().unwrap().parse::<i32>() else { continue };
        let is_here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == place.cwd);
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if is_here || String::from_utf8_lossy(&environ).contains(&marker) {
            found.push(id);
        }
    }
    found
}

/// Children of this process that have ended and were not collected.
fn zombies() -> Vec<String> {
    let own = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!(") Z {own} "))).collect()
}

#[tokio::test]
async fn a_timeout_ends_all_of_it() {
    become_subreaper().unwrap();
    let place = Place::new();
    let started = Instant::now();
    let input = json!({"command": format!("{DETACHED} echo started; sleep 1000"), "timeout": 1_500});
    let output = place.call("Bash", input).await;
    assert!(started.elapsed() >= Duration::from_millis(1_500));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let said = "[the command took longer than 1500 ms and was ended, with all that it had started]\nstarted";
    assert_eq!((output.is_error, text(&output)), (true, said.to_owned()));
    assert_eq!(
        output.structured,
        json!({"stdout": "started", "stderr": "", "interrupted": true, "isImage": false,
               "noOutputExpected": false, "timedOutAfterMs": 1_500})
    );
    let detached: i32 = place.get("pid2").trim().parse().unwrap();
    assert!(!std::fs::exists(format!("/proc/{detached}")).unwrap(), "{detached} lives");
    assert_eq!(processes_of(&place), Vec::<i32>::new());
    assert_eq!(zombies(), Vec::<String>::new());
    // The next call works.
    assert_eq!(bash(&place, "echo fine").await.content, "fine");
}

#[tokio::test]
async fn stopping_the_turn_ends_all_of_it() {
    become_subreaper().unwrap();
    let place = Place::new();
    let command = json!({"command": format!("{DETACHED} echo started; sleep 1000")});
    let call = place.call("Bash", command);
    let stop = async {
        wait_for(&place, "pid").await;
        place.context.cancel.cancel();
        Instant::now()
    };
    let (output, stopped_at) = tokio::join!(call, stop);
    assert!(stopped_at.elapsed() < Duration::from_secs(2), "{:?}", stopped_at.elapsed());
    assert!(output.is_error && text(&output).starts_with("[the command was stopped"), "{output:?}");
    assert_eq!(output.structured["interrupted"], true);
    assert_eq!(processes_of(&place), Vec::<i32>::new());
    assert_eq!(zombies(), Vec::<String>::new());
}

#[tokio::test]
async fn dropping_the_call_ends_all_of_it() {
    become_subreaper().unwrap();
    let place = Place::new();
    let command = json!({"command": format!("{DETACHED} echo started; sleep 1000")});
    tokio::select! {
        output = place.call("Bash", command) => panic!("{output:?}"),
        () = wait_for(&place, "pid") => {}
    }
    // Killed, but perhaps not yet gone.
    let end = Instant::now() + Duration::from_secs(5);
    while !processes_of(&place).is_empty() && Instant::now() < end {
        tokio::task::yield_now().await;
    }
    assert_eq!(processes_of(&place), Vec::<i32>::new());
    assert_eq!(bash(&place, "true").await.content, "[no output]");
    assert_eq!(zombies(), Vec::<String>::new());
}

#[tokio::test]
async fn a_polite_command_may_clean_up() {
    let place = Place::new();
    let command = "trap 'echo cleaned > f; exit' TERM; echo x > ready; sleep 1000 & wait";
    let call = place.call("Bash", json!({"command": command}));
    let stop = async {
        wait_for(&place, "ready").await;
        place.context.cancel.cancel();
    };
    tokio::join!(call, stop);
    assert_eq!(place.get("f"), "cleaned\n");
}

#[tokio::test]
async fn what_runs_on_in_the_background_neither_hangs_nor_breaks() {
    become_subreaper().unwrap();
    let place = Place::new();
    let started = Instant::now();
    let command = "(while ! [ -e stop ]; do echo still here; sleep 0.01; done; echo $? > new; mv new ended) & echo started";
    let output = bash(&place, command).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(text(&output).contains("started") && !output.is_error, "{output:?}");
    // It outlives the call, and its output breaks nothing, however much it is.
    let status = bash(
        &place,
        "head -c 1000000 /dev/zero > f; touch stop; while ! [ -e ended ]; do sleep 0.01; done; cat ended",
    );
    assert_eq!(text(&status.await), "0");
    // It ends shortly after, and is collected.
    let end = Instant::now() + Duration::from_secs(10);
    while !zombies().is_empty() || !processes_of(&place).is_empty() {
        assert!(Instant::now() < end, "{:?} {:?}", zombies(), processes_of(&place));
        reap_orphans();
    }
}

#[tokio::test]
async fn a_flood_from_the_background_ends_the_draining() {
    let place = Place::new();
    let started = Instant::now();
    assert!(!bash(&place, "yes & echo $! > id").await.is_error);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(bash(&place, "kill $(cat id)").await.content, "[no output]");
}

#[tokio::test]
async fn calls_side_by_side_do_not_mix() {
    let place = Place::new();
    let call = |n: u32| place.call("Bash", json!({"command": format!("sleep 0.0{n}; echo {n}")}));
    let outputs = tokio::join!(call(1), call(2), call(3));
    assert_eq!([text(&outputs.0), text(&outputs.1), text(&outputs.2)], ["1", "2", "3"]);
}

async fn wait_for(place: &Place, name: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    while !place.path(name).exists() {
        assert!(Instant::now() < end, "{name} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn hostile_words_stay_words() {
    let place = Place::new();
    for command in [
        "'; echo pwned > /tmp/x; '",
        "$(",
        "`",
        "}",
        ")",
        "EXIT; ",
        "\u{1b}[31m",
        "é\u{0}".trim_end_matches('\0'),
    ] {
        let output: Value = bash(&place, command).await.content;
        assert!(output.is_string());
    }
}
