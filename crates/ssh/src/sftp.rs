//! File transfer: version 3 of the SSH File Transfer Protocol (draft-ietf-secsh-filexfer-02), with OpenSSH's extensions
//! that clients use. Files are those of the user the agent runs as, and their names any bytes.

use std::collections::HashMap;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, symlink};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use russh::Channel;
use russh::server::Msg;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::inlet::{self, Backlog};

mod disk;
mod listing;
mod packets;

use disk::{attributes, canonical, options, read_at, set, set_named, space};
use packets::{Attributes, Code, Fields, Named, Refusal, kind};

const POSIX_RENAME: &str = "posix-rename@openssh.com";
const HARDLINK: &str = "hardlink@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const LIMITS: &str = "limits@openssh.com";
const STATVFS: &str = "statvfs@openssh.com";
const EXTENSIONS: [(&str, &str); 5] =
    [(POSIX_RENAME, "1"), (HARDLINK, "1"), (FSYNC, "1"), (LIMITS, "1"), (STATVFS, "2")];
/// Files and directories one client may have open.
const MAX_HANDLES: usize = 1024;
/// Bytes of one answer to a read.
const MAX_READ: u32 = 255 << 10;
/// Largest packet taken from a client.
const MAX_PACKET: u32 = 256 << 10;
/// Names in one answer to a read of a directory.
const NAMES: usize = 256;

/// Serves a client on its channel, until it ends that or says what is no packet.
pub(crate) async fn serve(channel: Channel<Msg>, backlog: Backlog, mut files: Files) {
    let (mut inlet, outlet) = inlet::open(channel, &backlog);
    let mut buffer = BytesMut::new();
    while let Some(packet) = next(&mut inlet, &mut buffer).await {
        let answer = files.answer(Fields(packet)).await;
        if outlet.data_bytes(answer).await.is_err() {
            break;
        }
    }
    let _ = outlet.exit_status(0).await;
    let _ = outlet.eof().await;
    let _ = outlet.close().await;
}

