//! Receives an upload: a form with a file, whose bytes go to the disk as they come.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use wardian_protocol::OrgId;
use wardian_session::FieldError;

use crate::App;
use crate::blobs::Temporary;
use crate::body;
use crate::error::Error;
use crate::multipart::{Head, Malformed, Parser, Piece};

/// The route of uploads.
pub const ROUTE: &str = "/v1/files";
/// Uploads that are received at one time. More wait.
pub const MAX_UPLOADS: usize = 32;
/// What a form has beside its file.
const MAX_OVERHEAD_BYTES: u64 = 64 * 1024;
/// Bytes that are written at once.
const WRITE_BYTES: usize = 256 * 1024;
/// The longest content of a field that is no file.
const MAX_FIELD_BYTES: usize = 64;
/// Parts of the form: those that are known, and some that are told to be unknown.
const MAX_PARTS: usize = 8;
/// Characters of a file's name, as the stock API has it.
const MAX_NAME_CHARS: usize = 255;
/// The longest media type.
const MAX_TYPE_BYTES: usize = 127;
/// How long a file may be kept when it says so itself: an hour to ninety days, as the stock API has it.
const EXPIRY_SECONDS: std::ops::RangeInclusive<u64> = 3600..=7_776_000;

/// An upload whose bytes are all there, durable, in a temporary file.
#[derive(Debug)]
pub struct Upload {
    /// The bytes.
    pub bytes: Temporary,
    /// How many they are.
    pub size_bytes: u64,
    /// The file's name.
    pub filename: String,
    /// What it is.
    pub mime_type: String,
    /// How long it is kept, unless for ever.
    pub expires_in: Option<Duration>,
    sha256: [u8; 32],
}

impl Upload {
    /// What makes this upload this one, whatever its boundary.
    pub fn identity(&self) -> [u8; 32] {
        let words = serde_json::json!([self.filename, self.mime_type, self.size_bytes, self.expires_in]);
        Sha256::new().chain_update(self.sha256).chain_update(words.to_string()).finalize().into()
    }
}

/// An upload that a layer has received for the handler.
#[derive(Clone, Debug)]
pub struct Received(Arc<Mutex<Option<Upload>>>);

impl Received {
    /// Puts it where the handler finds it.
    pub fn new(upload: Upload) -> Self {
        Self(Arc::new(Mutex::new(Some(upload))))
    }

    /// Takes it, once.
    pub fn take(&self) -> Option<Upload> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Receives the form of an authenticated request.
pub async fn receive(app: &App, org_id: &OrgId, headers: &HeaderMap, body: Body) -> Result<Upload, Error> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Error::unsupported_type("expected a body without Content-Encoding"));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parser = Parser::new(kind).map_err(|Malformed(why)| Error::unsupported_type(why))?;
    let most = app.config.max_file_bytes.saturating_add(MAX_OVERHEAD_BYTES);
    let announced = body::announced(headers)?.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
    if announced > most {
        return Err(too_large(app));
    }
    let kept = app.store.file_bytes(org_id).await?;
    check_quota(app, kept, announced.saturating_sub(MAX_OVERHEAD_BYTES))?;
    let receiving = async {
        let _place = app.uploads.acquire().await.expect("the semaphore is never closed");
        let (temporary, file) = app.blobs.temporary(org_id).await.map_err(|error| Error::storage(&error))?;
        Receiver::new(app.config.max_file_bytes, file).run(app, parser, body, temporary).await
    };
    tokio::time::timeout(app.config.upload_timeout, receiving).await.map_err(|_| Error::body_too_slow())?
}

/// Refuses what would be too much for the organisation.
pub fn check_quota(app: &App, kept: u64, more: u64) -> Result<(), Error> {
    let limit = app.config.max_org_file_bytes;
    if kept.saturating_add(more) <= limit {
        return Ok(());
    }
    let message = format!(
        "{kept} bytes of files are kept; with this one it were over the limit of {limit}: delete some"
    );
    Err(Error::invalid(message).with_code("storage_quota_exceeded"))
}

