//! The user's GnuPG agent, for programs in the workspace.

use std::path::PathBuf;

use russh::client::{Handle, Handler};
use russh::{ChannelMsg, Error};

/// Answers where programs there look for their agent, after the agent that may serve that place was told to go.
const PLACE: &str = "gpgconf --list-dirs agent-socket && gpgconf --kill gpg-agent";
const IMPORT: &str = "gpg --batch --quiet --import";
const TRUST: &str = "gpg --batch --quiet --import-ownertrust";
/// A path is not longer.
const LONGEST_PATH: usize = 4096;

/// What the workspace gets of the user's keys: no secret ones.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Gpg {
    /// The agent's socket for others, of which `gpgconf` knows as `agent-extra-socket`.
    pub socket: PathBuf,
    /// The public keys, exported.
    pub keys: Vec<u8>,
    /// The trust in them, exported.
    pub trust: Vec<u8>,
}

impl std::fmt::Debug for Gpg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpg").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Makes the keys known there, and the place of the agent lead here; answers what went wrong.
pub(crate) async fn lend<H: Handler>(
    handle: &mut Handle<H>,
    variables: &[(String, String)],
    gpg: &Gpg,
) -> Result<Option<&'static str>, Error> {
    for (command, input) in [(IMPORT, &gpg.keys), (TRUST, &gpg.trust)] {
        if !input.is_empty() && run(handle, variables, command, input).await?.is_none() {
            return Ok(Some("the workspace's gpg does not take your public keys"));
        }
    }
    let found = run(handle, variables, PLACE, &[]).await?.and_then(|answer| String::from_utf8(answer).ok());
    let Some(path) = found.as_deref().map(str::trim).filter(|path| path.starts_with('/')) else {
        return Ok(Some("the workspace has no gpg"));
    };
    match handle.streamlocal_forward(path).await {
        Ok(()) => Ok(None),
        Err(_) => Ok(Some("the workspace does not let its gpg socket lead here")),
    }
}

/// Runs a command there; its output, if it ended well.
async fn run<H: Handler>(
    handle: &Handle<H>,
    variables: &[(String, String)],
    command: &str,
    input: &[u8],
) -> Result<Option<Vec<u8>>, Error> {
    let mut channel = handle.channel_open_session().await?;
    for (name, value) in variables {
        channel.set_env(false, name.as_str(), value.as_str()).await?;
    }
    channel.exec(false, command).await?;
    channel.data_bytes(input.to_vec()).await?;
    channel.eof().await?;
    let (mut output, mut status) = (Vec::new(), None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } if output.len() < LONGEST_PATH => output.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    Ok((status == Some(0)).then_some(output))
}
