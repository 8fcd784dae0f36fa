//! What file transfer does to files.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, OFlags, StatVfsMountFlags, Timespec, Timestamps, statvfs, utimensat};

use super::packets::{Attributes, flag};

pub(super) fn attributes(metadata: &Metadata) -> Attributes {
    let seconds = |at: i64| u32::try_from(at.max(0)).unwrap_or(u32::MAX);
    Attributes {
        size: Some(metadata.len()),
        owner: Some((metadata.uid(), metadata.gid())),
        permissions: Some(metadata.mode()),
        times: Some((seconds(metadata.atime()), seconds(metadata.mtime()))),
    }
}

/// Sets what the client gave; what it did not give stays.
pub(super) fn set(file: &File, wanted: &Attributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        file.set_len(size)?;
    }
    if let Some((uid, gid)) = wanted.owner {
        fchown(file, Some(uid), Some(gid))?;
    }
    if let Some(mode) = wanted.permissions {
        file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
    }
    if let Some((accessed, modified)) = wanted.times {
        let at = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
        file.set_times(fs::FileTimes::new().set_accessed(at(accessed)).set_modified(at(modified)))?;
    }
    Ok(())
}

/// The same for what can only be named: it may be a pipe that nobody reads, or a file that may not be opened.
pub(super) fn set_named(path: &Path, wanted: &Attributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        let patience = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        OpenOptions::new().write(true).custom_flags(patience).open(path)?.set_len(size)?;
    }
    if let Some((uid, gid)) = wanted.owner {
        chown(path, Some(uid), Some(gid))?;
    }
    if let Some(mode) = wanted.permissions {
        fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))?;
    }
    if let Some((accessed, modified)) = wanted.times {
        let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        let times = Timestamps { last_access: at(accessed), last_modification: at(modified) };
        utimensat(CWD, path, &times, AtFlags::empty())?;
    }
    Ok(())
}

/// How a file is opened by a client's flags.
pub(super) fn options(flags: u32, wanted: &Attributes) -> OpenOptions {
    let has = |flag: u32| flags & flag != 0;
    let mut options = OpenOptions::new();
    let write = has(flag::WRITE);
    options
        .read(has(flag::READ))
        .write(write)
        .append(write && has(flag::APPEND))
        .truncate(write && has(flag::TRUNCATE))
        .create(write && has(flag::CREATE))
        .create_new(write && has(flag::CREATE) && has(flag::EXCLUSIVE))
        .mode(wanted.permissions.map_or(0o666, |mode| mode & 0o7777));
    options
}

/// Reads until the buffer is full or the file is over.
pub(super) fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut data[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    data.truncate(filled);
    Ok(data)
}

/// Makes a path absolute without `.` and `..`, and without looking at links where it does not exist.
pub(super) fn canonical(path: &Path) -> PathBuf {
    if let Ok(found) = path.canonicalize() {
        return found;
    }
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// The space of a path's file system, as `statvfs@openssh.com` answers it: eleven numbers of eight bytes.
pub(super) fn space(path: &Path) -> io::Result<Vec<u8>> {
    let found = statvfs(path)?;
    let flag = |flag, bit| if found.f_flag.contains(flag) { bit } else { 0_u64 };
    let flags = flag(StatVfsMountFlags::RDONLY, 1) | flag(StatVfsMountFlags::NOSUID, 2);
    let numbers = [
        found.f_bsize,
        found.f_frsize,
        found.f_blocks,
        found.f_bfree,
        found.f_bavail,
        found.f_files,
        found.f_ffree,
        found.f_favail,
        found.f_fsid,
        flags,
        found.f_namemax,
    ];
    Ok(numbers.iter().flat_map(|number| number.to_be_bytes()).collect())
}
