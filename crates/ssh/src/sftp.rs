//! File transfer: version 3 of the SSH File Transfer Protocol (draft-ietf-secsh-filexfer-02), with OpenSSH's extensions
//! that clients use. Files are those of the user the agent runs as.

use std::collections::HashMap;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, symlink};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use russh::server::Msg;
use russh::{Channel, ChannelWriteHalf};
use russh_sftp::extensions::{
    FSYNC, FsyncExtension, HARDLINK, HardlinkExtension, LIMITS, STATVFS, StatvfsExtension,
};
use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode, Version,
};
use russh_sftp::server::{Config, Handler, StatusReply, run_with_config};
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};

use crate::inlet::{self, Backlog, Inlet};

mod disk;

use disk::{attributes, canonical, options, read_at, set, set_named, space};

const POSIX_RENAME: &str = "posix-rename@openssh.com";
/// Files and directories one client may have open.
const MAX_HANDLES: usize = 1024;
/// Bytes of one answer to a read.
const MAX_READ: u32 = 255 << 10;
/// Largest packet taken from a client.
const MAX_PACKET: u32 = 256 << 10;
/// Names in one answer to a read of a directory.
const NAMES: usize = 256;

/// Serves a client on its channel.
pub(crate) async fn serve(channel: Channel<Msg>, backlog: Backlog, files: Files) {
    let (inlet, outlet) = inlet::open(channel, &backlog);
    let writer: Writer = Box::pin(outlet.make_writer());
    let stream = Ending { stream: tokio::io::join(inlet, writer), outlet: Some(outlet) };
    run_with_config(stream, files, Config { max_client_packet_len: MAX_PACKET }).await;
}

type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// The channel as a stream; its end tells the client that all went well.
struct Ending {
    stream: Join<Inlet, Writer>,
    outlet: Option<ChannelWriteHalf<Msg>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(outlet) = self.outlet.take() else { return };
        tokio::spawn(async move {
            let _ = outlet.exit_status(0).await;
            let _ = outlet.eof().await;
            let _ = outlet.close().await;
        });
    }
}

impl AsyncRead for Ending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Ending {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

enum Open {
    File(Arc<File>),
    Directory(PathBuf, Box<ReadDir>),
}

/// One client's files.
pub(crate) struct Files {
    home: PathBuf,
    open: HashMap<String, Open>,
    next: u64,
}

impl Files {
    /// Paths that are not absolute begin at `home`.
    pub(crate) fn new(home: PathBuf) -> Self {
        Self { home, open: HashMap::new(), next: 0 }
    }

    fn path(&self, text: &str) -> Result<PathBuf, StatusReply> {
        Ok(self.home.join(whole(text)?))
    }

    fn keep(&mut self, id: u32, open: Open) -> Result<Handle, StatusReply> {
        if self.open.len() >= MAX_HANDLES {
            return Err(StatusCode::Failure.with_message("too many open files"));
        }
        self.next += 1;
        let handle = self.next.to_string();
        self.open.insert(handle.clone(), open);
        Ok(Handle { id, handle })
    }

    fn file(&self, handle: &str) -> Result<Arc<File>, StatusReply> {
        match self.open.get(handle) {
            Some(Open::File(file)) => Ok(Arc::clone(file)),
            Some(Open::Directory(..)) | None => Err(StatusCode::Failure.with_message("not an open file")),
        }
    }
}

/// Does what may wait for a disk where it holds nobody up.
async fn on_disk<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StatusReply> {
    match tokio::task::spawn_blocking(act).await {
        Ok(outcome) => outcome.map_err(|error| refusal(&error)),
        Err(_) => Err(StatusCode::Failure.into()),
    }
}

fn refusal(error: &io::Error) -> StatusReply {
    let code = match error.kind() {
        io::ErrorKind::NotFound => StatusCode::NoSuchFile,
        io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
        io::ErrorKind::UnexpectedEof => StatusCode::Eof,
        io::ErrorKind::Unsupported => StatusCode::OpUnsupported,
        _ => StatusCode::Failure,
    };
    code.with_message(error.to_string())
}

fn done(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: "Ok".into(), language_tag: "en-US".into() }
}

