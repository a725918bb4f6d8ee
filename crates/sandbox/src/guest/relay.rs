//! The way out: each connection to the loopback's port becomes a connection to the socket that was bound in.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown, socket_with,
};

use super::{Interest, Ready, Slot};

/// What each connection begins with, outside.
const OPENING: &[u8] = b"wardian/1 gateway\n";
const SOCKET: &str = "/run/wardian/out.sock";
/// More connections than an agent with all its tools keeps; further ones wait in the listener's queue.
const MAX_CONNECTIONS: usize = 128;
/// One direction's buffer: large enough to carry a stream in few calls, small enough for all connections.
const BUFFER_BYTES: usize = 16 << 10;
/// The gateway's queue may be full for a moment.
const RETRY: Duration = Duration::from_millis(5);
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Relay {
    listener: TcpListener,
    slot: Slot,
    connections: Vec<Connection>,
}

impl Relay {
    pub(super) fn listen(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, slot: Slot::NONE, connections: Vec::new() })
    }

    pub(super) fn watch<'a>(&'a mut self, interest: &mut Interest<'a>, now: Instant) {
        self.slot = Slot::NONE;
        if self.connections.len() < MAX_CONNECTIONS {
            self.slot = interest.add(self.listener.as_fd(), PollFlags::IN);
        }
        for connection in &mut self.connections {
            connection.watch(interest, now);
        }
    }

    pub(super) fn advance(&mut self, ready: &Ready, now: Instant) {
        self.connections.retain_mut(|connection| connection.advance(ready, now).unwrap_or(false));
        if ready.is(self.slot) {
            while self.connections.len() < MAX_CONNECTIONS {
                let Ok((stream, _)) = self.listener.accept() else { break };
                if let Ok(connection) = Connection::new(stream, now) {
                    self.connections.push(connection);
                }
            }
        }
    }
}

struct Connection {
    inner: TcpStream,
    outer: OwnedFd,
    /// When to give up connecting; `None` when connected.
    connecting_until: Option<Instant>,
    outward: Direction,
    inward: Direction,
    slots: (Slot, Slot),
}

impl Connection {
    fn new(inner: TcpStream, now: Instant) -> io::Result<Self> {
        inner.set_nonblocking(true)?;
        inner.set_nodelay(true)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let outer = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let mut outward = Direction::default();
        outward.buffer.extend_from_slice(OPENING);
        let mut connection = Self {
            inner,
            outer,
            connecting_until: Some(now + CONNECT_PATIENCE),
            outward,
            inward: Direction::default(),
            slots: (Slot::NONE, Slot::NONE),
        };
        connection.connect(now)?;
        Ok(connection)
    }

    fn connect(&mut self, now: Instant) -> io::Result<()> {
        match connect(&self.outer, &SocketAddrUnix::new(SOCKET)?) {
            Ok(()) => self.connecting_until = None,
            Err(Errno::AGAIN | Errno::INTR) if self.connecting_until.is_some_and(|until| now < until) => (),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn watch<'a>(&'a mut self, interest: &mut Interest<'a>, now: Instant) {
        if self.connecting_until.is_some() {
            interest.wake_at(now + RETRY);
            return;
        }
        let inner = self.outward.reads() | self.inward.writes();
        let outer = self.inward.reads() | self.outward.writes();
        self.slots = (Slot::NONE, Slot::NONE);
        if !inner.is_empty() {
            self.slots.0 = interest.add(self.inner.as_fd(), inner);
        }
        if !outer.is_empty() {
            self.slots.1 = interest.add(self.outer.as_fd(), outer);
        }
    }

    /// Carries what there is to carry; false when both directions have ended.
    fn advance(&mut self, ready: &Ready, now: Instant) -> io::Result<bool> {
        if self.connecting_until.is_some() {
            self.connect(now)?;
            return Ok(true);
        }
        if ready.is(self.slots.0) || ready.is(self.slots.1) {
            self.outward.carry(&self.inner, &self.outer)?;
            self.inward.carry(&self.outer, &self.inner)?;
        }
        Ok(!(self.outward.done && self.inward.done))
    }
}

#[derive(Default)]
struct Direction {
    buffer: Vec<u8>,
    sent: usize,
    /// The source has no more.
    ended: bool,
    /// The target has been told so.
    done: bool,
}

impl Direction {
    fn reads(&self) -> PollFlags {
        if self.buffer.is_empty() && !self.ended { PollFlags::IN } else { PollFlags::empty() }
    }

    fn writes(&self) -> PollFlags {
        if self.buffer.is_empty() { PollFlags::empty() } else { PollFlags::OUT }
    }

    fn carry(&mut self, from: impl AsFd, to: impl AsFd) -> io::Result<()> {
        loop {
            while self.sent < self.buffer.len() {
                let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
                match rustix::net::send(&to, &self.buffer[self.sent..], flags) {
                    Ok(sent) => self.sent += sent,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::INTR) => (),
                    Err(error) => return Err(error.into()),
                }
            }
            self.buffer.clear();
            self.sent = 0;
            if self.ended {
                if !self.done {
                    self.done = true;
                    // It may have closed already, which is as good.
                    let _ = shutdown(&to, Shutdown::Write);
                }
                return Ok(());
            }
            self.buffer.resize(BUFFER_BYTES, 0);
            let read = rustix::io::read(&from, &mut self.buffer[..]);
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => self.ended = true,
                Ok(_) | Err(Errno::INTR) => (),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