/// Reads the next packet without its length.
async fn next(from: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Option<Bytes> {
    let length = from.read_u32().await.ok().filter(|length| (1..=MAX_PACKET).contains(length))?;
    buffer.resize(length as usize, 0);
    from.read_exact(buffer).await.ok()?;
    Some(buffer.split().freeze())
}

enum Open {
    File(Arc<File>),
    Directory(Arc<Mutex<ReadDir>>),
}

/// One client's files.
pub(crate) struct Files {
    home: PathBuf,
    open: HashMap<String, Open>,
    last: u64,
}

type Answered = Result<Bytes, Refusal>;

impl Files {
    /// Paths that are not absolute begin at `home`.
    pub(crate) fn new(home: PathBuf) -> Self {
        Self { home, open: HashMap::new(), last: 0 }
    }

    /// Does what a packet asks for.
    async fn answer(&mut self, mut fields: Fields) -> Bytes {
        let asked = fields.byte().and_then(|kind| Ok((kind, fields.number()?)));
        match asked {
            Ok((kind::INIT, _)) => packets::version(&EXTENSIONS),
            Ok((kind, id)) => match self.request(kind, id, &mut fields).await {
                Ok(answer) => answer,
                Err(refusal) => packets::status(id, refusal.code, &refusal.text),
            },
            Err(refusal) => packets::status(0, refusal.code, &refusal.text),
        }
    }

    async fn request(&mut self, kind: u8, id: u32, fields: &mut Fields) -> Answered {
        match kind {
            kind::OPEN => self.open(id, fields).await,
            kind::CLOSE => self.close(id, fields),
            kind::READ => self.read(id, fields).await,
            kind::WRITE => self.write(id, fields).await,
            kind::LSTAT | kind::STAT => self.stat(id, fields, kind == kind::LSTAT).await,
            kind::FSTAT => {
                let file = self.file(fields)?;
                let metadata = on_disk(move || file.metadata()).await?;
                Ok(packets::attributes(id, &attributes(&metadata)))
            }
            kind::SETSTAT => {
                let (path, wanted) = (self.path(fields)?, fields.attributes()?);
                done(id, on_disk(move || set_named(&path, &wanted)).await)
            }
            kind::FSETSTAT => {
                let (file, wanted) = (self.file(fields)?, fields.attributes()?);
                done(id, on_disk(move || set(&file, &wanted)).await)
            }
            kind::OPENDIR => {
                let path = self.path(fields)?;
                let entries = on_disk(move || fs::read_dir(path)).await?;
                self.keep(id, Open::Directory(Arc::new(Mutex::new(entries))))
            }
            kind::READDIR => self.list(id, fields).await,
            kind::REMOVE => {
                let path = self.path(fields)?;
                done(id, on_disk(move || fs::remove_file(path)).await)
            }
            kind::MKDIR => {
                let (path, wanted) = (self.path(fields)?, fields.attributes()?);
                let mode = wanted.permissions.map_or(0o777, |mode| mode & 0o7777);
                done(id, on_disk(move || fs::DirBuilder::new().mode(mode).create(path)).await)
            }
            kind::RMDIR => {
                let path = self.path(fields)?;
                done(id, on_disk(move || fs::remove_dir(path)).await)
            }
            kind::REALPATH => {
                let path = self.path(fields)?;
                let found = on_disk(move || Ok(canonical(&path))).await?;
                Ok(named(id, found))
            }
            kind::RENAME => self.rename(id, fields).await,
            kind::READLINK => {
                let path = self.path(fields)?;
                let target = on_disk(move || fs::read_link(path)).await?;
                Ok(named(id, target))
            }
            kind::SYMLINK => {
                // OpenSSH's order of the two paths, which every client follows: the target first.
                let (target, link) = (fields.string()?, self.path(fields)?);
                done(id, on_disk(move || symlink(packets::path(&target), link)).await)
            }
            kind::EXTENDED => self.extended(id, fields).await,
            _ => Err(unsupported()),
        }
    }

    /// The path that is the next field.
    fn path(&self, fields: &mut Fields) -> Result<PathBuf, Refusal> {
        Ok(self.home.join(packets::path(&fields.string()?)))
    }

    /// The open file whose handle is the next field.
    fn file(&self, fields: &mut Fields) -> Result<Arc<File>, Refusal> {
        match handle(&fields.string()?).and_then(|handle| self.open.get(handle)) {
            Some(Open::File(file)) => Ok(Arc::clone(file)),
            Some(Open::Directory(_)) | None => Err(Refusal::new(Code::Failure, "not an open file")),
        }
    }

    fn keep(&mut self, id: u32, open: Open) -> Answered {
        if self.open.len() >= MAX_HANDLES {
            return Err(Refusal::new(Code::Failure, "too many open files"));
        }
        self.last += 1;
        let handle = self.last.to_string();
        let answer = packets::handle(id, &handle);
        self.open.insert(handle, open);
        Ok(answer)
    }

    async fn open(&mut self, id: u32, fields: &mut Fields) -> Answered {
        let (path, flags, wanted) = (self.path(fields)?, fields.number()?, fields.attributes()?);
        let file = on_disk(move || options(flags, &wanted).open(path)).await?;
        self.keep(id, Open::File(Arc::new(file)))
    }

    fn close(&mut self, id: u32, fields: &mut Fields) -> Answered {
        match handle(&fields.string()?).and_then(|handle| self.open.remove(handle)) {
            Some(_) => done(id, Ok(())),
            None => Err(Refusal::new(Code::Failure, "not open")),
        }
    }

    async fn read(&mut self, id: u32, fields: &mut Fields) -> Answered {
        let (file, offset, length) = (self.file(fields)?, fields.long()?, fields.number()?);
        let data = on_disk(move || read_at(&file, offset, length.min(MAX_READ) as usize)).await?;
        Ok(packets::data(id, &data))
    }

    async fn write(&mut self, id: u32, fields: &mut Fields) -> Answered {
        let (file, offset, data) = (self.file(fields)?, fields.long()?, fields.string()?);
        done(id, on_disk(move || file.write_all_at(&data, offset)).await)
    }

    async fn stat(&mut self, id: u32, fields: &mut Fields, of_link: bool) -> Answered {
        let path = self.path(fields)?;
        let look = move || if of_link { fs::symlink_metadata(path) } else { fs::metadata(path) };
        Ok(packets::attributes(id, &attributes(&on_disk(look).await?)))
    }

    async fn list(&mut self, id: u32, fields: &mut Fields) -> Answered {
        let handle = fields.string()?;
        let open = self::handle(&handle).and_then(|handle| self.open.get(handle));
        let Some(Open::Directory(entries)) = open else {
            return Err(Refusal::new(Code::Failure, "not an open directory"));
        };
        let entries = Arc::clone(entries);
        let files = on_disk(move || {
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            // What vanished meanwhile is not there.
            let found = entries.by_ref().filter_map(|entry| listed(&entry.ok()?));
            Ok(found.take(NAMES).collect::<Vec<_>>())
        })
        .await?;
        if files.is_empty() {
            Err(Refusal::new(Code::Eof, "that was all"))
        } else {
            Ok(packets::names(id, &files))
        }
    }

    /// Does not replace what is there, as the protocol has it; the extension does.
    async fn rename(&mut self, id: u32, fields: &mut Fields) -> Answered {
        let (old, new) = (self.path(fields)?, self.path(fields)?);
        let outcome = on_disk(move || {
            if fs::symlink_metadata(&new).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(old, new)
        });
        done(id, outcome.await)
    }

    async fn extended(&mut self, id: u32, fields: &mut Fields) -> Answered {
        let request = fields.string()?;
        match std::str::from_utf8(&request).map_err(|_| unsupported())? {
            POSIX_RENAME => {
                let (old, new) = (self.path(fields)?, self.path(fields)?);
                done(id, on_disk(move || fs::rename(old, new)).await)
            }
            HARDLINK => {
                let (old, new) = (self.path(fields)?, self.path(fields)?);
                done(id, on_disk(move || fs::hard_link(old, new)).await)
            }
            FSYNC => {
                let file = self.file(fields)?;
                done(id, on_disk(move || file.sync_all()).await)
            }
            LIMITS => {
                let limits =
                    [u64::from(MAX_PACKET), u64::from(MAX_READ), u64::from(MAX_READ), MAX_HANDLES as u64];
                let data: Vec<u8> = limits.iter().flat_map(|limit| limit.to_be_bytes()).collect();
                Ok(packets::extended(id, &data))
            }
            STATVFS => {
                let path = self.path(fields)?;
                let data = on_disk(move || space(&path)).await?;
                Ok(packets::extended(id, &data))
            }
            _ => Err(unsupported()),
        }
    }
}

/// Does what may wait for a disk where it holds nobody up.
async fn on_disk<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(act).await {
        Ok(outcome) => outcome.map_err(|error| refusal(&error)),
        Err(_) => Err(Refusal::new(Code::Failure, "the server stops")),
    }
}

