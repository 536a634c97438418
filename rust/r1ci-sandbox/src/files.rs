//! Files that go into a work folder with a script, and those read back from it.
//!
//! Into it they go as one archive that the child unpacks, behind its jail. Out of it the supervisor
//! reads them by a handle on the folder, when the script has ended. What lies there by then is
//! hostile: links, devices and pipes in place of files, and paths that lead elsewhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::error::SandboxError;

/// Longest path taken, in bytes.
const PATH_BYTES: usize = 1024;
/// Most folders on the way to a file.
const DEPTH: usize = 16;
/// Most files of one request, in each direction.
const MOST: usize = 1024;

/// Refuse names that do not stay below a work folder, or get in each other's way.
pub(crate) fn check(files: &[(String, Vec<u8>)], fetch: &[String]) -> Result<(), SandboxError> {
    let wrong = |path: &str, reason| {
        Err(SandboxError::File {
            path: path.chars().take(100).collect(),
            reason,
        })
    };
    let mut taken = BTreeSet::new();
    for path in files.iter().map(|(path, _)| path).chain(fetch) {
        if let Some(reason) = fault(path) {
            return wrong(path, reason);
        }
    }
    for list in [files.len(), fetch.len()] {
        if list > MOST {
            return wrong("1025th", "a request may name 1024 files");
        }
    }
    for (path, _) in files {
        if !taken.insert(path.as_str()) {
            return wrong(path, "it is there twice");
        }
    }
    for (path, _) in files {
        let mut folders = Path::new(path).ancestors().skip(1);
        if folders.any(|folder| folder.to_str().is_some_and(|name| taken.contains(name))) {
            return wrong(path, "a file stands where it needs a folder");
        }
    }
    Ok(())
}

/// What is wrong with a path.
fn fault(path: &str) -> Option<&'static str> {
    let plain = |part| matches!(part, Component::Normal(_));
    let parts = Path::new(path).components();
    if path.is_empty() || path.len() > PATH_BYTES {
        Some("a path has 1 to 1024 bytes")
    } else if path.contains('\0') {
        Some("a path has no zero byte")
    } else if !parts.clone().all(plain) || path.split('/').any(|part| matches!(part, "" | ".")) {
        Some("it does not lead straight down from the work folder")
    } else if path.split('/').any(|part| part.len() > 255) {
        Some("a name has at most 255 bytes")
    } else if parts.count() > DEPTH {
        Some("it is more than 16 folders deep")
    } else {
        None
    }
}

/// The archive that `serve.py` unpacks: for each file the lengths of path and contents, then these.
pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let size = |(path, contents): &(String, Vec<u8>)| 12 + path.len() + contents.len();
    let mut bytes = Vec::with_capacity(files.iter().map(size).sum());
    for (path, contents) in files {
        bytes.extend((path.len() as u32).to_le_bytes());
        bytes.extend((contents.len() as u64).to_le_bytes());
        bytes.extend(path.as_bytes());
        bytes.extend(contents);
    }
    bytes
}

/// Those of `paths` that are regular files below `folder`, together at most `most_bytes` long; the
/// first one that does not fit any more and all after it are left out.
pub(crate) fn fetch(
    folder: BorrowedFd<'_>,
    paths: &[String],
    most_bytes: u64,
) -> Vec<(String, Vec<u8>)> {
    let mut left = most_bytes;
    let mut found = Vec::new();
    for path in paths {
        let Some(contents) = read(folder, path, left) else {
            continue;
        };
        let Some(rest) = left.checked_sub(contents.len() as u64) else {
            break;
        };
        left = rest;
        found.push((path.clone(), contents));
    }
    found
}

/// A regular file below `folder`, reached without any link; one byte more than `most_bytes` of it if
/// it is longer.
fn read(folder: BorrowedFd<'_>, path: &str, most_bytes: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let below = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(folder, path, flags, Mode::empty(), below).ok()?;
    let facts = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut contents = Vec::new();
    let mut file = File::from(file).take(most_bytes.saturating_add(1));
    file.read_to_end(&mut contents).ok()?;
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_stay_below_the_folder() {
        for good in ["a", "a/b.txt", "ä ü", "...", "a\nb", ".hidden"] {
            assert!(fault(good).is_none(), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            "a\0b",
            ".",
        ] {
            assert!(fault(bad).is_some(), "{bad}");
        }
        let file = |path: &str| (path.to_owned(), vec![]);
        assert!(check(&[file("a"), file("b/a")], &["a".into(), "a".into()]).is_ok());
        assert!(check(&[file("a"), file("a")], &[]).is_err());
        assert!(check(&[file("a/b/c"), file("a/b")], &[]).is_err());
        assert!(check(&[], &["../a".into()]).is_err());
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a file system")]
    fn only_regular_files_below_are_read() {
        let own = crate::scratch::create(None).expect("a folder");
        let root = own.path();
        std::fs::create_dir(root.join("sub")).expect("folder");
        std::fs::write(root.join("sub/a"), b"abc").expect("file");
        std::fs::write(root.join("long"), b"0123456789").expect("file");
        symlink("/etc/passwd", root.join("link")).expect("link");
        symlink("sub", root.join("way")).expect("link");
        let pipe = root.join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RWXU).expect("pipe");
        let folder = File::open(root).expect("open");
        let paths = ["sub/a", "link", "way/a", "pipe", "sub", "none", "../x"];
        let paths = paths.map(ToString::to_string);
        let found = fetch(folder.as_fd(), &paths, 100);
        assert_eq!(found, [("sub/a".to_owned(), b"abc".to_vec())]);
        let paths = ["sub/a", "long", "sub/a"].map(ToString::to_string);
        assert_eq!(fetch(folder.as_fd(), &paths, 8).len(), 1);
        assert_eq!(fetch(folder.as_fd(), &paths, 13).len(), 2);
    }
}