fn too_large(app: &App) -> Error {
    Error::too_large(usize::try_from(app.config.max_file_bytes).unwrap_or(usize::MAX))
}

/// What has come so far.
struct Receiver {
    limit: u64,
    file: BufWriter<File>,
    size: u64,
    sha256: Sha256,
    /// The head of the part that is the file.
    head: Option<Head>,
    expires: Option<String>,
    at: Place,
    parts: usize,
    errors: Vec<FieldError>,
}

/// Where the content that comes now belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    File,
    Expires,
    Nowhere,
}

impl Receiver {
    fn new(limit: u64, file: File) -> Self {
        Self {
            limit,
            file: BufWriter::with_capacity(WRITE_BYTES, file),
            size: 0,
            sha256: Sha256::new(),
            head: None,
            expires: None,
            at: Place::Nowhere,
            parts: 0,
            errors: Vec::new(),
        }
    }

    async fn run(
        mut self,
        app: &App,
        mut parser: Parser,
        mut body: Body,
        bytes: Temporary,
    ) -> Result<Upload, Error> {
        loop {
            let frame = tokio::time::timeout(app.config.body_timeout, body.frame());
            let Some(frame) = frame.await.map_err(|_| Error::body_too_slow())? else { break };
            let frame = frame.map_err(|_| Error::invalid("the body ended early"))?;
            let Some(data) = frame.data_ref() else { continue };
            parser.give(data);
            while let Some(piece) = parser.piece().map_err(|Malformed(why)| Error::invalid(why))? {
                self.take(app, piece).await?;
            }
        }
        if !parser.is_over() {
            return Err(Error::invalid("the form ended early"));
        }
        self.file.flush().await.map_err(|error| Error::storage(&error))?;
        self.file.get_ref().sync_all().await.map_err(|error| Error::storage(&error))?;
        self.finish(bytes)
    }

    async fn take(&mut self, app: &App, piece: Piece) -> Result<(), Error> {
        match (piece, self.at) {
            (Piece::Part(head), _) => self.begin(head),
            (Piece::Content(bytes), Place::File) => {
                self.size = self.size.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                if self.size > self.limit {
                    return Err(too_large(app));
                }
                self.sha256.update(&bytes);
                self.file.write_all(&bytes).await.map_err(|error| Error::storage(&error))
            }
            (Piece::Content(bytes), Place::Expires) => {
                let text = self.expires.get_or_insert_default();
                if text.len() + bytes.len() > MAX_FIELD_BYTES {
                    return Err(Error::invalid("expires_in_seconds: expected a number"));
                }
                text.push_str(&String::from_utf8_lossy(&bytes));
                Ok(())
            }
            (Piece::Content(_), Place::Nowhere) => Ok(()),
            (Piece::End, _) => {
                self.at = Place::Nowhere;
                Ok(())
            }
        }
    }

