//! What a hostile program would try first, tried from inside: `wardian-guest probe`, run in a sandbox by the doctor.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys;

/// One attempt. It is good when it was held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) name: String,
    pub(crate) held: bool,
    pub(crate) detail: String,
}

/// An address outside that needs no name to be looked up; nothing is sent there.
const OUTSIDE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), 53);
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

/// Tries everything and prints one JSON value.
pub(crate) fn main() -> io::Result<()> {
    println!("{}", serde_json::to_string(&attempts())?);
    Ok(())
}

fn attempts() -> Vec<Attempt> {
    let mut attempts = vec![
        refused("network outside", TcpStream::connect_timeout(&OUTSIDE, CONNECT_PATIENCE)),
        refused("host's secrets", fs::read("/etc/shadow")),
        refused("host's root folder", fs::read_dir("/root")),
        refused("host's homes", fs::read_dir("/home/../../home/root")),
        refused("write to /usr", fs::write("/usr/wardian-probe", "")),
        refused("write to /", fs::write("/wardian-probe", "")),
        refused("write to kernel settings", fs::write("/proc/sys/kernel/core_pattern", "x")),
        refused("environment of the guest", fs::read("/proc/1/environ")),
        refused("memory of the guest", fs::read("/proc/1/mem")),
        refused("files of the guest", fs::read_dir("/proc/1/fd")),
        refused("set-id file", set_id_file()),
    ];
    attempts.extend(sys::forbidden_calls().into_iter().map(|(name, result)| refused(name, result)));
    attempts.push(no_capabilities());
    attempts
}

fn refused<T>(name: &str, result: io::Result<T>) -> Attempt {
    let (held, detail) = match result {
        Ok(_) => (false, "it worked".to_owned()),
        Err(error) => (true, error.to_string()),
    };
    Attempt { name: name.to_owned(), held, detail }
}

fn set_id_file() -> io::Result<()> {
    let path = "/tmp/wardian-probe";
    fs::write(path, "")?;
    let result = fs::set_permissions(path, fs::Permissions::from_mode(0o4755));
    let _ = fs::remove_file(path);
    result
}

fn no_capabilities() -> Attempt {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = |names: &[&str]| -> Vec<String> {
        let wanted = |line: &&str| names.iter().any(|name| line.starts_with(name));
        status.lines().filter(wanted).map(|line| line.split_whitespace().collect()).collect()
    };
    let capabilities = lines(&["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"]);
    let none = capabilities.len() == 5 && capabilities.iter().all(|line| line.ends_with(":0000000000000000"));
    let rest = lines(&["NoNewPrivs:", "Seccomp:"]);
    let held = none && rest.contains(&"NoNewPrivs:1".to_owned()) && rest.contains(&"Seccomp:2".to_owned());
    let detail = capabilities.into_iter().chain(rest).collect::<Vec<_>>().join(" ");
    Attempt { name: "no capabilities, no new privileges, seccomp".to_owned(), held, detail }
}
