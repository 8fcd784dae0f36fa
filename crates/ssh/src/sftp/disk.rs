//! What file transfer does to files.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use russh_sftp::protocol::{FileAttributes, OpenFlags};
use rustix::fs::{AtFlags, CWD, OFlags, StatVfsMountFlags, Timespec, Timestamps, statvfs, utimensat};

pub(super) fn attributes(metadata: &Metadata) -> FileAttributes {
    let seconds = |at: i64| u32::try_from(at.max(0)).unwrap_or(u32::MAX);
    FileAttributes {
        size: Some(metadata.len()),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
        permissions: Some(metadata.mode()),
        atime: Some(seconds(metadata.atime())),
        mtime: Some(seconds(metadata.mtime())),
        ..FileAttributes::default()
    }
}

/// Sets what the client gave; what it did not give stays.
pub(super) fn set(file: &File, wanted: &FileAttributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        file.set_len(size)?;
    }
    if let (Some(uid), Some(gid)) = (wanted.uid, wanted.gid) {
        fchown(file, Some(uid), Some(gid))?;
    }
    if let Some(mode) = wanted.permissions {
        file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
    }
    if let (Some(accessed), Some(modified)) = (wanted.atime, wanted.mtime) {
        let at = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
        file.set_times(fs::FileTimes::new().set_accessed(at(accessed)).set_modified(at(modified)))?;
    }
    Ok(())
}

/// The same for what can only be named: it may be a pipe that nobody reads, or a file that may not be opened.
pub(super) fn set_named(path: &Path, wanted: &FileAttributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        let patience = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        OpenOptions::new().write(true).custom_flags(patience).open(path)?.set_len(size)?;
    }
    if let (Some(uid), Some(gid)) = (wanted.uid, wanted.gid) {
        chown(path, Some(uid), Some(gid))?;
    }
    if let Some(mode) = wanted.permissions {
        fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))?;
    }
    if let (Some(accessed), Some(modified)) = (wanted.atime, wanted.mtime) {
        let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        let times = Timestamps { last_access: at(accessed), last_modification: at(modified) };
        utimensat(CWD, path, &times, AtFlags::empty())?;
    }
    Ok(())
}

pub(super) fn options(flags: OpenFlags, wanted: &FileAttributes) -> OpenOptions {
    let mut options = OpenOptions::new();
    let write = flags.contains(OpenFlags::WRITE);
    options
        .read(flags.contains(OpenFlags::READ))
        .write(write)
        .append(write && flags.contains(OpenFlags::APPEND))
        .truncate(write && flags.contains(OpenFlags::TRUNCATE))
        .create(write && flags.contains(OpenFlags::CREATE))
        .create_new(write && flags.contains(OpenFlags::CREATE) && flags.contains(OpenFlags::EXCLUDE))
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
