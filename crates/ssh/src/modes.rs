//! A terminal's modes, as the client's own terminal has them (RFC 4254 section 8).

use std::io;
use std::os::fd::AsFd;

use russh::Pty;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr,
    tcsetattr,
};

/// The value that switches a special character off (RFC 4254 section 8).
const DISABLED: u32 = 255;

/// Sets a new terminal's modes; those it does not know are left alone.
pub(crate) fn apply(terminal: impl AsFd, modes: &[(Pty, u32)]) -> io::Result<()> {
    if modes.is_empty() {
        return Ok(());
    }
    let terminal = terminal.as_fd();
    let mut termios = tcgetattr(terminal)?;
    for (mode, value) in modes {
        set(&mut termios, *mode, *value);
    }
    tcsetattr(terminal, OptionalActions::Now, &termios)?;
    Ok(())
}

fn set(termios: &mut Termios, mode: Pty, value: u32) {
    if let Some(index) = special(mode) {
        termios.special_codes[index] = if value == DISABLED { 0 } else { u8::try_from(value).unwrap_or(0) };
    } else if let Some(flag) = input(mode) {
        termios.input_modes.set(flag, value != 0);
    } else if let Some(flag) = local(mode) {
        termios.local_modes.set(flag, value != 0);
    } else if let Some(flag) = output(mode) {
        termios.output_modes.set(flag, value != 0);
    } else {
        let flag = match mode {
            Pty::PARENB => ControlModes::PARENB,
            Pty::PARODD => ControlModes::PARODD,
            _ => return,
        };
        termios.control_modes.set(flag, value != 0);
    }
}

fn special(mode: Pty) -> Option<SpecialCodeIndex> {
    Some(match mode {
        Pty::VINTR => SpecialCodeIndex::VINTR,
        Pty::VQUIT => SpecialCodeIndex::VQUIT,
        Pty::VERASE => SpecialCodeIndex::VERASE,
        Pty::VKILL => SpecialCodeIndex::VKILL,
        Pty::VEOF => SpecialCodeIndex::VEOF,
        Pty::VEOL => SpecialCodeIndex::VEOL,
        Pty::VEOL2 => SpecialCodeIndex::VEOL2,
        Pty::VSTART => SpecialCodeIndex::VSTART,
        Pty::VSTOP => SpecialCodeIndex::VSTOP,
        Pty::VSUSP => SpecialCodeIndex::VSUSP,
        Pty::VREPRINT => SpecialCodeIndex::VREPRINT,
        Pty::VWERASE => SpecialCodeIndex::VWERASE,
        Pty::VLNEXT => SpecialCodeIndex::VLNEXT,
        Pty::VDISCARD => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input(mode: Pty) -> Option<InputModes> {
    Some(match mode {
        Pty::IGNPAR => InputModes::IGNPAR,
        Pty::PARMRK => InputModes::PARMRK,
        Pty::INPCK => InputModes::INPCK,
        Pty::ISTRIP => InputModes::ISTRIP,
        Pty::INLCR => InputModes::INLCR,
        Pty::IGNCR => InputModes::IGNCR,
        Pty::ICRNL => InputModes::ICRNL,
        Pty::IXON => InputModes::IXON,
        Pty::IXANY => InputModes::IXANY,
        Pty::IXOFF => InputModes::IXOFF,
        Pty::IMAXBEL => InputModes::IMAXBEL,
        Pty::IUTF8 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local(mode: Pty) -> Option<LocalModes> {
    Some(match mode {
        Pty::ISIG => LocalModes::ISIG,
        Pty::ICANON => LocalModes::ICANON,
        Pty::ECHO => LocalModes::ECHO,
        Pty::ECHOE => LocalModes::ECHOE,
        Pty::ECHOK => LocalModes::ECHOK,
        Pty::ECHONL => LocalModes::ECHONL,
        Pty::NOFLSH => LocalModes::NOFLSH,
        Pty::TOSTOP => LocalModes::TOSTOP,
        Pty::IEXTEN => LocalModes::IEXTEN,
        Pty::ECHOCTL => LocalModes::ECHOCTL,
        Pty::ECHOKE => LocalModes::ECHOKE,
        _ => return None,
    })
}

fn output(mode: Pty) -> Option<OutputModes> {
    Some(match mode {
        Pty::OPOST => OutputModes::OPOST,
        Pty::ONLCR => OutputModes::ONLCR,
        Pty::OCRNL => OutputModes::OCRNL,
        Pty::ONOCR => OutputModes::ONOCR,
        Pty::ONLRET => OutputModes::ONLRET,
        _ => return None,
    })
}
