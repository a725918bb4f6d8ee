//! What goes over the sockets between server, launcher and guest: one JSON value a packet, with descriptors.
//!
//! Small values travel in the packet itself; larger ones (a 100 KiB prompt as one argument) in a memory file whose
//! descriptor is the packet's first. Only the server sends memory files: what the launcher and the guest send is small,
//! and who receives it never looks at descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::spec::{Capabilities, Exit, Limits, Shown, Tier, Volume, WayOut};

/// Changes whenever a message below changes; server, launcher and guest must agree on it.
pub(crate) const PROTOCOL: u32 = 2;
/// Names of sandboxes become names of control groups: short and plain.
pub(crate) const MAX_NAME_BYTES: usize = 64;
/// What is longer goes in a memory file. Most requests are shorter, and the receiver's buffer costs it a page fault for
/// each 4 KiB.
const INLINE_BYTES: usize = 8 << 10;
/// Room for the longest argument list that the kernel takes (2 MiB of 8 MiB stack), and its JSON escapes.
const MAX_PAYLOAD_BYTES: usize = 16 << 20;
/// The most descriptors with one packet: a memory file, three streams, a channel.
const MAX_DESCRIPTORS: usize = 5;
/// What the guest may send at most in one packet; more is a protocol error.
pub(crate) const MAX_REPLY_BYTES: usize = 8 << 10;

/// The first byte of a packet whose value is in a memory file; no JSON begins with it.
const MEMORY_FILE: u8 = b'M';

/// Who is speaking: the first message on each socket, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) version: String,
    pub(crate) protocol: u32,
}

impl Version {
    pub(crate) fn ours() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), protocol: PROTOCOL }
    }

    pub(crate) fn check(&self, peer: &'static str) -> Result<(), Error> {
        let ours = Self::ours();
        if *self == ours {
            return Ok(());
        }
        Err(Error::Version { peer, ours: ours.to_string(), theirs: self.to_string() })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (protocol {})", self.version.escape_default(), self.protocol)
    }
}

/// Server to launcher. The descriptor that comes with it: `Hello` and `Create` take none or the guest's end of the
/// control socket, the others the socket to answer on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Hello { version: Version, libexec_dir: PathBuf, state_dir: PathBuf },
    Create(Box<Create>),
    Destroy { name: String },
    List,
    Ping,
}

/// A spec after the server has checked it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Create {
    pub(crate) name: String,
    pub(crate) workspace: Volume,
    pub(crate) home: Option<Volume>,
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) shown: Vec<Shown>,
    pub(crate) limits: Limits,
    pub(crate) way_out: Option<WayOut>,
    pub(crate) hostname: String,
    /// The tenant's user id on the host; without root the caller's own is used.
    pub(crate) uid: Option<u32>,
}

/// Launcher to server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Hello { version: Version },
    Ready { capabilities: Capabilities },
    Done,
    Names { names: Vec<String> },
    Failed(Failure),
}

/// The first packet to a guest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GuestConfig {
    pub(crate) version: Version,
    /// Listen on this port of the loopback and splice to the way out.
    pub(crate) port: Option<u16>,
    pub(crate) limits: Limits,
    /// Without control groups the guest watches the memory itself.
    pub(crate) tier: Tier,
}

/// Guest (or what becomes the guest) to server, on the control socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Greeting {
    Hello { version: Version },
    Failed(Failure),
}

/// Server to guest, with the descriptors stdin, stdout, stderr and the exec's own channel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    pub(crate) timeout_ms: Option<u64>,
}

/// Guest to server on an exec's channel. What the server sends there is one byte: end it. Closing does the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExecEvent {
    Started,
    Failed { step: String, errno: i32 },
    Full,
    Exited { code: i32 },
    Signaled { signal: i32 },
    TimedOut,
}

impl ExecEvent {
    pub(crate) fn exit(&self) -> Option<Exit> {
        match *self {
            Self::Exited { code } => Some(Exit::Code(code)),
            Self::Signaled { signal } => Some(Exit::Signal(signal)),
            Self::TimedOut => Some(Exit::TimedOut),
            Self::Started | Self::Failed { .. } | Self::Full => None,
        }
    }
}

/// An [`Error`] on its way between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    Isolation { what: String, cause: String, mend: String },
    Invalid { field: String, why: String },
    Exists { name: String },
    Capacity { what: String, limit: u64 },
    StateDirBusy { path: PathBuf },
    MissingProgram { path: PathBuf },
    Version { theirs: Version },
}

impl Failure {
    pub(crate) fn isolation(what: impl Into<String>, cause: impl ToString, mend: impl Into<String>) -> Self {
        Self::Isolation { what: what.into(), cause: cause.to_string(), mend: mend.into() }
    }

    pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), why: why.into() }
    }

    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Isolation { what, cause, mend } => Error::Isolation { what, cause, mend },
            Self::Invalid { field, why } => Error::Invalid { field, why },
            Self::Exists { name } => Error::Exists { name },
            Self::Capacity { limit, .. } => Error::Capacity { what: "the number of sandboxes", limit },
            Self::StateDirBusy { path } => Error::StateDirBusy { path },
            Self::MissingProgram { path } => Error::MissingProgram { path, hint: BUILD_HINT },
            Self::Version { theirs } => Error::Version {
                peer: "wardian-guest",
                ours: Version::ours().to_string(),
                theirs: theirs.to_string(),
            },
        }
    }
}

/// What makes the programs that go inside.
pub(crate) const BUILD_HINT: &str = "`make guest` builds it, `--libexec-dir` says where it is";

/// Returns true for a name that can be a control group's.
pub(crate) fn name_is_valid(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Returns what [`Tier`] a launcher with these abilities gives.
pub(crate) fn tier(limits_by_cgroup: bool) -> Tier {
    if limits_by_cgroup { Tier::Full } else { Tier::NoCgroup }
}

/// Returns two ends of a packet socket.
pub(crate) fn pair(flags: SocketFlags) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None)?)
}

/// A packet ready to be sent, perhaps more than once when the socket is full.
pub(crate) struct Packet {
    bytes: Vec<u8>,
    memory: Option<OwnedFd>,
}

impl Packet {
    pub(crate) fn new(value: &impl Serialize) -> io::Result<Self> {
        let json = serde_json::to_vec(value)?;
        if json.len() > MAX_PAYLOAD_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("message of {} bytes is over the limit of {MAX_PAYLOAD_BYTES}", json.len()),
            ));
        }
        if json.len() <= INLINE_BYTES {
            return Ok(Self { bytes: json, memory: None });
        }
        let memory = memfd_create("wardian-message", MemfdFlags::CLOEXEC)?;
        let mut offset = 0;
        while offset < json.len() {
            offset += rustix::io::pwrite(&memory, &json[offset..], offset as u64)?;
        }
        let mut bytes = vec![MEMORY_FILE];
        bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
        Ok(Self { bytes, memory: Some(memory) })
    }

    pub(crate) fn send(
        &self,
        socket: impl AsFd,
        descriptors: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> io::Result<()> {
        let mut all: Vec<BorrowedFd<'_>> = Vec::with_capacity(MAX_DESCRIPTORS);
        all.extend(self.memory.as_ref().map(AsFd::as_fd));
        all.extend_from_slice(descriptors);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !all.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&all)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        let flags = flags | SendFlags::NOSIGNAL;
        loop {
            match sendmsg(&socket, &[IoSlice::new(&self.bytes)], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Sends one small value, without descriptors.
pub(crate) fn send(socket: impl AsFd, value: &impl Serialize) -> io::Result<()> {
    Packet::new(value)?.send(socket, &[], SendFlags::empty())
}

/// Receives a packet from the server, with its descriptors. `None` at its end.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; INLINE_BYTES + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message,
            // As below: reported once, and the rest comes after.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => (),
            Err(error) => return Err(error.into()),
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(invalid_data("packet over the limit"));
    }
    bytes.truncate(message.bytes);
    if bytes[0] == MEMORY_FILE {
        bytes = read_memory_file(&bytes, &mut descriptors)?;
    }
    Ok(Some((serde_json::from_slice(&bytes)?, descriptors)))
}

fn read_memory_file(header: &[u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
    let length = <[u8; 8]>::try_from(&header[1..]).map_err(|_| invalid_data("malformed header"))?;
    let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_PAYLOAD_BYTES || descriptors.is_empty() {
        return Err(invalid_data("memory file over the limit or missing"));
    }
    let memory = descriptors.remove(0);
    let mut bytes = vec![0; length];
    let mut offset = 0;
    while offset < length {
        match rustix::io::pread(&memory, &mut bytes[offset..], offset as u64)? {
            0 => return Err(invalid_data("memory file too short")),
            read => offset += read,
        }
    }
    Ok(bytes)
}

/// Receives a small packet that may come from a hostile guest: bounded, its descriptors closed unseen.
pub(crate) fn receive_untrusted<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<T>> {
    let mut bytes = [0; MAX_REPLY_BYTES];
    // Without a control buffer the kernel drops descriptors that were sent along.
    let received = loop {
        match rustix::net::recv(&socket, &mut bytes[..], RecvFlags::TRUNC) {
            Ok((_, length)) => break length,
            // The kernel reports once that the peer closed without reading all of ours; what it said comes after.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => (),
            Err(error) => return Err(error.into()),
        }
    };
    if received == 0 {
        return Ok(None);
    }
    let packet = bytes.get(..received).ok_or_else(|| invalid_data("packet over the limit"))?;
    Ok(Some(serde_json::from_slice(packet)?))
}

fn invalid_data(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
