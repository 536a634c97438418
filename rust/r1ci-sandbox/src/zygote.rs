//! A warm interpreter that is ready: hand scripts over, lend work folders. `zygote/start.rs` makes it so.

mod start;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;

use rustix::process::{Signal, pidfd_send_signal};

use crate::cgroup::Group;
use crate::policy::{Layer, Limits, SandboxConfig};
use crate::scratch::OwnFolder;
use crate::wire::{Order, flag};
use crate::{identity, jail, scratch, wire};

pub(crate) use start::Starting;

/// Devices without state.
const DEVICES: &[&str] = &[
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
];

/// A running warm interpreter. Dropping it ends the process and removes its work folder.
pub(crate) struct Zygote {
    /// Tells it from those before and after it.
    pub serial: u64,
    process: Child,
    pidfd: OwnedFd,
    /// The socket that requests and replies travel on.
    pub control: OwnedFd,
    scratch: OwnedFd,
    /// On the host's disk, where there is no file tree of its own; goes when this goes.
    _work: Option<OwnFolder>,
    arrangement: Arrangement,
    rules: Option<Rules>,
    /// The ruleset of all children, where each has a work folder of the same name.
    ruleset: Option<OwnedFd>,
    slots: Vec<Slot>,
    slots_made: u64,
    /// What is in force for its children.
    pub layers: Arc<[Layer]>,
    /// Resident memory before the first script, in bytes.
    pub resident_bytes: u64,
    /// Version of the interpreter.
    pub python: String,
    /// Host paths and the short names that stand for them in error output.
    pub short_names: Arc<[(Vec<u8>, Vec<u8>)]>,
}

/// One way to arrange a zygote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrangement {
    /// The zygote leaves the host's file tree and network.
    pub namespaces: bool,
    /// Each child has namespaces of its own, with its own work folder.
    pub own_namespaces: bool,
    /// A user number that nobody else has.
    pub private_uid: Option<u32>,
}

impl Arrangement {
    /// All that the configuration allows, strongest first.
    pub fn all(config: &SandboxConfig) -> Vec<Self> {
        let uid = identity::private_uid().filter(|_| config.wants(Layer::PrivateUid));
        let mut uids = vec![uid, None];
        uids.dedup();
        let mut all = Vec::new();
        for (namespaces, own_namespaces) in [(true, true), (true, false), (false, false)] {
            if namespaces && !config.wants(Layer::Namespaces)
                || own_namespaces && !config.wants(Layer::OwnNamespaces)
            {
                continue;
            }
            all.extend(uids.iter().map(|uid| Self {
                namespaces,
                own_namespaces,
                private_uid: *uid,
            }));
        }
        all
    }
}

/// What Landlock is told, for rulesets made later.
struct Rules {
    roots: Vec<PathBuf>,
    tcp: bool,
    scope: bool,
}

/// A work folder of the supervisor's, where children cannot have their own; lent to one execution
/// at a time.
pub(crate) struct Slot {
    /// Its number.
    pub number: u64,
    /// The folder.
    pub folder: OwnedFd,
    ruleset: Option<OwnedFd>,
}

/// The kernel's answer behind a ruleset that could not be made, if there is one.
fn ruleset_error(error: landlock::RulesetError) -> io::Error {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(inner) = cause {
        if let Some(number) = inner
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return io::Error::from_raw_os_error(number);
        }
        cause = inner.source();
    }
    io::Error::other(error)
}

impl Zygote {
    /// Hand a script over: `handles` are the source and the streams, `slot` a work folder and
    /// `group` a control group lent.
    pub fn send(
        &self,
        order: &mut Order,
        limits: &Limits,
        handles: &[BorrowedFd<'_>],
        (slot, group): (Option<&Slot>, Option<&Group>),
    ) -> io::Result<()> {
        let ruleset = match slot {
            Some(slot) => slot.ruleset.as_ref(),
            None => self.ruleset.as_ref(),
        };
        if ruleset.is_some() {
            order.flags |= flag::HAS_RULESET;
        }
        order.slot = slot.map_or(u64::MAX, |slot| slot.number);
        let mut all = [handles[0]; wire::MOST_DESCRIPTORS];
        all[..handles.len()].copy_from_slice(handles);
        let mut count = handles.len();
        if let Some(ruleset) = ruleset {
            all[count] = ruleset.as_fd();
            count += 1;
        }
        for entrance in group.iter().flat_map(|group| &group.entrances) {
            all[count] = entrance.as_fd();
            count += 1;
        }
        order.flags |= flag::JOINS[group.map_or(0, |group| group.entrances.len())];
        wire::send(&self.control, &order.bytes(limits), &all[..count])
    }

    /// Whether each child makes its own work folder.
    pub fn makes_folders(&self) -> bool {
        self.arrangement.own_namespaces
    }

    /// A work folder for one execution; none where children make their own.
    pub fn lend_slot(&mut self) -> io::Result<Option<Slot>> {
        if self.arrangement.own_namespaces {
            return Ok(None);
        }
        if let Some(slot) = self.slots.pop() {
            return Ok(Some(slot));
        }
        let number = self.slots_made;
        self.slots_made += 1;
        let name = format!("work{number}");
        let owner = self.arrangement.private_uid;
        let folder = scratch::make_below(self.scratch.as_fd(), &name, owner)?;
        let ruleset = self
            .rules
            .as_ref()
            .map(|rules| {
                jail::ruleset(
                    &rules.roots,
                    DEVICES,
                    folder.as_fd(),
                    rules.tcp,
                    rules.scope,
                )
            })
            .transpose()
            .map_err(ruleset_error)?
            .flatten();
        Ok(Some(Slot {
            number,
            folder,
            ruleset,
        }))
    }

    /// Take back a work folder that is empty again.
    pub fn take_back(&mut self, slot: Slot) {
        self.slots.push(slot);
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, perhaps reaped by the caller's own wait.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = self.process.wait();
    }
}
