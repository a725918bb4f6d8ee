//! The command line's boundary: each row is a wrong command line or configuration; its status and what it says are
//! asserted, and that the good command still works.

use std::fs;
use std::process::Output;

use tempfile::TempDir;

use super::support::wardian;

/// What is wrong, the arguments (`{dir}` is a scratch folder), the status, and what the error must name.
const ROWS: &[(&str, &[&str], i32, &str)] = &[
    ("malformed: no command", &[], 2, "Usage"),
    ("malformed: unknown command", &["srve"], 2, "serve"),
    ("malformed: unknown flag", &["serve", "--lisen", "x"], 2, "--listen"),
    ("malformed: no address", &["serve", "--listen", "here"], 2, "`listen`: expected an address"),
    ("malformed: no URL", &["serve", "--upstream", "not a url"], 2, "`upstream`"),
    ("malformed: a flag without its value", &["keys", "create", "--name"], 2, "a value is required"),
    ("malformed: unknown scope", &["keys", "create", "--scope", "root"], 2, "expected one of admin"),
    ("malformed: no key id", &["keys", "revoke", "sk-ant-x"], 2, "key_"),
    ("malformed: no session id", &["usage", "--session", "../x"], 2, "sesn_"),
    ("malformed: no moment", &["usage", "--from", "yesterday"], 2, "expected a date"),
    ("malformed: dollars", &["run", "x", "--max-cost-usd", "a lot"], 2, "as dollars"),
    ("malformed: format", &["run", "x", "--output-format", "xml"], 2, "stream-json"),
    ("malformed: configuration", &["serve", "--config", "{dir}/broken.toml"], 2, "broken.toml"),
    ("malformed: script", &["model", "--script", "{dir}/broken.toml"], 2, "broken.toml"),
    ("malformed: no variable", &["sandbox", "exec", "--env", "NOVALUE", "--", "true"], 2, "NAME=VALUE"),
    ("truncated: no command to run", &["sandbox", "exec", "--"], 2, "CMD"),
    ("truncated: no prompt", &["run"], 2, "PROMPT"),
    ("truncated: configuration", &["serve", "--config", "{dir}/cut.toml"], 2, "cut.toml"),
    ("over the limit: seconds", &["sandbox", "exec", "--timeout", "1e12", "--", "true"], 2, "seconds"),
    ("over the limit: dollars", &["run", "x", "--max-cost-usd", "99999999"], 2, "amounts go from 0"),
    ("over the limit: nano-dollars", &["run", "x", "--max-cost-usd", "0.0000000001"], 2, "nano-dollar"),
    ("over the limit: turns", &["run", "x", "--max-turns", "4294967296"], 2, "--max-turns"),
    ("over the limit: a ceiling", &["run", "x", "--max-turns", "4000000"], 2, "limits.max_turns"),
    ("over the limit: configuration", &["serve", "--config", "{dir}/huge.toml"], 2, "at most"),
    ("hostile: configuration", &["serve", "--config", "{dir}/hostile.toml"], 2, "did you mean `listen`"),
    ("hostile: an open address", &["serve", "--listen", "0.0.0.0:0"], 2, "--behind-tls-proxy"),
    ("hostile: user in the URL", &["serve", "--upstream", "http://a:b@h"], 2, "without user"),
    ("hostile: other scheme", &["run", "x", "--upstream", "file:///etc/passwd"], 2, "expected a URL"),
    ("hostile: negative time", &["run", "x", "--timeout", "-1"], 2, "-1"),
    ("hostile: no such folder", &["sandbox", "exec", "--workspace", "{dir}/none", "--", "true"], 2, "none"),
    (
        "hostile: a file as folder",
        &["sandbox", "exec", "--workspace", "{dir}/cut.toml", "--", "true"],
        2,
        "no folder",
    ),
    ("hostile: a device as script", &["model", "--script", "/dev/zero"], 2, "/dev/zero"),
];

#[tokio::test(flavor = "multi_thread")]
async fn wrong_command_lines_say_what_is_wrong() {
    let scratch = tempfile::tempdir().unwrap();
    prepare(&scratch);
    let mut wrong = Vec::new();
    for (name, arguments, status, said) in ROWS {
        let output = command(&scratch, arguments).await;
        let error = String::from_utf8_lossy(&output.stderr);
        let named = error.contains(said) && !error.contains("panicked");
        if output.status.code() != Some(*status) || !named || !output.stdout.is_empty() {
            wrong.push(format!("{name}: {output:?}"));
        }
        let good = command(&scratch, &["config"]).await;
        assert!(good.status.success() && good.stdout.starts_with(b"# Wardian"), "after {name}: {good:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_wrong_is_in_the_table() {
    for kind in ["malformed", "truncated", "over the limit", "hostile"] {
        assert!(ROWS.iter().any(|(name, ..)| name.starts_with(kind)), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_begins() {
    let scratch = tempfile::tempdir().unwrap();
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["run", "x"]] {
        let output = wardian()
            .args(arguments)
            .env_remove("ANTHROPIC_API_KEY")
            .env("WARDIAN_DATA_DIR", scratch.path().join("data"))
            .output()
            .await
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("ANTHROPIC_API_KEY is not set") && error.contains("hint: "), "{error}");
        assert!(!scratch.path().join("data").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_gone_and_secrets_are_not_listed() {
    let scratch = tempfile::tempdir().unwrap();
    let key = command(&scratch, &["keys", "create", "--name", "ci", "--user", "ann"]).await;
    let key = String::from_utf8(key.stdout).unwrap();
    let listed = String::from_utf8(command(&scratch, &["keys", "list"]).await.stdout).unwrap();
    let secret = key.trim().rsplit('-').next().unwrap();
    assert!(
        listed.contains("ci") && listed.contains("user ann") && listed.contains("sessions,read"),
        "{listed}"
    );
    assert!(!listed.contains(secret));
    let id = listed.split_whitespace().next().unwrap().to_owned();
    assert!(command(&scratch, &["keys", "revoke", &id]).await.status.success());
    assert_eq!(command(&scratch, &["keys", "revoke", &id]).await.status.code(), Some(1));
    let listed = String::from_utf8(command(&scratch, &["keys", "list"]).await.stdout).unwrap();
    assert!(listed.contains("revoked"), "{listed}");
}

fn prepare(scratch: &TempDir) {
    let write = |name: &str, text: &[u8]| fs::write(scratch.path().join(name), text).unwrap();
    write("broken.toml", b"listen = = 3\n");
    write("cut.toml", b"[limits\nmax_tur");
    write("huge.toml", &vec![b'#'; 2 << 20]);
    write("hostile.toml", b"lisTen = \"127.0.0.1:0\"\n[sandbox]\nmemory_mib = \"all\"\n");
}

async fn command(scratch: &TempDir, arguments: &[&str]) -> Output {
    let dir = scratch.path().to_str().unwrap();
    wardian()
        .args(arguments.iter().map(|argument| argument.replace("{dir}", dir)))
        .env("ANTHROPIC_API_KEY", "sk-ant-nobody")
        .env("WARDIAN_DATA_DIR", scratch.path().join("data"))
        .env_remove("ANTHROPIC_BASE_URL")
        .output()
        .await
        .unwrap()
}
