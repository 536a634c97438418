//! Control groups: the kernel's own bound on what several processes use together.
//!
//! One process is bounded by its limits; a script that may fork, or a session, is put in a group of
//! memory and tasks where the caller can make one, of version 1 or 2. A group is made once and used
//! again. The child enters by a descriptor that it is born with, before its jail is up. Whoever made
//! groups holds a lock on their folder for as long as it lives, in whatever process namespace.

mod room;

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// How the names of our folders begin; the number of the process that made it comes next.
const NAME: &str = "r1ci-sandbox-";
/// Tries, and pauses between them, until the kernel lets go of a group whose processes have ended.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// Where groups are made, and those that are free.
pub(crate) struct Groups {
    /// One folder for version 2; for version 1 one for memory and one for tasks.
    parents: Vec<PathBuf>,
    /// Keep their locks; forks of the process may hold on to them too.
    locks: Vec<File>,
    version: Version,
    free: Vec<Group>,
    /// Never lent again; their folders go when the last one in them is gone.
    retired: Vec<Group>,
    made: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A group with nobody in it.
pub(crate) struct Group {
    folders: Vec<PathBuf>,
    /// Whoever writes to these is in it.
    pub entrances: Vec<OwnedFd>,
    version: Version,
    killed_before: u64,
}

impl Groups {
    /// Find out where this process may make groups; an error says why it may not.
    pub fn find() -> Result<Self, String> {
        let read = |path| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let (own, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
        let mut reason = "no group with memory and tasks is mounted".to_owned();
        for version in [Version::Two, Version::One] {
            let Some(mut homes) = homes(version, &own, &mounts) else {
                continue;
            };
            if version == Version::Two {
                match room::find(&homes[0]) {
                    Ok(home) => homes = vec![home],
                    Err(error) => {
                        reason = error;
                        continue;
                    }
                }
            }
            match Self::make(version, &homes) {
                Ok(groups) => return Ok(groups),
                Err(error) => {
                    reason = format!("no group can be made in {}: {error}", homes[0].display());
                }
            }
        }
        Err(reason)
    }

    fn make(version: Version, homes: &[PathBuf]) -> io::Result<Self> {
        let mut groups = Self {
            parents: Vec::new(),
            locks: Vec::new(),
            version,
            free: Vec::new(),
            retired: Vec::new(),
            made: 0,
        };
        let mut bytes = [0; 4];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let (process, random) = (std::process::id(), u32::from_ne_bytes(bytes));
        for home in homes {
            clear_away(home);
            if version == Version::Two {
                fs::write(home.join("cgroup.subtree_control"), "+memory +pids")?;
            }
            groups
                .parents
                .push(home.join(format!("{NAME}{process}-{random:08x}")));
        }
        groups.make_parents()?;
        // That limits can be set shows with the first group.
        let first = groups.lend(1 << 20, 1)?;
        groups.free.push(first);
        Ok(groups)
    }

    /// Make the folders that groups are made in, those that are missing.
    fn make_parents(&mut self) -> io::Result<()> {
        for (place, folder) in self.parents.iter().enumerate() {
            if place < self.locks.len() && folder.exists() {
                continue;
            }
            let lock = make_locked(folder)?;
            if place < self.locks.len() {
                self.locks[place] = lock;
            } else {
                self.locks.push(lock);
            }
            if self.version == Version::Two {
                fs::write(folder.join("cgroup.subtree_control"), "+memory +pids")?;
            }
        }
        Ok(())
    }

    /// A group with these bounds. What somebody has removed is made once more.
    pub fn lend(&mut self, memory_bytes: u64, tasks: u64) -> io::Result<Group> {
        while let Some(mut group) = self.free.pop() {
            match group.bound(memory_bytes, tasks) {
                Ok(()) => return Ok(group),
                Err(error) if is_gone(&error) => {} // what is left of it goes with its parents
                Err(error) => {
                    self.free.push(group);
                    return Err(error);
                }
            }
        }
        self.remove_retired();
        let mut group = match self.new_group() {
            Err(error) if is_gone(&error) => {
                self.make_parents()?;
                self.new_group()
            }
            made => made,
        }?;
        if let Err(error) = group.bound(memory_bytes, tasks) {
            self.free.push(group);
            return Err(error);
        }
        Ok(group)
    }

    fn new_group(&mut self) -> io::Result<Group> {
        self.made += 1;
        let mut group = Group {
            folders: Vec::new(),
            entrances: Vec::new(),
            version: self.version,
            killed_before: 0,
        };
        let made = group.make(&self.parents, &self.made.to_string());
        if made.is_err() {
            group.try_remove(); // or every further try would leave one more
        }
        made.map(|()| group)
    }

    /// A group that nobody can enter any more.
    pub fn take_back(&mut self, group: Group) {
        if group.is_empty() {
            self.free.push(group);
        } else {
            self.retire(group);
        }
    }

    /// A group that somebody may still be in, or on the way into: lent again, it would count them
    /// against another script.
    pub fn retire(&mut self, mut group: Group) {
        group.entrances.clear();
        self.retired.push(group);
        self.remove_retired();
    }

    fn remove_retired(&mut self) {
        self.retired.retain(|group| !group.try_remove());
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.free.clear();
        self.retired.clear();
        for parent in &self.parents {
            remove(parent, TRIES);
        }
    }
}

impl Group {
    /// Its folders, one below each parent, and its entrances.
    fn make(&mut self, parents: &[PathBuf], name: &str) -> io::Result<()> {
        for parent in parents {
            let folder = parent.join(name);
            fs::create_dir(&folder)?;
            self.folders.push(folder.clone());
            let entrance = File::options()
                .write(true)
                .open(folder.join("cgroup.procs"))?;
            self.entrances.push(entrance.into());
        }
        if self.version == Version::Two {
            let folder = &self.folders[0];
            fs::write(folder.join("memory.oom.group"), "1")?;
            // Absent where the kernel knows no swap.
            let _ = fs::write(folder.join("memory.swap.max"), "0");
        }
        Ok(())
    }

