//! What a session may do and what it finds.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The client's environment variable that says what kind of client it is.
const KIND: &str = "CODER_SSH_SESSION_TYPE";
/// Commands that move files; with [`Policy::block_file_transfer`] they are refused.
const TRANSFER: [&str; 4] = ["nc", "rsync", "scp", "sftp"];

/// What the caller decides about sessions. Read when a session's process starts.
#[derive(Clone, Default)]
pub struct Policy {
    /// The user's login shell.
    pub shell: PathBuf,
    /// The user's home directory, where file transfers start.
    pub home: PathBuf,
    /// Where a process starts.
    pub directory: PathBuf,
    /// Environment that the client may override …
    pub defaults: Vec<(OsString, OsString)>,
    /// … and that it may not.
    pub overrides: Vec<(OsString, OsString)>,
    /// Shown before a login shell, each followed by an empty line.
    pub banners: Vec<String>,
    /// Shown before a login shell, after the banners.
    pub motd: Option<PathBuf>,
    /// How many files a process may have open unless it asks for more, where that is not what this program may.
    pub open_files: Option<u64>,
    /// Refuse SFTP and the commands that move files.
    pub block_file_transfer: bool,
}

impl std::fmt::Debug for Policy {
    /// The environment may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("shell", &self.shell)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// What kind of client a session belongs to, as it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A terminal or a script.
    #[default]
    Ssh,
    /// VS Code.
    VsCode,
    /// JetBrains Gateway.
    JetBrains,
}

impl Kind {
    /// Reads the client's word for it; unknown words mean a terminal.
    fn parse(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "vscode" => Self::VsCode,
            "jetbrains" => Self::JetBrains,
            _ => Self::Ssh,
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::VsCode => "vscode",
            Self::JetBrains => "jetbrains",
        }
    }
}

/// What a client's variables say: what kind it is, and those that the process gets.
pub(crate) fn sort_out(variables: Vec<(String, String)>) -> (Kind, Vec<(String, String)>) {
    let kind = variables.iter().rfind(|(name, _)| name == KIND).map(|(_, word)| Kind::parse(word));
    (kind.unwrap_or_default(), variables.into_iter().filter(|(name, _)| name != KIND).collect())
}

impl Policy {
    /// A process's environment: the defaults, the client's own, what belongs to this session, what nobody changes.
    pub(crate) fn environment(
        &self,
        client: &[(String, String)],
        session: &[(&str, OsString)],
    ) -> Vec<(OsString, OsString)> {
        let client = client.iter().map(|(name, value)| (name.into(), value.into()));
        let session = session.iter().map(|(name, value)| (OsString::from(name), value.clone()));
        self.defaults
            .iter()
            .cloned()
            .chain(client)
            .chain(session)
            .chain(self.overrides.iter().cloned())
            .collect()
    }

    /// How a command is run: its program and arguments. A command that begins with `#!` names its interpreter.
    pub(crate) fn command_line(&self, command: Option<&str>) -> Vec<OsString> {
        let shell = self.shell.clone().into_os_string();
        match command {
            None => vec![shell, "-l".into()],
            Some(command) => match interpreter(command) {
                Some(mut words) => {
                    words.push("-c".into());
                    words.push(command.into());
                    words
                }
                None => vec![shell, "-c".into(), command.into()],
            },
        }
    }

    /// Whether a command is one that moves files and these are forbidden.
    pub(crate) fn forbids(&self, command: &str) -> bool {
        let program = command.split_whitespace().next().map(Path::new).and_then(Path::file_name);
        self.block_file_transfer
            && program.is_some_and(|name| TRANSFER.iter().any(|word| name == OsStr::new(word)))
    }
}

/// The words after `#!` in a command's first line.
fn interpreter(command: &str) -> Option<Vec<OsString>> {
    let line = command.strip_prefix("#!")?.lines().next()?;
    let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn the_kind_is_taken_out_of_the_environment() {
        let (kind, rest) = sort_out(pairs(&[("LANG", "C"), (KIND, "vscode")]));
        assert_eq!((kind, rest), (Kind::VsCode, pairs(&[("LANG", "C")])));
        assert_eq!(sort_out(pairs(&[(KIND, "toaster")])).0, Kind::Ssh);
    }

    #[test]
    fn later_sources_of_the_environment_win() {
        let policy = Policy {
            defaults: vec![("A".into(), "default".into()), ("B".into(), "default".into())],
            overrides: vec![("C".into(), "fixed".into())],
            ..Policy::default()
        };
        let made =
            policy.environment(&pairs(&[("B", "client"), ("C", "client")]), &[("TERM", "xterm".into())]);
        let last = |name: &str| made.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.clone());
        assert_eq!(last("A"), Some("default".into()));
        assert_eq!(last("B"), Some("client".into()));
        assert_eq!(last("C"), Some("fixed".into()));
        assert_eq!(last("TERM"), Some("xterm".into()));
    }

    #[test]
    fn commands_run_in_the_shell_or_under_their_interpreter() {
        let policy = Policy { shell: "/bin/zsh".into(), ..Policy::default() };
        assert_eq!(policy.command_line(None), ["/bin/zsh", "-l"]);
        assert_eq!(policy.command_line(Some("ls -l")), ["/bin/zsh", "-c", "ls -l"]);
        let script = "#!/usr/bin/env python3\nprint(1)";
        assert_eq!(policy.command_line(Some(script)), ["/usr/bin/env", "python3", "-c", script]);
        assert_eq!(policy.command_line(Some("#!\nls")), ["/bin/zsh", "-c", "#!\nls"]);
    }

    #[test]
    fn file_transfer_is_forbidden_by_its_commands() {
        let policy = Policy { block_file_transfer: true, ..Policy::default() };
        assert!(policy.forbids("scp -t /tmp") && policy.forbids("/usr/bin/rsync --server"));
        assert!(!policy.forbids("scpx") && !policy.forbids("") && !policy.forbids("echo scp"));
        assert!(!Policy::default().forbids("scp"));
    }
}
