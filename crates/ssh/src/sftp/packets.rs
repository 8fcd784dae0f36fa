//! Packets of file transfer, version 3 (draft-ietf-secsh-filexfer-02). Names are bytes, as the system's are.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Kinds of packets that clients send.
pub(super) mod kind {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const FSTAT: u8 = 8;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const SYMLINK: u8 = 20;
    pub(crate) const EXTENDED: u8 = 200;
}

const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// The version that is spoken.
const SPOKEN: u32 = 3;

/// How a file is to be opened.
pub(super) mod flag {
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const APPEND: u32 = 4;
    pub(crate) const CREATE: u32 = 8;
    pub(crate) const TRUNCATE: u32 = 0x10;
    pub(crate) const EXCLUSIVE: u32 = 0x20;
}

/// Which attributes there are.
mod has {
    pub(super) const SIZE: u32 = 1;
    pub(super) const OWNER: u32 = 2;
    pub(super) const PERMISSIONS: u32 = 4;
    pub(super) const TIMES: u32 = 8;
    pub(super) const EXTENDED: u32 = 0x8000_0000;
}

/// Outcomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    fn garbled() -> Self {
        Self::new(Code::BadMessage, "the packet ends too early")
    }
}

/// What is known of a file, or wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    /// User and group.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) permissions: Option<u32>,
    /// Seconds since 1970 of the last access and the last change.
    pub(super) times: Option<(u32, u32)>,
}

/// Reads the fields of a packet, in order.
#[derive(Debug)]
pub(super) struct Fields(pub(super) Bytes);

impl Fields {
    pub(super) fn byte(&mut self) -> Result<u8, Refusal> {
        self.0.try_get_u8().map_err(|_| Refusal::garbled())
    }

    pub(super) fn number(&mut self) -> Result<u32, Refusal> {
        self.0.try_get_u32().map_err(|_| Refusal::garbled())
    }

    pub(super) fn long(&mut self) -> Result<u64, Refusal> {
        self.0.try_get_u64().map_err(|_| Refusal::garbled())
    }

    /// Bytes with their length before them; they are not copied.
    pub(super) fn string(&mut self) -> Result<Bytes, Refusal> {
        let length = self.number()? as usize;
        if length > self.0.len() { Err(Refusal::garbled()) } else { Ok(self.0.split_to(length)) }
    }

    pub(super) fn attributes(&mut self) -> Result<Attributes, Refusal> {
        let flags = self.number()?;
        let mut found = Attributes::default();
        if flags & has::SIZE != 0 {
            found.size = Some(self.long()?);
        }
        if flags & has::OWNER != 0 {
            found.owner = Some((self.number()?, self.number()?));
        }
        if flags & has::PERMISSIONS != 0 {
            found.permissions = Some(self.number()?);
        }
        if flags & has::TIMES != 0 {
            found.times = Some((self.number()?, self.number()?));
        }
        if flags & has::EXTENDED != 0 {
            for _ in 0..self.number()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(found)
    }
}

/// The path that a name on the wire means.
pub(super) fn path(name: &Bytes) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// A packet for the client that is being written. Its length is filled in at the end.
struct Answer(BytesMut);

impl Answer {
    fn new(kind: u8, id: u32, room: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(room + 16);
        bytes.put_u32(0);
        bytes.put_u8(kind);
        bytes.put_u32(id);
        Self(bytes)
    }

    fn string(&mut self, bytes: &[u8]) {
        self.0.put_u32(bytes.len() as u32);
        self.0.put_slice(bytes);
    }

    fn attributes(&mut self, found: &Attributes) {
        let flag = |there: bool, bit: u32| if there { bit } else { 0 };
        let (owner, times) = (found.owner, found.times);
        let flags = flag(found.size.is_some(), has::SIZE)
            | flag(owner.is_some(), has::OWNER)
            | flag(found.permissions.is_some(), has::PERMISSIONS)
            | flag(times.is_some(), has::TIMES);
        self.0.put_u32(flags);
        if let Some(size) = found.size {
            self.0.put_u64(size);
        }
        let numbers = [owner.map(|one| one.0), owner.map(|one| one.1), found.permissions]
            .into_iter()
            .chain([times.map(|one| one.0), times.map(|one| one.1)]);
        numbers.flatten().for_each(|number| self.0.put_u32(number));
    }

