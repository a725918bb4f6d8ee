//! What a session is given beside its events: files, each at a path in the sandbox.

use serde_json::{Value, json};
use wardian_protocol::FileId;
use wardian_session::FieldError;

use super::Fields;

/// Resources of one session.
pub const MAX_RESOURCES: usize = 100;
/// The longest path.
const MAX_PATH_BYTES: usize = 1024;
/// Where files lie unless they say otherwise, as the stock API has it.
const UPLOADS: &str = "/mnt/session/uploads";
/// The folders that a path may be in: one of its own, and the workspace.
const FOLDERS: [&str; 2] = ["/mnt/", "/workspace/"];

/// A file that a session is to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedFile {
    /// Which.
    pub file_id: FileId,
    /// Where.
    pub mount_path: String,
}

/// Reads one resource; `place` is what stands before its fields' names.
pub fn read(value: Value, place: &str, errors: &mut Vec<FieldError>) -> Option<AskedFile> {
    let mut fields = Fields::of(value, place, errors)?;
    match fields.string("type").as_deref() {
        Some("file") => {}
        Some(kind @ ("github_repository" | "memory_store")) => {
            fields.error("type", format!("`{kind}` is not supported yet; only `file` is"));
            return None;
        }
        _ => {
            if !fields.failed("type") {
                fields.error("type", "expected `file`");
            }
            return None;
        }
    }
    let file_id: Option<FileId> =
        fields.parsed("file_id", "a file's id, `file_…`", |value| value.as_str()?.parse().ok());
    if file_id.is_none() && !fields.failed("file_id") {
        fields.error("file_id", "expected a file's id, `file_…`");
    }
    let path = fields.string("mount_path");
    if path.as_deref().is_some_and(|path| !is_path(path)) {
        let folders = FOLDERS.join(" or ");
        fields.error("mount_path", format!("expected a plain path of a file below {folders}"));
    }
    fields.finish();
    let file_id = file_id?;
    let mount_path = path.unwrap_or_else(|| format!("{UPLOADS}/{file_id}"));
    Some(AskedFile { file_id, mount_path })
}

/// An absolute path without tricks, of something in one of the folders.
fn is_path(path: &str) -> bool {
    let below = FOLDERS.iter().any(|folder| path.starts_with(folder));
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
    below
        && path.len() <= MAX_PATH_BYTES
        && !path.chars().any(char::is_control)
        && path.split('/').skip(1).all(part)
}

/// Refuses paths of which one is in the way of another. `place`: the names of those that are new.
pub fn check_paths(kept: &[Value], new: &[(String, AskedFile)], errors: &mut Vec<FieldError>) {
    let mut taken: Vec<&str> = kept.iter().filter_map(|resource| resource["mount_path"].as_str()).collect();
    for (place, file) in new {
        let path = file.mount_path.as_str();
        let in_the_way = |other: &&str| {
            path == *other || path.starts_with(&format!("{other}/")) || other.starts_with(&format!("{path}/"))
        };
        if taken.iter().any(in_the_way) {
            let message = "another file of the session is at this path, or above or below it";
            errors.push(FieldError::new(format!("{place}mount_path"), message));
        }
        taken.push(path);
    }
    let number = taken.len();
    if number > MAX_RESOURCES {
        errors
            .push(FieldError::new("resources", format!("{number} resources; the limit is {MAX_RESOURCES}")));
    }
}

/// A resource as clients see it, and as the session keeps it.
pub fn render(id: &wardian_protocol::ResourceId, file: &AskedFile, at: jiff::Timestamp) -> Value {
    json!({
        "id": id,
        "type": "file",
        "file_id": file.file_id,
        "mount_path": file.mount_path,
        "created_at": at,
        "updated_at": at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "file_00000000000000000000000000";

    fn read_one(value: Value) -> Result<AskedFile, Vec<String>> {
        let mut errors = Vec::new();
        let file = read(value, "resources[0].", &mut errors);
        file.filter(|_| errors.is_empty()).ok_or_else(|| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_file_has_a_path() {
        let file = read_one(json!({"type": "file", "file_id": FILE})).unwrap();
        assert_eq!(file.mount_path, format!("/mnt/session/uploads/{FILE}"));
        for path in ["/workspace/data.csv", "/mnt/a/b c/é.txt"] {
            assert_eq!(
                read_one(json!({"type": "file", "file_id": FILE, "mount_path": path})).unwrap().mount_path,
                path
            );
        }
    }

    #[test]
    fn what_is_no_file_at_a_path_is_refused() {
        let long = format!("/mnt/{}", "x".repeat(1100));
        for path in [
            "",
            "/",
            "a",
            "/mnt",
            "/mnt/",
            "/mnt//a",
            "/mnt/a/",
            "/mnt/../etc/passwd",
            "/mnt/./a",
            "/etc/passwd",
            "/workspace",
            "/workspacex/a",
            "workspace/a",
            "/mnt/a\0b",
            "/mnt/a\nb",
            &long,
        ] {
            let errors = read_one(json!({"type": "file", "file_id": FILE, "mount_path": path})).unwrap_err();
            assert!(
                errors[0].starts_with("resources[0].mount_path: expected a plain path"),
                "{path}: {errors:?}"
            );
        }
        for (value, error) in [
            (json!("file"), "resources[0]: expected an object"),
            (json!({}), "resources[0].type: expected `file`"),
            (
                json!({"type": "memory_store", "memory_store_id": "x"}),
                "resources[0].type: `memory_store` is not supported yet",
            ),
            (
                json!({"type": "github_repository", "url": "x"}),
                "resources[0].type: `github_repository` is not supported yet",
            ),
            (json!({"type": "file"}), "resources[0].file_id: expected a file's id"),
            (json!({"type": "file", "file_id": "../x"}), "resources[0].file_id: expected a file's id"),
            (json!({"type": "file", "file_id": FILE, "path": "/mnt/a"}), "resources[0].path: unknown field"),
            (
                json!({"type": "file", "file_id": FILE, "mount_path": 1}),
                "resources[0].mount_path: expected a string",
            ),
        ] {
            let errors = read_one(value).unwrap_err();
            assert!(errors.len() == 1 && errors[0].starts_with(error), "{errors:?} {error}");
        }
    }

    #[test]
    fn no_path_is_in_the_way_of_another() {
        let kept = [json!({"mount_path": "/mnt/a/b"})];
        let wrong = |path: &str| {
            let file = AskedFile { file_id: FILE.parse().unwrap(), mount_path: path.to_owned() };
            let mut errors = Vec::new();
            check_paths(&kept, &[(String::new(), file)], &mut errors);
            !errors.is_empty()
        };
        assert!(["/mnt/a/b", "/mnt/a", "/mnt/a/b/c"].into_iter().all(wrong));
        assert!(!["/mnt/a/bc", "/mnt/a/c", "/mnt/b", "/workspace/a"].into_iter().any(wrong));
        let many: Vec<_> = (0..101)
            .map(|number| {
                let mount_path = format!("/mnt/x/{number}");
                (String::new(), AskedFile { file_id: FILE.parse().unwrap(), mount_path })
            })
            .collect();
        let mut errors = Vec::new();
        check_paths(&[], &many, &mut errors);
        assert_eq!(errors[0].to_string(), "resources: 101 resources; the limit is 100");
    }
}