fn refusal(error: &io::Error) -> Refusal {
    let code = match error.kind() {
        io::ErrorKind::NotFound => Code::NoSuchFile,
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        io::ErrorKind::UnexpectedEof => Code::Eof,
        io::ErrorKind::Unsupported => Code::Unsupported,
        _ => Code::Failure,
    };
    Refusal::new(code, error.to_string())
}

fn unsupported() -> Refusal {
    Refusal::new(Code::Unsupported, "this is not done here")
}

fn done(id: u32, outcome: Result<(), Refusal>) -> Answered {
    outcome.map(|()| packets::status(id, Code::Ok, "Ok"))
}

/// The handles given out are numbers.
fn handle(bytes: &Bytes) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn named(id: u32, path: PathBuf) -> Bytes {
    let name = path.into_os_string().into_vec();
    packets::names(id, &[Named { line: name.clone(), name, attributes: Attributes::default() }])
}

fn listed(entry: &fs::DirEntry) -> Option<Named> {
    let (name, metadata) = (entry.file_name(), entry.metadata().ok()?);
    let line = listing::line(&metadata, name.as_bytes());
    Some(Named { name: name.into_vec(), line, attributes: attributes(&metadata) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bytes::{Buf, BufMut};
    use std::ffi::OsStr;

    /// A name that is no UTF-8, and another one that a lossy reading would take for the same.
    const NAMES: [&[u8]; 2] = [b"caf\xe9", b"caf\xe8"];

    fn packet(kind: u8, parts: &[&[u8]]) -> Fields {
        let mut bytes = BytesMut::new();
        bytes.put_u8(kind);
        bytes.put_u32(7);
        parts.iter().for_each(|part| bytes.put_slice(part));
        Fields(bytes.freeze())
    }

    fn text(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
    }

    /// The kind of an answer and its fields.
    async fn ask(files: &mut Files, kind: u8, parts: &[&[u8]]) -> (u8, Fields) {
        let mut answer = files.answer(packet(kind, parts)).await;
        assert_eq!(answer.get_u32() as usize, answer.len());
        let mut fields = Fields(answer);
        let kind = fields.byte().unwrap();
        assert_eq!(fields.number().unwrap(), 7);
        (kind, fields)
    }

    async fn code(files: &mut Files, kind: u8, parts: &[&[u8]]) -> u32 {
        let (kind, mut fields) = ask(files, kind, parts).await;
        assert_eq!(kind, 101);
        fields.number().unwrap()
    }

    async fn names(files: &mut Files, kind: u8, part: &[u8]) -> Vec<Vec<u8>> {
        let (kind, mut fields) = ask(files, kind, &[part]).await;
        assert_eq!(kind, 104);
        let mut found = Vec::new();
        for _ in 0..fields.number().unwrap() {
            found.push(fields.string().unwrap().to_vec());
            assert!(fields.string().unwrap().ends_with(found.last().unwrap()));
            fields.attributes().unwrap();
        }
        found.sort();
        found
    }

    #[tokio::test]
    async fn names_are_any_bytes_both_ways() {
        let place = tempfile::tempdir().unwrap();
        let (home, mut files) = (place.path().canonicalize().unwrap(), Files::new(place.path().to_owned()));
        let create = (packets::flag::WRITE | packets::flag::CREATE).to_be_bytes();
        for name in NAMES {
            let (kind, mut fields) = ask(&mut files, kind::OPEN, &[&text(name), &create, &[0; 4]]).await;
            assert_eq!(kind, 102);
            let handle = text(&fields.string().unwrap());
            assert_eq!(code(&mut files, kind::WRITE, &[&handle, &[0; 8], &text(name)]).await, 0);
            assert_eq!(code(&mut files, kind::CLOSE, &[&handle]).await, 0);
            assert_eq!(fs::read(home.join(OsStr::from_bytes(name))).unwrap(), name);
        }
        assert_eq!(code(&mut files, kind::SYMLINK, &[&text(NAMES[0]), &text(b"link\xff")]).await, 0);
        assert_eq!(
            code(&mut files, kind::RENAME, &[&text(NAMES[0]), &text(NAMES[1])]).await,
            4,
            "both are there"
        );
        assert_eq!(names(&mut files, kind::READLINK, &text(b"link\xff")).await, [NAMES[0]]);
        let real = [home.as_os_str().as_bytes(), b"/", NAMES[0]].concat();
        assert_eq!(names(&mut files, kind::REALPATH, &text(b"link\xff")).await, [real]);

        let (_, mut fields) = ask(&mut files, kind::OPENDIR, &[&text(b".")]).await;
        let handle = text(&fields.string().unwrap());
        let wanted: [&[u8]; 3] = [NAMES[1], NAMES[0], b"link\xff"];
        assert_eq!(names(&mut files, kind::READDIR, &handle).await, wanted);
        assert_eq!(code(&mut files, kind::READDIR, &[&handle]).await, Code::Eof as u32);
        assert_eq!(code(&mut files, kind::REMOVE, &[&text(NAMES[0])]).await, 0);
        assert!(!home.join(OsStr::from_bytes(NAMES[0])).exists());
    }

    #[tokio::test]
    async fn packets_cut_short_at_any_place_are_answered_with_a_refusal() {
        let place = tempfile::tempdir().unwrap();
        let mut files = Files::new(place.path().to_owned());
        let whole = [&text(b"new")[..], &8_u32.to_be_bytes(), &[0, 0, 0, 4, 0, 0, 1, 0]].concat();
        for kind in (3..=20).chain([200]) {
            for length in 0..4 {
                let refused = code(&mut files, kind, &[&whole[..length]]).await;
                assert_eq!(refused, Code::BadMessage as u32, "{kind} cut at {length}");
            }
        }
        for length in 0..whole.len() {
            assert_eq!(code(&mut files, kind::OPEN, &[&whole[..length]]).await, Code::BadMessage as u32);
        }
        assert_eq!(code(&mut files, 99, &[]).await, Code::Unsupported as u32);
        assert_eq!(code(&mut files, kind::EXTENDED, &[&text(b"\xff")]).await, Code::Unsupported as u32);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_is_no_directory_and_stays_open() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "text").unwrap();
        let mut files = Files::new(place.path().to_owned());
        let read = packets::flag::READ.to_be_bytes();
        let (_, mut fields) = ask(&mut files, kind::OPEN, &[&text(b"file"), &read, &[0; 4]]).await;
        let handle = text(&fields.string().unwrap());
        assert_eq!(code(&mut files, kind::READDIR, &[&handle]).await, Code::Failure as u32);
        let (kind, mut fields) = ask(&mut files, kind::READ, &[&handle, &[0; 8], &[0, 0, 1, 0]]).await;
        assert_eq!((kind, &fields.string().unwrap()[..]), (103, &b"text"[..]));
    }

    #[tokio::test]
    async fn a_packet_longer_than_is_taken_ends_the_transfer() {
        let mut buffer = BytesMut::new();
        assert_eq!(next(&mut &b"\0\0\0\x02ab"[..], &mut buffer).await.unwrap(), &b"ab"[..]);
        for bad in [&b"\0\x04\0\x01"[..], b"\0\0\0\0", b"\0\0\0\x05abcd", b"\0\0"] {
            assert_eq!(next(&mut { bad }, &mut buffer).await, None);
        }
    }
}