    fn begin(&mut self, head: Head) -> Result<(), Error> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(Error::invalid(format!("the form has more than {MAX_PARTS} parts")));
        }
        self.at = match head.name.as_str() {
            "file" if self.head.is_some() => {
                self.errors.push(FieldError::new("file", "stands there twice"));
                Place::Nowhere
            }
            "file" => {
                self.head = Some(head);
                Place::File
            }
            "expires_in_seconds" if self.expires.is_some() => {
                self.errors.push(FieldError::new("expires_in_seconds", "stands there twice"));
                Place::Nowhere
            }
            "expires_in_seconds" => {
                self.expires = Some(String::new());
                Place::Expires
            }
            other => {
                let shown: String = other.chars().take(60).collect();
                self.errors.push(FieldError::new(shown, "unknown field; known are file, expires_in_seconds"));
                Place::Nowhere
            }
        };
        Ok(())
    }

    fn finish(mut self, bytes: Temporary) -> Result<Upload, Error> {
        let head = self.head.take().unwrap_or_else(|| {
            self.errors.push(FieldError::new("file", "expected a file"));
            Head::default()
        });
        let mime_type = read_type(head.content_type.as_deref()).unwrap_or_else(|| {
            self.errors.push(FieldError::new(
                "file",
                "expected a media type such as text/plain as its Content-Type",
            ));
            String::new()
        });
        let filename = read_name(head.filename.as_deref(), &mime_type).unwrap_or_else(|why| {
            self.errors.push(FieldError::new("file", why));
            String::new()
        });
        let expires_in = self.expires.take().and_then(|text| {
            let seconds = text.parse().ok().filter(|seconds| EXPIRY_SECONDS.contains(seconds));
            if seconds.is_none() {
                let (least, most) = (EXPIRY_SECONDS.start(), EXPIRY_SECONDS.end());
                let message = format!("expected a whole number from {least} to {most}");
                self.errors.push(FieldError::new("expires_in_seconds", message));
            }
            seconds.map(Duration::from_secs)
        });
        if !self.errors.is_empty() {
            return Err(Error::fields(&self.errors));
        }
        let sha256 = self.sha256.finalize().into();
        Ok(Upload { bytes, size_bytes: self.size, filename, mime_type, expires_in, sha256 })
    }
}

/// A media type without its parameters; bytes of an unknown kind are just bytes.
fn read_type(text: Option<&str>) -> Option<String> {
    let Some(text) = text else { return Some("application/octet-stream".to_owned()) };
    let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let token = |token: &str| {
        !token.is_empty()
            && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let (family, sort) = kind.split_once('/')?;
    (kind.len() <= MAX_TYPE_BYTES && token(family) && token(sort)).then_some(kind)
}

/// The last part of a path; a file without a name gets one.
fn read_name(text: Option<&str>, mime_type: &str) -> Result<String, String> {
    let name = text.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    if matches!(name, "" | "." | "..") {
        return Ok(format!("unnamed{}", extension(mime_type)));
    }
    if name.chars().any(char::is_control) || name.chars().count() > MAX_NAME_CHARS {
        return Err(format!(
            "expected a file name of at most {MAX_NAME_CHARS} characters, none of them control characters"
        ));
    }
    Ok(name.to_owned())
}

fn extension(mime_type: &str) -> &'static str {
    match mime_type {
        "application/json" => ".json",
        "application/pdf" => ".pdf",
        "application/zip" => ".zip",
        "image/gif" => ".gif",
        "image/jpeg" => ".jpg",
        "image/png" => ".png",
        "image/webp" => ".webp",
        "text/csv" => ".csv",
        "text/html" => ".html",
        "text/markdown" => ".md",
        "text/plain" => ".txt",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_last_part_of_a_path() {
        for (given, name) in [
            (Some("a.txt"), "a.txt"),
            (Some("../../etc/passwd"), "passwd"),
            (Some("C:\\secret\\b c.pdf"), "b c.pdf"),
            (Some("日本.txt"), "日本.txt"),
            (Some(""), "unnamed.txt"),
            (Some("folder/"), "unnamed.txt"),
            (Some("a/.."), "unnamed.txt"),
            (None, "unnamed.txt"),
        ] {
            assert_eq!(read_name(given, "text/plain").as_deref(), Ok(name));
        }
        assert_eq!(read_name(None, "application/x-thing").as_deref(), Ok("unnamed"));
        assert!(read_name(Some("a\r\nb"), "text/plain").is_err());
        assert!(read_name(Some(&"x".repeat(256)), "text/plain").is_err());
    }

    #[test]
    fn a_type_is_two_words() {
        assert_eq!(read_type(Some("Text/Plain; charset=utf-8")).as_deref(), Some("text/plain"));
        assert_eq!(read_type(None).as_deref(), Some("application/octet-stream"));
        let long = format!("text/{}", "x".repeat(200));
        for wrong in ["", "text", "text/", "/plain", "text/pl ain", "text/<b>", "text/plain\r\nx: y", &long] {
            assert_eq!(read_type(Some(wrong)), None, "{wrong}");
        }
    }
}