    fn done(mut self) -> Bytes {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0.freeze()
    }
}

/// Tells the version and the extensions, each with the version of its own.
pub(super) fn version(extensions: &[(&str, &str)]) -> Bytes {
    let mut answer = Answer::new(VERSION, SPOKEN, 256);
    for (name, form) in extensions {
        answer.string(name.as_bytes());
        answer.string(form.as_bytes());
    }
    answer.done()
}

pub(super) fn status(id: u32, code: Code, text: &str) -> Bytes {
    let mut answer = Answer::new(STATUS, id, text.len());
    answer.0.put_u32(code as u32);
    answer.string(text.as_bytes());
    answer.string(b"en");
    answer.done()
}

pub(super) fn handle(id: u32, name: &str) -> Bytes {
    let mut answer = Answer::new(HANDLE, id, name.len());
    answer.string(name.as_bytes());
    answer.done()
}

pub(super) fn data(id: u32, bytes: &[u8]) -> Bytes {
    let mut answer = Answer::new(DATA, id, bytes.len());
    answer.string(bytes);
    answer.done()
}

pub(super) fn attributes(id: u32, found: &Attributes) -> Bytes {
    let mut answer = Answer::new(ATTRS, id, 64);
    answer.attributes(found);
    answer.done()
}

/// A file as a list of names has it.
pub(super) struct Named {
    pub(super) name: Vec<u8>,
    /// The same as people read it, one line.
    pub(super) line: Vec<u8>,
    pub(super) attributes: Attributes,
}

pub(super) fn names(id: u32, files: &[Named]) -> Bytes {
    let room = files.iter().map(|file| file.name.len() + file.line.len() + 64).sum();
    let mut answer = Answer::new(NAME, id, room);
    answer.0.put_u32(files.len() as u32);
    for file in files {
        answer.string(&file.name);
        answer.string(&file.line);
        answer.attributes(&file.attributes);
    }
    answer.done()
}

pub(super) fn extended(id: u32, bytes: &[u8]) -> Bytes {
    let mut answer = Answer::new(EXTENDED_REPLY, id, bytes.len());
    answer.0.put_slice(bytes);
    answer.done()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FULL: Attributes =
        Attributes { size: Some(5), owner: Some((1, 2)), permissions: Some(0o100_644), times: Some((3, 4)) };

    #[test]
    fn attributes_are_read_as_they_are_written_and_cut_short_nowhere() {
        for wanted in [FULL, Attributes::default(), Attributes { owner: None, ..FULL }] {
            let written = attributes(7, &wanted).slice(9..);
            assert_eq!(Fields(written.clone()).attributes().unwrap(), wanted);
            for length in 0..written.len() {
                assert_eq!(Fields(written.slice(..length)).attributes(), Err(Refusal::garbled()));
            }
        }
    }

    #[test]
    fn attributes_of_others_making_are_passed_over() {
        let mut bytes = BytesMut::new();
        bytes.put_u32(has::EXTENDED | has::PERMISSIONS);
        bytes.put_u32(0o600);
        bytes.put_u32(1);
        for text in ["acl@example.com", "\u{0}"] {
            bytes.put_u32(text.len() as u32);
            bytes.put_slice(text.as_bytes());
        }
        bytes.put_u32(99);
        let mut fields = Fields(bytes.freeze());
        assert_eq!(
            fields.attributes().unwrap(),
            Attributes { permissions: Some(0o600), ..Default::default() }
        );
        assert_eq!(fields.number(), Ok(99));
        let endless = Bytes::from_static(b"\x80\0\0\0\xff\xff\xff\xff");
        assert_eq!(Fields(endless).attributes(), Err(Refusal::garbled()));
    }

    #[test]
    fn a_string_that_claims_more_than_there_is_is_refused() {
        assert_eq!(Fields(Bytes::from_static(b"\0\0\0\x05abcd")).string(), Err(Refusal::garbled()));
        assert_eq!(Fields(Bytes::from_static(b"\xff\xff\xff\xffabcd")).string(), Err(Refusal::garbled()));
        assert_eq!(Fields(Bytes::from_static(b"\0\0\0\x01\xff")).string().unwrap()[..], [0xff]);
    }

    #[test]
    fn packets_are_those_of_the_draft() {
        assert_eq!(&version(&[("a", "1")])[..], b"\0\0\0\x0f\x02\0\0\0\x03\0\0\0\x01a\0\0\0\x011");
        assert_eq!(
            &status(9, Code::Eof, "x")[..],
            b"\0\0\0\x14\x65\0\0\0\x09\0\0\0\x01\0\0\0\x01x\0\0\0\x02en"
        );
        let one = Named { name: vec![0xff], line: vec![b'-', 0xff], attributes: Attributes::default() };
        let wanted = b"\0\0\0\x18\x68\0\0\0\x01\0\0\0\x01\0\0\0\x01\xff\0\0\0\x02-\xff\0\0\0\0";
        assert_eq!(&names(1, &[one])[..], wanted);
        assert_eq!(&data(1, b"ab")[..], b"\0\0\0\x0b\x67\0\0\0\x01\0\0\0\x02ab");
    }
}
