//! Searching for a key, in the clear and in the ways in which programs write bytes down.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// What hides the needles on their way into a sandbox, where they must not be found because they were brought.
const MASK: u8 = 0xa5;
/// Memory is read in pieces, each overlapping the one before by more than a needle.
const PIECE: usize = 4 * 1024 * 1024;
const OVERLAP: usize = 1024;

/// The forms of a key.
pub struct Needles(BTreeMap<String, String>);

impl Needles {
    /// In the clear, as base64 of both alphabets at each of the three places where it can stand in a longer text, and as
    /// hexadecimal digits of either case.
    pub fn of(key: &str) -> Self {
        let mut forms = BTreeMap::from([("raw".to_owned(), key.to_owned())]);
        for start in 0..3 {
            let whole = &key.as_bytes()[start..];
            let whole = &whole[..whole.len() / 3 * 3];
            forms.insert(format!("base64-{start}"), BASE64_STANDARD_NO_PAD.encode(whole));
            forms.insert(format!("base64url-{start}"), BASE64_URL_SAFE_NO_PAD.encode(whole));
        }
        let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        forms.insert("hex-upper".to_owned(), hex.to_uppercase());
        forms.insert("hex-lower".to_owned(), hex);
        Self(forms)
    }

    pub fn forms(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(form, needle)| (form.as_str(), needle.as_str()))
    }

    /// What `search.py` reads: the needles masked, and the time before which no file can hold them.
    pub fn masked(&self, since: u64) -> Value {
        let masked = |needle: &String| needle.bytes().map(|byte| byte ^ MASK).collect::<Vec<_>>();
        let needles: BTreeMap<_, _> = self.0.iter().map(|(form, needle)| (form, masked(needle))).collect();
        json!({"mask": MASK, "needles": needles, "since": since, "offset": 4099})
    }

    /// The forms that are in these bytes. Bytes that are no text do not hide those beside them.
    pub fn in_bytes(&self, bytes: &[u8]) -> Vec<&str> {
        let text = String::from_utf8_lossy(bytes);
        self.forms().filter(|(_, needle)| text.contains(needle)).map(|(form, _)| form).collect()
    }

    /// Where they are in the files of a folder: their names, what they hold, where links lead.
    pub fn in_folder(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                let bytes = if kind.is_file() {
                    std::fs::read(&path).unwrap_or_default()
                } else if kind.is_symlink() {
                    std::fs::read_link(&path).unwrap_or_default().into_os_string().into_encoded_bytes()
                } else {
                    folders.extend(kind.is_dir().then(|| path.clone()));
                    Vec::new()
                };
                let name = entry.file_name().into_encoded_bytes();
                let forms = [self.in_bytes(&name), self.in_bytes(&bytes)].concat();
                found.extend(forms.iter().map(|form| format!("{form} in {}", path.display())));
            }
        }
        found
    }

    /// Where they are in what a process was started with.
    pub fn in_start(&self, pid: i32) -> Vec<String> {
        let mut found = Vec::new();
        for name in ["environ", "cmdline", "comm"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            found.extend(self.in_bytes(&bytes).iter().map(|form| format!("{form} in /proc/{pid}/{name}")));
        }
        found
    }

    /// Where they are in the memory of a process, all of which a core dump would hold; and how much was read.
    pub fn in_memory(&self, pid: i32) -> (Vec<String>, u64) {
        let (mut found, mut read) = (Vec::new(), 0);
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return (found, 0) };
        for line in maps.lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            if !rest.starts_with('r') {
                continue;
            }
            let (low, high) = range.split_once('-').unwrap();
            let mut at = u64::from_str_radix(low, 16).unwrap();
            let high = u64::from_str_radix(high, 16).unwrap();
            while at < high {
                let length = usize::try_from(high - at).unwrap().min(PIECE + OVERLAP);
                let mut piece = vec![0; length];
                let Ok(got @ 1..) = memory.read_at(&mut piece, at) else { break };
                read += got as u64;
                let forms = self.in_bytes(&piece[..got]);
                found.extend(forms.iter().map(|form| format!("{form} in the memory of {pid}: {line}")));
                at += got.min(PIECE) as u64;
            }
        }
        (found, read)
    }
}

/// Writes each form to a file of its own.
pub fn plant(needles: &Needles, folder: &Path) -> Vec<PathBuf> {
    let write = |(form, needle): (&str, &str)| {
        let path = folder.join(format!("planted-{form}"));
        std::fs::write(&path, [&[0xff, 0xfe, 0xe2], needle.as_bytes(), b"\xf0"].concat()).unwrap();
        path
    };
    needles.forms().map(write).collect()
}
