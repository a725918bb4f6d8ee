//! One shell.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::PoisonError;

use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::tool::ToolContext;
use crate::tools::file;

/// Tried in this order.
const SHELLS: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/bin/sh"];

/// A longer command goes through a file: Linux takes no argument over 128 KiB.
const ARGUMENT_BYTES: usize = 96 * 1024;

/// The longest folder that is carried over, in bytes.
const FOLDER_BYTES: u64 = 16 * 1024;

/// A running shell.
#[derive(Debug)]
pub struct Shell {
    child: Child,
    id: u32,
    output: Option<pipe::Receiver>,
    /// Where the shell says at its end in which folder it is.
    folder_file: Option<Scratch>,
    _script: Option<Scratch>,
    note: Option<String>,
}

impl Shell {
    /// Starts a shell that runs a command, with nothing but the context's environment, without input, and both its
    /// outputs in one pipe.
    pub fn start(command: &str, context: &ToolContext) -> Result<Self, String> {
        let (folder, note) = folder(context);
        // A full disk must not keep the user from deleting: without the file a `cd` does not last, no more.
        let _ = file::private_folder(&context.output_dir);
        let folder_file = Scratch::new(context, ".cwd", "").ok();
        let trap = folder_file.as_ref().map(|file| trap(&file.0)).unwrap_or_default();
        let mut script = None;
        let line = if command.len() > ARGUMENT_BYTES {
            let file = Scratch::new(context, ".sh", command)
                .map_err(|error| format!("failed to keep the command in a file: {error}"))?;
            let line = format!("{trap}. {}", quoted(&file.0.to_string_lossy()));
            script = Some(file);
            line
        } else {
            format!("{trap}{command}")
        };
        let started = spawn(&line, &folder, context);
        let (child, output) = started.map_err(|error| format!("failed to start a shell: {error}"))?;
        let id = child.id().ok_or("the shell ended before it began")?;
        Ok(Self { child, id, output: Some(output), folder_file, _script: script, note })
    }

    /// Its process id, which is also the id of its process group.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The reading end of its output. It is there once.
    pub fn take_output(&mut self) -> pipe::Receiver {
        self.output.take().expect("taken once, right after the start")
    }

    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Lets the next shell begin where this one ended.
    pub fn carry_folder(&self, context: &ToolContext) {
        let Some(file) = &self.folder_file else { return };
        let Ok((mut opened, _)) = file::open_regular(&file.0) else { return };
        let Ok(bytes) = file::read_whole(&mut opened, FOLDER_BYTES, &CancellationToken::new()) else {
            return;
        };
        let Ok(text) = String::from_utf8(bytes) else { return };
        let folder = PathBuf::from(text.strip_suffix('\n').unwrap_or(&text));
        if folder.is_absolute() && folder.is_dir() {
            *context.bash_cwd.lock().unwrap_or_else(PoisonError::into_inner) = folder;
        }
    }

    /// What is to be told besides its output.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

/// Returns where to begin: where the last shell ended, if that is still there.
fn folder(context: &ToolContext) -> (PathBuf, Option<String>) {
    let folder = context.bash_cwd.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if folder.is_dir() {
        return (folder, None);
    }
    let note = format!("{} is gone; began in {}", folder.display(), context.cwd.display());
    (context.cwd.clone(), Some(note))
}

/// Makes the shell tell its folder at its end, however it ends, but by `exec` or a signal. In front of the command and
/// on its first line, so that messages name the command's own lines.
fn trap(file: &Path) -> String {
    let tell = format!("command pwd -P >|{} 2>/dev/null", quoted(&file.to_string_lossy()));
    format!("trap {} EXIT; ", quoted(&tell))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn spawn(line: &str, folder: &Path, context: &ToolContext) -> io::Result<(Child, pipe::Receiver)> {
    let shell = SHELLS.iter().find(|shell| Path::new(shell).exists());
    let shell = shell
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is neither /bin/bash nor /bin/sh"))?;
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(shell);
    command
        .arg("-c")
        .arg(line)
        .env_clear()
        .envs(context.env.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .kill_on_drop(true);
    // The command holds the writing end until it is dropped, which is here.
    Ok((command.spawn()?, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

/// A file of the tool's own, gone when dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new(context: &ToolContext, ending: &str, content: &str) -> io::Result<Self> {
        let path = context.output_dir.join(file::random_name("bash-", ending)?);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let scratch = Self(path);
        file.write_all(content.as_bytes())?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
