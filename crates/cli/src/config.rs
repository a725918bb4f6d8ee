//! The configuration of `wardian serve`, in two steps: what was written, then what it means.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http::Uri;
use serde::Deserialize;
use wardian_protocol::NanoUsd;
use wardian_server::CanaryConfig;
use wardian_session::{Caps, GIVEN, Retention, RunLimits, SessionLimits};
use wardian_store::SqliteStore;

use crate::failure::{self, Failure, Outcome, setup, usage};
use crate::host::make_private;

#[cfg(test)]
mod page;

/// The commented example: every key with its default. A test reads it back.
const EXAMPLE: &str = include_str!("wardian.toml");

/// A configuration file is a page of text.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The canary costs money each time.
const MIN_CANARY_SECONDS: u64 = 10;

/// `wardian config`.
pub fn print() -> Outcome {
    failure::print(EXAMPLE.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// What the file says. A key that is missing has the example's value.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// See the example, as for every key.
    pub listen: String,
    pub admin_listen: String,
    pub data_dir: PathBuf,
    pub upstream: String,
    pub behind_tls_proxy: bool,
    pub allow_no_cgroup: bool,
    pub hosts: Vec<String>,
    pub origins: Vec<String>,
    pub default_model: String,
    pub read_only: Vec<PathBuf>,
    pub limits: WrittenLimits,
    pub ceilings: WrittenLimits,
    pub sessions: WrittenSessions,
    pub caps: WrittenCaps,
    pub sandbox: WrittenSandbox,
    pub server: WrittenServer,
    pub retention: WrittenRetention,
    pub canary: WrittenCanary,
    pub telemetry: WrittenTelemetry,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct WrittenLimits {
    pub max_turns: u32,
    pub max_cost_usd: f64,
    pub timeout_seconds: u64,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct WrittenCaps {
    pub runs_per_host: usize,
    pub runs_per_org: usize,
    pub runs_per_user: usize,
    pub runs_per_key: usize,
    pub queued_per_host: usize,
    pub queued_per_user: usize,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct WrittenSessions {
    pub max_cost_usd: f64,
    pub max_turns: u32,
    pub turn_timeout_seconds: u64,
    pub idle_timeout_seconds: u64,
    pub warm_sandboxes: usize,
    pub approval_ttl_seconds: u64,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct WrittenSandbox {
    pub memory_mib: u64,
    pub pids: u64,
    pub tmp_mib: u64,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct WrittenServer {
    pub max_connections: usize,
    pub failed_logins_per_minute: u32,
    pub drain_timeout_seconds: u64,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct WrittenRetention {
    pub events_days: u32,
    pub sessions_days: u32,
    pub usage_days: u32,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct WrittenCanary {
    pub enabled: bool,
    pub every_seconds: u64,
    pub model: String,
    pub max_cost_usd: f64,
    pub max_cost_usd_per_day: f64,
    pub affects_readiness: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct WrittenTelemetry {
    pub otlp_endpoint: String,
}

/// What it means.
#[derive(Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub admin_listen: AdminListen,
    pub data_dir: PathBuf,
    pub upstream: Uri,
    pub allow_no_cgroup: bool,
    pub hosts: Vec<String>,
    pub origins: Vec<String>,
    pub default_model: String,
    pub read_only: Vec<PathBuf>,
    pub limits: RunLimits,
    pub ceilings: RunLimits,
    pub sessions: SessionLimits,
    pub caps: Caps,
    pub sandbox: wardian_sandbox::Limits,
    pub max_connections: usize,
    pub failed_logins_per_minute: u32,
    pub drain_timeout: Duration,
    pub retention: Retention,
    pub canary: Option<CanaryConfig>,
    pub otlp_endpoint: Option<Uri>,
}

/// Where the admin listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// Nowhere.
    Off,
    /// There, if it is free.
    Default(SocketAddr),
    /// There.
    At(SocketAddr),
}

/// Where it is when nobody says.
const DEFAULT_ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8701);

/// Reads the file, or takes the defaults where there is none.
pub fn read(path: Option<&Path>) -> Result<Written, Failure> {
    let text = match path {
        None => String::new(),
        Some(path) => read_text(path).with_context(|| format!("read {}", path.display())).map_err(usage)?,
    };
    parse(&text).map_err(|errors| {
        let place = path.map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
        usage(anyhow!("use {place}:\n  {}", errors.join("\n  ")))
            .hint("`wardian config` prints every key with its default")
    })
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(anyhow!("it has {size} bytes, at most {MAX_FILE_BYTES} are read"));
    }
    Ok(fs::read_to_string(path)?)
}

/// Lays the file's keys over the defaults and reads the whole; every wrong key is named.
fn parse(text: &str) -> Result<Written, Vec<String>> {
    let mut table: toml::Table = EXAMPLE.parse().expect("the example is tested");
    let written: toml::Table = text.parse().map_err(|error: toml::de::Error| vec![error.to_string()])?;
    let mut errors = Vec::new();
    overlay(&mut table, written, "", &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    table.try_into().map_err(|error: toml::de::Error| vec![error.to_string()])
}

fn overlay(below: &mut toml::Table, above: toml::Table, prefix: &str, errors: &mut Vec<String>) {
    for (key, value) in above {
        let shown = format!("{prefix}{key}");
        let Some(place) = below.get_mut(&key) else {
            let nearest = below.keys().max_by(|a, b| alike(a, &key).total_cmp(&alike(b, &key)));
            let meant = nearest.map(|near| format!("; did you mean `{prefix}{near}`?")).unwrap_or_default();
            errors.push(format!("unknown key `{shown}`{meant}"));
            continue;
        };
        match (place, value) {
            (toml::Value::Table(below), toml::Value::Table(above)) => {
                overlay(below, above, &format!("{shown}."), errors);
            }
            (place @ toml::Value::Float(_), toml::Value::Integer(whole)) => {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "an amount of dollars; checked when it is read"
                )]
                let number = whole as f64;
                *place = toml::Value::Float(number);
            }
            (place, value) if place.same_type(&value) => *place = value,
            (place, value) => {
                errors.push(format!("`{shown}`: expected {}, found {}", place.type_str(), value.type_str()));
            }
        }
    }
}

/// How much two keys have in common: the share of letter pairs.
fn alike(one: &str, other: &str) -> f64 {
    strsim::sorensen_dice(one, other)
}

impl Written {
    /// Checks everything; every wrong value is named.
    pub fn check(self) -> Result<Config, Failure> {
        let mut errors = Vec::new();
        let config = Config {
            listen: or_error(&mut errors, "listen", listen(&self.listen, self.behind_tls_proxy))
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            admin_listen: or_error(&mut errors, "admin_listen", admin_listen(&self.admin_listen))
                .unwrap_or(AdminListen::Off),
            upstream: or_error(&mut errors, "upstream", upstream(&self.upstream)).unwrap_or_default(),
            limits: limits(&mut errors, "limits", &self.limits),
            ceilings: limits(&mut errors, "ceilings", &self.ceilings),
            sessions: sessions(&mut errors, &self.sessions),
            caps: caps(&mut errors, &self.caps),
            sandbox: wardian_sandbox::Limits {
                memory_bytes: mebibytes(&mut errors, "sandbox.memory_mib", self.sandbox.memory_mib),
                tmp_bytes: mebibytes(&mut errors, "sandbox.tmp_mib", self.sandbox.tmp_mib),
                pids: self.sandbox.pids.max(1),
                ..wardian_sandbox::Limits::default()
            },
            max_connections: positive(&mut errors, "server.max_connections", self.server.max_connections),
            failed_logins_per_minute: self.server.failed_logins_per_minute.max(1),
            drain_timeout: Duration::from_secs(self.server.drain_timeout_seconds),
            retention: Retention {
                events: days(self.retention.events_days),
                sessions: days(self.retention.sessions_days),
                usage: days(self.retention.usage_days),
            },
            canary: canary(&mut errors, &self.canary),
            otlp_endpoint: or_error(
                &mut errors,
                "telemetry.otlp_endpoint",
                collector(&self.telemetry.otlp_endpoint),
            )
            .flatten(),
            read_only: folders(&mut errors, &self.read_only),
            data_dir: self.data_dir,
            allow_no_cgroup: self.allow_no_cgroup,
            hosts: self.hosts,
            origins: self.origins,
            default_model: self.default_model,
        };
        if errors.is_empty() {
            Ok(config)
        } else {
            Err(usage(anyhow!("use the configuration:\n  {}", errors.join("\n  ")))
                .hint("`wardian config` prints every key with its default"))
        }
    }
}

fn or_error<T>(errors: &mut Vec<String>, key: &str, found: Result<T, String>) -> Option<T> {
    found.map_err(|error| errors.push(format!("`{key}`: {error}"))).ok()
}

fn listen(text: &str, behind_tls_proxy: bool) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("expected an address and port such as 127.0.0.1:8700, found {text:?}"))?;
    if address.ip().is_loopback() || behind_tls_proxy {
        return Ok(address);
    }
    Err(format!(
        "{address} can be reached from elsewhere, and keys would travel in the clear; listen on 127.0.0.1 behind a proxy \
         that does TLS, or say --behind-tls-proxy if one is in front of this address"
    ))
}

fn admin_listen(text: &str) -> Result<AdminListen, String> {
    match text.parse() {
        _ if text == "none" => Ok(AdminListen::Off),
        Ok(DEFAULT_ADMIN_LISTEN) => Ok(AdminListen::Default(DEFAULT_ADMIN_LISTEN)),
        Ok(address) => Ok(AdminListen::At(address)),
        Err(_) => Err(format!(
            "expected an address and port such as {DEFAULT_ADMIN_LISTEN}, or none, found {text:?}"
        )),
    }
}

/// Reads the collector's address; none where nothing is written.
fn collector(text: &str) -> Result<Option<Uri>, String> {
    if text.is_empty() { Ok(None) } else { upstream(text).map(Some) }
}

/// Reads the upstream's base address.
pub fn upstream(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|_| format!("expected a URL such as https://api.anthropic.com, found {text:?}"))?;
    let known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some();
    let plain =
        uri.authority().is_some_and(|authority| !authority.as_str().contains('@')) && uri.query().is_none();
    if known && plain {
        Ok(uri)
    } else {
        Err(format!("expected http:// or https:// and a host, without user or query, found {text:?}"))
    }
}

fn limits(errors: &mut Vec<String>, table: &str, written: &WrittenLimits) -> RunLimits {
    let max_cost = NanoUsd::from_claimed_usd(written.max_cost_usd).filter(|amount| *amount > NanoUsd::ZERO);
    if max_cost.is_none() {
        errors.push(format!(
            "`{table}.max_cost_usd`: expected dollars above 0, found {}",
            written.max_cost_usd
        ));
    }
    if written.timeout_seconds == 0 {
        errors.push(format!("`{table}.timeout_seconds`: expected at least 1"));
    }
    if written.max_turns == 0 {
        errors.push(format!("`{table}.max_turns`: expected at least 1"));
    }
    RunLimits {
        max_turns: written.max_turns,
        max_cost: max_cost.unwrap_or_default(),
        timeout: Duration::from_secs(written.timeout_seconds),
    }
}

fn sessions(errors: &mut Vec<String>, written: &WrittenSessions) -> SessionLimits {
    let turn = WrittenLimits {
        max_turns: written.max_turns,
        max_cost_usd: written.max_cost_usd,
        timeout_seconds: written.turn_timeout_seconds.max(1),
    };
    if written.turn_timeout_seconds == 0 {
        errors.push("`sessions.turn_timeout_seconds`: expected at least 1".to_owned());
    }
    let turn = limits(errors, "sessions", &turn);
    SessionLimits {
        max_cost: turn.max_cost,
        max_turns: turn.max_turns,
        turn_timeout: turn.timeout,
        idle_timeout: Duration::from_secs(written.idle_timeout_seconds),
        approval_ttl: Duration::from_secs(written.approval_ttl_seconds),
        warm_sandboxes: written.warm_sandboxes,
    }
}

fn caps(errors: &mut Vec<String>, written: &WrittenCaps) -> Caps {
    Caps {
        runs_per_host: positive(errors, "caps.runs_per_host", written.runs_per_host),
        runs_per_org: positive(errors, "caps.runs_per_org", written.runs_per_org),
        runs_per_user: positive(errors, "caps.runs_per_user", written.runs_per_user),
        runs_per_key: positive(errors, "caps.runs_per_key", written.runs_per_key),
        queued_per_host: written.queued_per_host,
        queued_per_user: written.queued_per_user,
    }
}

/// Reads the canary, whether it is on or not: a wrong value is wrong today, too.
fn canary(errors: &mut Vec<String>, written: &WrittenCanary) -> Option<CanaryConfig> {
    let mut dollars = |key: &str, amount: f64| {
        let read = NanoUsd::from_claimed_usd(amount).filter(|amount| *amount > NanoUsd::ZERO);
        if read.is_none() {
            errors.push(format!("`canary.{key}`: expected dollars above 0, found {amount}"));
        }
        read.unwrap_or_default()
    };
    let max_cost = dollars("max_cost_usd", written.max_cost_usd);
    let max_cost_per_day = dollars("max_cost_usd_per_day", written.max_cost_usd_per_day);
    if max_cost_per_day < max_cost {
        errors.push("`canary.max_cost_usd_per_day`: expected at least what one run may cost".to_owned());
    }
    if written.every_seconds < MIN_CANARY_SECONDS {
        errors.push(format!("`canary.every_seconds`: expected at least {MIN_CANARY_SECONDS}"));
    }
    if written.model.is_empty() {
        errors.push("`canary.model`: expected a model's name or an alias".to_owned());
    }
    written.enabled.then(|| CanaryConfig {
        every: Duration::from_secs(written.every_seconds),
        model: written.model.clone(),
        max_cost,
        max_cost_per_day,
        affects_readiness: written.affects_readiness,
    })
}

/// A number of days; 0 is for ever.
fn days(number: u32) -> Option<Duration> {
    (number > 0).then(|| Duration::from_secs(u64::from(number) * 24 * 3600))
}

fn positive(errors: &mut Vec<String>, key: &str, number: usize) -> usize {
    if number == 0 {
        errors.push(format!("`{key}`: expected at least 1"));
    }
    number
}

fn mebibytes(errors: &mut Vec<String>, key: &str, number: u64) -> u64 {
    const MOST_MIB: u64 = 1 << 24;
    if (1..=MOST_MIB).contains(&number) {
        return number << 20;
    }
    errors.push(format!("`{key}`: expected 1 to {MOST_MIB}, found {number}"));
    1 << 20
}

fn folders(errors: &mut Vec<String>, paths: &[PathBuf]) -> Vec<PathBuf> {
    let folder = |path: &PathBuf| match fs::canonicalize(path) {
        Ok(found) if found.starts_with(GIVEN) => {
            Err(format!("{} is below {GIVEN}, where sessions see their own files", path.display()))
        }
        Ok(found) if found.is_dir() => Ok(found),
        Ok(_) => Err(format!("{} is no folder", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    };
    paths.iter().filter_map(|path| or_error(errors, "read_only", folder(path))).collect()
}

/// Opens the store of a data folder, which is made if it is missing.
pub fn open_store(data_dir: &Path) -> Result<SqliteStore, Failure> {
    make_private(data_dir).map_err(setup)?;
    SqliteStore::open(&data_dir.join("wardian.db")).map_err(setup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_holds_the_defaults() {
        let config = parse("").unwrap().check().unwrap();
        assert_eq!((config.limits, config.ceilings), (RunLimits::DEFAULT, RunLimits::CEILING));
        assert_eq!(config.caps, Caps::default());
        assert_eq!(config.sessions, SessionLimits::default());
        assert_eq!(config.admin_listen, AdminListen::Default(DEFAULT_ADMIN_LISTEN));
        assert_eq!(config.sandbox, wardian_sandbox::Limits::default());
        let server = wardian_server::ServerConfig::default();
        assert_eq!(config.max_connections, server.max_connections);
        assert_eq!(config.failed_logins_per_minute, server.failed_logins_per_minute);
        assert_eq!(config.drain_timeout, server.drain_timeout);
        assert_eq!((config.retention, config.canary), (server.retention, server.canary));
        assert_eq!(config.upstream.to_string().trim_end_matches('/'), crate::host::DEFAULT_UPSTREAM);
    }

    #[test]
    fn every_wrong_key_is_named_with_the_nearest() {
        let errors =
            parse("lissten = 'x'\nhosts = 3\n[limits]\nmax_turn = 1\n[nonsense]\na = 1\n").unwrap_err();
        let text = errors.join("\n");
        for part in [
            "`lissten`; did you mean `listen`",
            "`hosts`: expected array, found integer",
            "`limits.max_turns`",
            "`nonsense`",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(parse("listen = ").is_err());
        assert_eq!(parse("[limits]\nmax_cost_usd = 2\n").unwrap().limits.max_cost_usd, 2.0);
    }

    #[test]
    fn days_are_days_and_0_is_for_ever() {
        let config = parse("[retention]\nevents_days = 2\nusage_days = 400\n").unwrap().check().unwrap();
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        assert_eq!(config.retention, Retention { events: days(2), sessions: None, usage: days(400) });
        assert!(parse("[retention]\nevents_days = -1\n").is_err());
    }

    #[test]
    fn every_wrong_value_is_named() {
        let text = "listen = '0.0.0.0:1'\nadmin_listen = '8701'\nupstream = 'ftp://x'\nread_only = ['/mnt']\n[limits]\nmax_turns = 0\nmax_cost_usd = -1.0\n[caps]\nruns_per_user = 0\n[telemetry]\notlp_endpoint = 'grpc://x'\n[canary]\nevery_seconds = 1\nmodel = ''\nmax_cost_usd = 9.0\n";
        let failure = format!("{:?}", parse(text).unwrap().check().unwrap_err());
        for part in [
            "behind-tls-proxy",
            "`admin_listen`",
            "`upstream`",
            "`read_only`",
            "`limits.max_turns`",
            "`limits.max_cost_usd`",
            "`caps.runs_per_user`",
            "`telemetry.otlp_endpoint`",
            "`canary.every_seconds`",
            "`canary.model`",
            "`canary.max_cost_usd_per_day`",
        ] {
            assert!(failure.contains(part), "{part} in {failure}");
        }
        for (text, expected) in [
            ("none", AdminListen::Off),
            ("127.0.0.1:0", AdminListen::At("127.0.0.1:0".parse().unwrap())),
            ("[::]:9", AdminListen::At("[::]:9".parse().unwrap())),
        ] {
            assert_eq!(admin_listen(text), Ok(expected));
        }
        assert!(parse("listen = '0.0.0.0:1'\nbehind_tls_proxy = true\n").unwrap().check().is_ok());
    }
}
