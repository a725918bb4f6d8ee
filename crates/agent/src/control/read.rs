//! Files for the host: their content, and which of them the model is taken to know.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Front;
use super::request::{Answer, Asked, Done, done};

/// The most bytes of a file that go into one answer: a line has less than 1 MiB, and JSON may write a byte as six.
const MAX_BYTES: u64 = 128 * 1024;
/// The same in base64, which writes three bytes as four.
const MAX_BASE64_BYTES: u64 = 640 * 1024;

#[derive(Deserialize)]
struct ReadFile {
    path: String,
    max_bytes: Option<u64>,
    encoding: Option<String>,
}

#[derive(Deserialize)]
struct SeedReadState {
    path: PathBuf,
    /// Milliseconds since the epoch.
    mtime: f64,
}

impl Front {
    /// Only files below the working directories are read, wherever links lead.
    pub(super) fn read_file(&self, asked: Asked) -> Done {
        let ReadFile { path, max_bytes, encoding } = asked.read()?;
        let base64 = match encoding.as_deref() {
            None | Some("utf-8") => false,
            Some("base64") => true,
            Some(_) => return Err("the field 'encoding' is 'utf-8' or 'base64'".to_owned()),
        };
        let limit = if base64 { MAX_BASE64_BYTES } else { MAX_BYTES };
        let limit = max_bytes.unwrap_or(limit).min(limit);
        let options = &self.setup.options;
        let cwd = options.cwd.clone();
        let roots: Vec<PathBuf> =
            std::iter::once(&cwd).chain(&options.additional_directories).map(|root| cwd.join(root)).collect();
        Ok(Answer::Later(Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || {
                let read = content(&cwd.join(&path), &roots, limit);
                // Why is told to nobody: it would say what there is elsewhere.
                read.map(|read| answer(&path, read, base64)).ok_or_else(|| format!("read denied: {path}"))
            });
            read.await.map_err(|error| format!("failed to read the file: {error}"))?
        })))
    }

    pub(super) async fn seed_read_state(&mut self, asked: Asked) -> Done {
        let SeedReadState { path, mtime } = asked.read()?;
        if !(mtime.is_finite() && mtime >= 0.0) {
            return Err("the field 'mtime' must be a time in milliseconds".to_owned());
        }
        // Whole milliseconds, as they are: seconds with a fraction would now and then be one less.
        let since = Duration::from_millis(mtime as u64);
        let modified =
            SystemTime::UNIX_EPOCH.checked_add(since).ok_or("the field 'mtime' is out of range")?;
        let path = self.setup.options.cwd.join(path);
        self.handle().seed_read_state(&path, modified).await.map_err(|error| format!("failed to {error}"))?;
        done()
    }
}

struct Content {
    path: PathBuf,
    bytes: Vec<u8>,
    truncated: bool,
}

/// Reads a file of the roots. Blocks; what is no plain file is not opened.
fn content(path: &Path, roots: &[PathBuf], limit: u64) -> Option<Content> {
    let path = path.canonicalize().ok()?;
    let is_inside = |root: &PathBuf| root.canonicalize().is_ok_and(|root| path.starts_with(root));
    if !roots.iter().any(is_inside) || !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::open(&path).ok()?.take(limit + 1).read_to_end(&mut bytes).ok()?;
    let truncated = bytes.len() as u64 > limit;
    bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Some(Content { path, bytes, truncated })
}

fn answer(asked: &str, content: Content, base64: bool) -> Value {
    let Content { path, bytes, truncated } = content;
    let mut answer = json!({"absPath": path, "requested_path": asked});
    if truncated {
        answer["truncated"] = true.into();
    }
    if base64 {
        answer["contents"] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
        answer["encoding"] = "base64".into();
    } else {
        let text = String::from_utf8(bytes);
        answer["lossy"] = text.is_err().into();
        answer["contents"] =
            text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()).into();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_below_the_roots_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(inside.join("a"), "hello").unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.join("secret"), inside.join("link")).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("folder")).unwrap();
        std::os::unix::fs::symlink("/proc/self/environ", inside.join("environ")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            inside.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let roots = [inside.clone()];
        let read = |path: &str| content(&inside.join(path), &roots, 4);
        let found = read("sub/../a").unwrap();
        assert_eq!((found.bytes.as_slice(), found.truncated), (&b"hell"[..], true));
        for path in [
            "link",
            "folder/secret",
            "environ",
            "fifo",
            "sub",
            "../out/secret",
            "none",
            "/etc/passwd",
            "",
            ".",
        ] {
            assert!(read(path).is_none(), "{path}");
        }
    }

    #[test]
    fn what_is_no_text_is_said_to_be_none() {
        let content = |bytes: &[u8]| Content { path: "/a".into(), bytes: bytes.to_vec(), truncated: false };
        let read = answer("a", content(b"hi\xff"), false);
        assert_eq!((&read["contents"], &read["lossy"]), (&json!("hi\u{fffd}"), &json!(true)));
        let read = answer("a", content(b"hi\xff"), true);
        assert_eq!((&read["contents"], &read["encoding"]), (&json!("aGn/"), &json!("base64")));
    }
}
