//! The guest: the first process inside a sandbox. It starts programs, reaps what they leave, ends them in time, and
//! carries connections from the loopback to the way out.
//!
//! It is single-threaded, non-dumpable, without capabilities, and trusts nothing but its control socket, whose other
//! end the server holds. When that end closes, or the launcher's, it exits, and the kernel kills all that is inside.

mod exec;
mod relay;
mod tree;
mod watchdog;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, WaitOptions, set_dumpable_behavior, wait};

use crate::launcher::timespec;
use crate::namespace::{CONTROL_DESCRIPTOR, GROUP_DESCRIPTOR, LIFE_DESCRIPTOR};
use crate::spec::Tier;
use crate::wire::{self, ExecRequest, Greeting, GuestConfig, Version};
use crate::{seccomp, sys};

/// Runs the guest until the server, the launcher or the kernel ends it.
pub(crate) fn main() -> io::Result<()> {
    // First: nothing else runs in this sandbox yet, and from here on nothing of ours can be read through /proc.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // SAFETY: the launcher placed these for us, and nothing else here uses them.
    let (control, life, group) = unsafe {
        (
            sys::inherited(CONTROL_DESCRIPTOR),
            sys::inherited(LIFE_DESCRIPTOR),
            sys::inherited(GROUP_DESCRIPTOR),
        )
    };
    let (Some(control), Some(life)) = (control, life) else {
        return Err(io::Error::other("this program is started by the launcher only"));
    };
    let signals = sys::signal_descriptor(&[libc::SIGCHLD])?;
    let Some((config, _)) = wire::receive::<GuestConfig>(&control)? else { return Ok(()) };
    sys::install_filter(&seccomp::guest_filter())?;
    let relay = config.port.map(relay::Relay::listen).transpose()?;
    wire::send(&control, &Greeting::Hello { version: Version::ours() })?;
    if config.version != Version::ours() {
        return Ok(());
    }
    let watchdog = (config.tier == Tier::NoCgroup)
        .then(|| watchdog::Watchdog::new(config.limits.memory_bytes, Instant::now()));
    let mut guest =
        Guest { watchdog, control, life, signals, relay, execs: exec::Execs::new(group, config.limits) };
    guest.serve()
}

struct Guest {
    control: OwnedFd,
    life: OwnedFd,
    signals: OwnedFd,
    relay: Option<relay::Relay>,
    execs: exec::Execs,
    watchdog: Option<watchdog::Watchdog>,
}

impl Guest {
    fn serve(&mut self) -> io::Result<()> {
        loop {
            let now = Instant::now();
            let idle = self.execs.is_idle();
            let mut interest = Interest::default();
            let control = interest.add(self.control.as_fd(), PollFlags::IN);
            let life = interest.add(self.life.as_fd(), PollFlags::IN);
            let signals = interest.add(self.signals.as_fd(), PollFlags::IN);
            self.execs.watch(&mut interest, now);
            if let Some(relay) = &mut self.relay {
                relay.watch(&mut interest, now);
            }
            // Only while something runs: else there is nothing to look at.
            if let Some(watchdog) = self.watchdog.as_ref().filter(|_| !idle) {
                interest.wake_at(watchdog.next());
            }
            let ready = interest.wait(now)?;
            if ready.is(life) || (ready.is(control) && !self.take_request()?) {
                return Ok(());
            }
            if ready.is(signals) {
                while sys::next_signal(self.signals.as_fd()).is_some() {}
                while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                    self.execs.reaped(pid, status);
                }
            }
            self.execs.advance(&ready, Instant::now());
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.advance(Instant::now());
            }
            if let Some(relay) = &mut self.relay {
                relay.advance(&ready, Instant::now());
            }
        }
    }

    /// Starts what the server asks for; false when it is gone.
    fn take_request(&mut self) -> io::Result<bool> {
        let Some((request, descriptors)) = wire::receive::<ExecRequest>(&self.control)? else {
            return Ok(false);
        };
        self.execs.start(request, descriptors, Instant::now());
        Ok(true)
    }
}

/// What one round of the loop waits for.
#[derive(Default)]
pub(crate) struct Interest<'a> {
    events: Vec<PollFd<'a>>,
    wake: Option<Instant>,
}

/// Where an [`Interest`] stands in its round; valid for that round only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot(usize);

impl Slot {
    /// Nothing is waited for: never ready.
    const NONE: Self = Self(usize::MAX);
}

impl<'a> Interest<'a> {
    fn add(&mut self, descriptor: BorrowedFd<'a>, flags: PollFlags) -> Slot {
        // The loop borrows what it waits for again and again while it changes in between; the borrow ends with `wait`.
        self.events.push(PollFd::from_borrowed_fd(descriptor, flags));
        Slot(self.events.len() - 1)
    }

    fn wake_at(&mut self, time: Instant) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }

    fn wait(mut self, now: Instant) -> io::Result<Ready> {
        // A millisecond more, because timers are not exact and a round too early only turns once more.
        let timeout = self.wake.map(|wake| wake.saturating_duration_since(now) + Duration::from_micros(200));
        match poll(&mut self.events, timeout.map(timespec).as_ref()) {
            Ok(_) => Ok(Ready(self.events.iter().map(PollFd::revents).collect())),
            Err(rustix::io::Errno::INTR) => Ok(Ready(Vec::new())),
            Err(error) => Err(error.into()),
        }
    }
}

/// What has happened.
pub(crate) struct Ready(Vec<PollFlags>);

impl Ready {
    fn is(&self, slot: Slot) -> bool {
        self.0.get(slot.0).is_some_and(|flags| !flags.is_empty())
    }
}