fn named(id: u32, path: &Path) -> Name {
    let file = russh_sftp::protocol::File::dummy(path.to_string_lossy());
    Name { id, files: vec![file] }
}

impl Handler for Files {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        StatusCode::OpUnsupported.into()
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Result<Version, StatusReply> {
        let mut version = Version::new();
        for (name, form) in
            [(POSIX_RENAME, "1"), (HARDLINK, "1"), (FSYNC, "1"), (LIMITS, "1"), (STATVFS, "2")]
        {
            version.extensions.insert(name.into(), form.into());
        }
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        flags: OpenFlags,
        wanted: FileAttributes,
    ) -> Result<Handle, StatusReply> {
        let path = self.path(&filename)?;
        let file = on_disk(move || options(flags, &wanted).open(path)).await?;
        self.keep(id, Open::File(Arc::new(file)))
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, StatusReply> {
        match self.open.remove(&handle) {
            Some(_) => Ok(done(id)),
            None => Err(StatusCode::Failure.with_message("not open")),
        }
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Result<Data, StatusReply> {
        let file = self.file(&handle)?;
        let data = on_disk(move || read_at(&file, offset, len.min(MAX_READ) as usize)).await?;
        Ok(Data { id, data })
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Status, StatusReply> {
        let file = self.file(&handle)?;
        on_disk(move || file.write_all_at(&data, offset)).await?;
        Ok(done(id))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Result<Attrs, StatusReply> {
        let path = self.path(&path)?;
        let metadata = on_disk(move || fs::symlink_metadata(path)).await?;
        Ok(Attrs { id, attrs: attributes(&metadata) })
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusReply> {
        let path = self.path(&path)?;
        let metadata = on_disk(move || fs::metadata(path)).await?;
        Ok(Attrs { id, attrs: attributes(&metadata) })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, StatusReply> {
        let file = self.file(&handle)?;
        let metadata = on_disk(move || file.metadata()).await?;
        Ok(Attrs { id, attrs: attributes(&metadata) })
    }

    async fn setstat(
        &mut self,
        id: u32,
        path: String,
        wanted: FileAttributes,
    ) -> Result<Status, StatusReply> {
        let path = self.path(&path)?;
        on_disk(move || set_named(&path, &wanted)).await?;
        Ok(done(id))
    }

    async fn fsetstat(
        &mut self,
        id: u32,
        handle: String,
        wanted: FileAttributes,
    ) -> Result<Status, StatusReply> {
        let file = self.file(&handle)?;
        on_disk(move || set(&file, &wanted)).await?;
        Ok(done(id))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Result<Handle, StatusReply> {
        let path = self.path(&path)?;
        let place = path.clone();
        let entries = on_disk(move || fs::read_dir(path)).await?;
        self.keep(id, Open::Directory(place, Box::new(entries)))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, StatusReply> {
        let Some(Open::Directory(place, mut entries)) = self.open.remove(&handle) else {
            return Err(StatusCode::Failure.with_message("not an open directory"));
        };
        let (files, entries) = on_disk(move || {
            let files: Vec<_> = entries
                .by_ref()
                .take(NAMES)
                .filter_map(|entry| {
                    let entry = entry.ok()?;
                    let name = entry.file_name().to_string_lossy().into_owned();
                    // What vanished meanwhile is not there.
                    let attrs = attributes(&entry.metadata().ok()?);
                    Some(russh_sftp::protocol::File::new(name, attrs))
                })
                .collect();
            Ok((files, entries))
        })
        .await?;
        self.open.insert(handle, Open::Directory(place, entries));
        if files.is_empty() { Err(StatusCode::Eof.into()) } else { Ok(Name { id, files }) }
    }

    async fn remove(&mut self, id: u32, filename: String) -> Result<Status, StatusReply> {
        let path = self.path(&filename)?;
        on_disk(move || fs::remove_file(path)).await?;
        Ok(done(id))
    }

    async fn mkdir(&mut self, id: u32, path: String, wanted: FileAttributes) -> Result<Status, StatusReply> {
        let path = self.path(&path)?;
        let mode = wanted.permissions.map_or(0o777, |mode| mode & 0o7777);
        on_disk(move || fs::DirBuilder::new().mode(mode).create(path)).await?;
        Ok(done(id))
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Result<Status, StatusReply> {
        let path = self.path(&path)?;
        on_disk(move || fs::remove_dir(path)).await?;
        Ok(done(id))
    }

    async fn realpath(&mut self, id: u32, path: String) -> Result<Name, StatusReply> {
        let path = self.path(&path)?;
        let found = on_disk(move || Ok(canonical(&path))).await?;
        Ok(named(id, &found))
    }

    /// Does not replace what is there, as the protocol has it; the extension does.
    async fn rename(&mut self, id: u32, old: String, new: String) -> Result<Status, StatusReply> {
        let (old, new) = (self.path(&old)?, self.path(&new)?);
        on_disk(move || {
            if fs::symlink_metadata(&new).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(old, new)
        })
        .await?;
        Ok(done(id))
    }

    async fn readlink(&mut self, id: u32, path: String) -> Result<Name, StatusReply> {
        let path = self.path(&path)?;
        let target = on_disk(move || fs::read_link(path)).await?;
        Ok(named(id, &target))
    }

    /// OpenSSH's order of the two paths, which every client follows: the target first.
    async fn symlink(&mut self, id: u32, target: String, link: String) -> Result<Status, StatusReply> {
        let (target, link) = (whole(&target)?.to_owned(), self.path(&link)?);
        on_disk(move || symlink(target, link)).await?;
        Ok(done(id))
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Result<Packet, StatusReply> {
        let mut bytes = bytes::Bytes::from(data);
        match request.as_str() {
            // The same two paths as a hard link.
            POSIX_RENAME | HARDLINK => {
                let paths: HardlinkExtension =
                    russh_sftp::de::from_bytes(&mut bytes).map_err(|_| garbled())?;
                let (old, new) = (self.path(&paths.oldpath)?, self.path(&paths.newpath)?);
                let rename = request == POSIX_RENAME;
                on_disk(move || if rename { fs::rename(old, new) } else { fs::hard_link(old, new) }).await?;
                Ok(done(id).into())
            }
            FSYNC => {
                let wanted: FsyncExtension = russh_sftp::de::from_bytes(&mut bytes).map_err(|_| garbled())?;
                let file = self.file(&wanted.handle)?;
                on_disk(move || file.sync_all()).await?;
                Ok(done(id).into())
            }
            LIMITS => {
                let limits =
                    [u64::from(MAX_PACKET), u64::from(MAX_READ), u64::from(MAX_READ), MAX_HANDLES as u64];
                let data = limits.iter().flat_map(|limit| limit.to_be_bytes()).collect();
                Ok(Packet::ExtendedReply(ExtendedReply { id, data }))
            }
            STATVFS => {
                let wanted: StatvfsExtension =
                    russh_sftp::de::from_bytes(&mut bytes).map_err(|_| garbled())?;
                let path = self.path(&wanted.path)?;
                let data = on_disk(move || space(&path)).await?;
                Ok(Packet::ExtendedReply(ExtendedReply { id, data }))
            }
            _ => Err(StatusCode::OpUnsupported.into()),
        }
    }
}

/// Refuses a path whose bytes the library has replaced because they are not UTF-8: two of them could become the same.
fn whole(text: &str) -> Result<&str, StatusReply> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(StatusCode::Failure.with_message("names that are not UTF-8 cannot be moved this way"));
    }
    Ok(text)
}

fn garbled() -> StatusReply {
    StatusCode::BadMessage.into()
}