    fn bound(&mut self, memory_bytes: u64, tasks: u64) -> io::Result<()> {
        let (memory, counted) = match self.version {
            Version::One => ("memory.limit_in_bytes", &self.folders[1]),
            Version::Two => ("memory.max", &self.folders[0]),
        };
        fs::write(self.folders[0].join(memory), memory_bytes.to_string())?;
        fs::write(counted.join("pids.max"), tasks.to_string())?;
        self.killed_before = self.killed();
        Ok(())
    }

    /// Whether it counts nobody, not even one that has ended and waits to be noticed.
    fn is_empty(&self) -> bool {
        let counted = self
            .folders
            .last()
            .map(|folder| folder.join("pids.current"));
        let count = counted.and_then(|file| fs::read_to_string(file).ok());
        count.is_some_and(|count| count.trim() == "0")
    }

    /// Remove its folders, if it is empty; whether it is gone. Nobody can enter it afterwards.
    fn try_remove(&self) -> bool {
        let gone = |folder: &PathBuf| match fs::remove_dir(folder) {
            Ok(()) => true,
            Err(error) => is_gone(&error),
        };
        self.folders.iter().all(gone)
    }

    /// Whether the kernel has killed in it, for want of memory, since it was lent.
    pub fn out_of_memory(&self) -> bool {
        self.killed() > self.killed_before
    }

    fn killed(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.folders[0].join(file)).unwrap_or_default();
        let mut lines = text.lines();
        let count = lines.find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.unwrap_or(0)
    }
}

/// Remove a folder of groups, which holds nothing but groups.
fn remove(folder: &Path, tries: u32) {
    let inner = fs::read_dir(folder).into_iter().flatten().flatten();
    for group in inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&group.path(), tries);
    }
    for _ in 0..tries.max(1) {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries > 0 => {
                std::thread::sleep(PAUSE);
            }
            _ => return,
        }
    }
}

/// Remove what killed processes have left: folders of ours that nobody holds the lock of. By its
/// number no process could be told to be dead, because numbers count in one process namespace only.
fn clear_away(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_ours)
            && let Ok(_lock) = lock(&entry.path())
        {
            remove(&entry.path(), 0);
        }
    }
}

/// A folder for groups, with its lock. Until it is locked it looks like one of the dead, and somebody
/// may clear it away.
fn make_locked(folder: &Path) -> io::Result<File> {
    for _ in 0..TRIES {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match lock(folder) {
            Ok(lock) if folder.exists() => return Ok(lock),
            Err(error) if !(is_gone(&error) || is_held(&error)) => return Err(error),
            _ => std::thread::sleep(PAUSE),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// The lock of a folder of groups.
fn lock(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn is_held(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::WOULDBLOCK.raw_os_error())
}

/// Whether an error says that a group has been removed.
fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NODEV].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|number| gone.contains(&number))
}

/// Whether a folder has a name of ours, with the number of the process that made it.
fn is_ours(name: &str) -> bool {
    let number = name
        .strip_prefix(NAME)
        .and_then(|rest| rest.split('-').next());
    number.is_some_and(|number| number.parse::<i32>().is_ok())
}

/// The folders of this process's own groups: memory and tasks for version 1, one for version 2.
fn homes(version: Version, own: &str, mounts: &str) -> Option<Vec<PathBuf>> {
    match version {
        Version::Two => Some(vec![home("", "cgroup2", own, mounts)?]),
        Version::One => Some(vec![
            home("memory", "cgroup", own, mounts)?,
            home("pids", "cgroup", own, mounts)?,
        ]),
    }
}

