//! What the tools of a session know, kept from one start to the next: where Bash is, and which files the model has read.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::session::{Session, Setup};
use crate::tool::Known;

/// The most files that are remembered; those read first are forgotten, and read again when they are to be changed.
const MAX_FILES: usize = 10_000;

/// What a line says of it: what is new since the line before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ToolState {
    /// Where the next Bash call begins.
    pub(crate) cwd: Option<PathBuf>,
    files: Vec<File>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    path: PathBuf,
    /// Nanoseconds since the epoch.
    modified_ns: Exact,
    digest: Option<Exact>,
}

/// A number that is a text in JSON: a host in JavaScript that keeps transcripts makes large numbers into others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exact(u64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok());
        number.map(Self).ok_or_else(|| D::Error::custom("expected a whole number"))
    }
}

impl ToolState {
    /// Takes in what a later line says.
    pub(super) fn take_in(&mut self, later: Self) {
        self.files.extend(later.files);
        let too_many = self.files.len().saturating_sub(MAX_FILES);
        self.files.drain(..too_many);
        if later.cwd.is_some() {
            self.cwd = later.cwd;
        }
    }

    /// Gives it to the tools. A folder that is gone is none to be in.
    pub(crate) fn restore(self, setup: &Setup) {
        for File { path, modified_ns, digest } in self.files {
            let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(modified_ns.0);
            setup.context.reads.note(&path, Known { modified, digest: digest.map(|digest| digest.0) });
        }
        // It is kept already.
        drop(setup.context.reads.take_news());
        if let Some(cwd) = self.cwd.filter(|cwd| cwd.is_dir()) {
            *setup.context.bash_cwd.lock().unwrap_or_else(PoisonError::into_inner) = cwd;
        }
    }
}

impl Session {
    /// Keeps what the tools have learnt since the last time.
    pub(crate) async fn keep_tool_state(&mut self) {
        // Nobody takes a subagent up again.
        if self.setup.out.agent.is_some() {
            return;
        }
        let context = &self.setup.context;
        let news: HashMap<PathBuf, Known> = context.reads.take_news();
        let cwd = context.bash_cwd.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let has_moved = self.kept_cwd.as_ref().unwrap_or(&context.cwd) != &cwd;
        if news.is_empty() && !has_moved {
            return;
        }
        let file = |(path, known): (PathBuf, Known)| {
            let since = known.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let modified_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
            File { path, modified_ns: Exact(modified_ns), digest: known.digest.map(Exact) }
        };
        let state =
            ToolState { cwd: has_moved.then(|| cwd.clone()), files: news.into_iter().map(file).collect() };
        self.kept_cwd = Some(cwd);
        self.setup.out.keep_tool_state(json!({"state": state})).await;
    }
}
