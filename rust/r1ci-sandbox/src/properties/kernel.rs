//! Properties that need a kernel: work folders as hostile scripts leave them, descriptors that
//! come with messages.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{messages, rounds};
use crate::wire::{self, Reply};
use crate::{files, scratch};

/// What a hostile script may leave in its work folder.
#[derive(Debug, Clone, Copy)]
enum Thing {
    Folder,
    File(u16),
    Hole(u32),
    LinkOutside,
    LinkAside,
    LinkToItself,
    SecondName,
    Pipe,
}

const NAMES: [&[u8]; 6] = [
    b"a",
    b"lifted-1",
    b"lifted-2",
    b"new\nline",
    b"\xff\xfe",
    b"...",
];

fn things() -> impl Strategy<Value = Thing> {
    prop_oneof![
        3 => Just(Thing::Folder),
        2 => any::<u16>().prop_map(Thing::File),
        1 => any::<u32>().prop_map(Thing::Hole),
        1 => Just(Thing::LinkOutside),
        1 => Just(Thing::LinkAside),
        1 => Just(Thing::LinkToItself),
        1 => Just(Thing::SecondName),
        1 => Just(Thing::Pipe),
    ]
}

/// Make it, if the name is free.
fn make(thing: Thing, path: &Path, outside: &Path, last_file: &mut PathBuf) -> io::Result<()> {
    match thing {
        Thing::Folder => fs::create_dir(path),
        Thing::File(size) => {
            path.clone_into(last_file);
            fs::File::create_new(path)?.write_all(&vec![b'x'; size.into()])
        }
        Thing::Hole(size) => fs::File::create_new(path)?.set_len(size.into()),
        Thing::LinkOutside => symlink(outside, path),
        Thing::LinkAside => symlink("a", path),
        Thing::LinkToItself => symlink(path, path),
        Thing::SecondName => fs::hard_link(last_file, path),
        Thing::Pipe => Ok(mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0)?),
    }
}

/// Bytes, things and levels below `folder`, counted without a thought for hostility.
fn count(folder: &Path) -> io::Result<(u64, u64, usize)> {
    let mut sum = (0, 0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        sum.0 += facts.blocks() * 512;
        sum.1 += 1;
        if facts.is_dir() {
            let inner = count(&entry.path())?;
            sum = (sum.0 + inner.0, sum.1 + inner.1, sum.2.max(inner.2 + 1));
        }
    }
    Ok(sum)
}

/// Whatever can be named below `folder`, through one link too.
fn paths_below(folder: &Path, prefix: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str() {
            let path = format!("{prefix}{name}");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                paths.extend(paths_below(&entry.path(), &format!("{path}/")));
            }
            paths.push(format!("{path}/keep"));
            paths.push(path);
        }
    }
    paths
}

/// The regular files among `paths`, until they are more than `left` bytes. No link leads to any.
fn fetched_plainly(root: &Path, paths: &[String], mut left: u64) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for path in paths {
        let whole = root.join(path);
        let mut ways = whole.ancestors().take_while(|way| *way != root);
        let plain = ways.all(|way| !way.is_symlink());
        let facts = fs::symlink_metadata(&whole).ok();
        if let Some(facts) = facts.filter(|facts| plain && facts.is_file()) {
            if facts.len() > left {
                break;
            }
            left -= facts.len();
            found.push((path.clone(), fs::read(&whole).expect("a file")));
        }
    }
    found
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).expect("a folder").into()
}

proptest! {
    #![proptest_config(rounds(100))]

    #[test]
    fn a_tree_is_weighed_to_the_byte_and_removed_to_the_last_name(
        steps in vec((any::<Index>(), 0..NAMES.len(), things(), any::<bool>()), 0..60),
        depth in prop_oneof![Just(0_usize), 62..68_usize], budget in 0..200_000_u64,
    ) {
        let kept = scratch::create(None).expect("a folder");
        let own = scratch::create(None).expect("a folder");
        fs::write(kept.path().join("keep"), b"x").expect("write");
        let root = own.path().to_owned();
        let (mut folders, mut last_file) = (vec![root.clone()], root.clone());
        let mut shut = Vec::new();
        for (place, name, thing, shuts) in steps {
            let path = place.get(&folders).join(std::ffi::OsStr::from_bytes(NAMES[name]));
            let made = make(thing, &path, kept.path(), &mut last_file);
            if made.is_ok() && matches!(thing, Thing::Folder) {
                folders.push(path.clone());
                shut.extend(shuts.then_some(path));
            }
        }
        fs::create_dir_all(root.join(vec!["d"; depth].join("/"))).expect("folders");
        let handle = open(&root);
        let sum = count(&root).expect("readable");
        let (weight, things, levels) = sum;
        let more = |bytes, files| scratch::holds_more(handle.as_fd(), bytes, files);
        let found = [
            more(weight, things),
            weight > 0 && !more(weight - 1, things),
            things > 0 && !more(weight, things - 1),
            !more(0, 0) && things > 0,
        ];
        let paths = paths_below(&root, "");
        let read = files::fetch(handle.as_fd(), &paths, budget);
        prop_assert_eq!(read, fetched_plainly(&root, &paths, budget));
        // A file system may book blocks late; then there is nothing to compare.
        prop_assume!(count(&root).expect("readable") == sum);
        prop_assert_eq!(found, [levels > 64, false, false, false]);
        // The inner ones first, or an ordinary user could not reach them any more.
        for path in shut.into_iter().rev() {
            fs::set_permissions(path, PermissionsExt::from_mode(0o000)).expect("chmod");
        }
        scratch::empty(handle.as_fd()).expect("emptied");
        prop_assert_eq!(fs::read_dir(&root).expect("readable").count(), 0);
        prop_assert!(kept.path().join("keep").exists());
    }

    #[test]
    fn handles_that_nobody_asked_for_are_closed(message in messages(), count in 0..=6_usize) {
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (ours, theirs) = pair.expect("sockets");
        let (end, handle) = pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        wire::send(&theirs, &message, &vec![handle.as_fd(); count]).expect("sent");
        drop(handle);
        let reply = wire::receive_reply(&ours);
        prop_assert!(!matches!(reply, Ok(Reply::Nothing)));
        prop_assert!(!matches!(reply, Ok(Reply::Forked(..))) || count > 0);
        prop_assert!(!matches!(reply, Ok(Reply::Exited(..))) || count == 0);
        drop(reply);
        // At its end once nobody holds the other side.
        let mut waiting = [PollFd::new(&end, PollFlags::IN)];
        let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
        prop_assert_eq!(poll(&mut waiting, Some(&patience)), Ok(1));
    }
}