/// The folder of this process's group under the controller of that name.
fn home(controller: &str, kind: &str, own: &str, mounts: &str) -> Option<PathBuf> {
    let group = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        names
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let place: Vec<&str> = place.split(' ').collect();
        let filesystem: Vec<&str> = filesystem.split(' ').collect();
        let options = filesystem.get(2).unwrap_or(&"");
        let right = filesystem.first() == Some(&kind)
            && (kind == "cgroup2" || options.split(',').any(|name| name == controller));
        let (root, mounted) = (*place.get(3)?, *place.get(4)?);
        let below = group.strip_prefix(root.trim_end_matches('/'))?;
        right.then(|| Path::new(mounted).join(below.trim_start_matches('/')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "9:name=systemd:/\n4:memory:/a/b\n8:pids,cpu:/\n0::/user.slice/x";
    const MOUNTS: &str = "\
34 29 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 29 0:31 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,cpu,pids
36 29 0:32 /user.slice /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn homes_are_found_by_mounts_and_memberships() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(
            home("memory", "cgroup", OWN, MOUNTS),
            path("/sys/fs/cgroup/memory/a/b")
        );
        assert_eq!(
            home("pids", "cgroup", OWN, MOUNTS),
            path("/sys/fs/cgroup/pids/")
        );
        assert_eq!(
            home("", "cgroup2", OWN, MOUNTS),
            path("/sys/fs/cgroup/unified/x")
        );
        assert_eq!(home("cpuset", "cgroup", OWN, MOUNTS), None);
        assert_eq!(home("memory", "cgroup", "", MOUNTS), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a file system")]
    fn only_what_the_dead_have_left_is_cleared_away() {
        let home = std::env::temp_dir().join(format!("r1ci-home-{}", std::process::id()));
        // A process of this number may live in another namespace; here none does.
        let folder = |name: &str| home.join(format!("{NAME}{name}"));
        for name in ["2000000000-0badcafe/1", "2000000001-0badcafe/1", "x"] {
            fs::create_dir_all(folder(name)).expect("folders");
        }
        fs::create_dir(home.join("system.slice")).expect("a folder");
        let held = lock(&folder("2000000000-0badcafe")).expect("a lock");
        clear_away(&home);
        assert!(folder("2000000000-0badcafe/1").exists(), "its maker lives");
        assert!(!folder("2000000001-0badcafe").exists());
        assert!(folder("x").exists() && home.join("system.slice").exists());
        drop(held);
        clear_away(&home);
        assert!(!folder("2000000000-0badcafe").exists());
        fs::remove_dir_all(home).expect("ours");
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a kernel")]
    fn groups_that_somebody_removed_are_made_again() {
        let Ok(mut groups) = Groups::find() else {
            return;
        };
        let kept = groups.lend(64 << 20, 8).expect("a group");
        let free = groups.lend(64 << 20, 8).expect("a group");
        fs::remove_dir(&free.folders[0]).expect("nobody is in it");
        groups.take_back(free);
        let other = groups.lend(64 << 20, 8).expect("another group");
        groups.take_back(other);
        groups.take_back(kept);
        for parent in groups.parents.clone() {
            remove(&parent, TRIES);
        }
        let parents = groups.parents.clone();
        assert!(parents.iter().all(|parent| !parent.exists()));
        let group = groups.lend(64 << 20, 8).expect("made again");
        assert!(group.folders.iter().all(|folder| folder.exists()));
        // A sandbox that starts in the same place leaves them alone.
        drop(Groups::find());
        assert!(group.folders.iter().all(|folder| folder.exists()));
        drop(groups);
        assert!(parents.iter().all(|parent| !parent.exists()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a kernel")]
    fn a_group_that_somebody_is_in_goes_when_they_do() {
        let Ok(mut groups) = Groups::find() else {
            return;
        };
        let group = groups.lend(64 << 20, 8).expect("a group");
        let mut sleeper = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("a process");
        for entrance in &group.entrances {
            rustix::io::write(entrance, sleeper.id().to_string().as_bytes()).expect("it enters");
        }
        let folders = group.folders.clone();
        groups.take_back(group);
        assert!(groups.free.is_empty() && folders.iter().all(|folder| folder.exists()));
        sleeper.kill().expect("ours");
        sleeper.wait().expect("ours");
        let other = groups.lend(64 << 20, 8).expect("a group");
        assert!(other.folders != folders, "it would count the sleeper");
        // Looked at again with the next one.
        for _ in 0..TRIES {
            let another = groups.new_group().expect("a group");
            groups.retire(another);
            if groups.retired.is_empty() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        assert!(!folders.iter().any(|folder| folder.exists()));
        groups.take_back(other);
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a kernel")]
    fn a_group_that_is_half_made_is_not_left_behind() {
        let Ok(mut groups) = Groups::find() else {
            return;
        };
        let nowhere = groups.parents[0].join("missing");
        groups.parents.push(nowhere);
        assert!(groups.new_group().is_err());
        let half_made = groups.parents[0].join(groups.made.to_string());
        assert!(!half_made.exists());
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a kernel")]
    fn groups_can_be_made_and_removed_if_at_all() {
        let Ok(mut groups) = Groups::find() else {
            return;
        };
        let parents = groups.parents.clone();
        let group = groups.lend(64 << 20, 8).expect("a group");
        assert!(!group.out_of_memory());
        assert!(group.folders.iter().all(|folder| folder.exists()));
        groups.take_back(group);
        drop(groups);
        assert!(parents.iter().all(|parent| !parent.exists()));
    }
}
