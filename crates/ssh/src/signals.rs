//! Names of signals (RFC 4254 section 6.10).

use russh::Sig;
use rustix::process::Signal;

/// The signals that have a name in the protocol, and two more that others pass on.
const NAMES: [(Signal, &str); 14] = [
    (Signal::ABORT, "ABRT"),
    (Signal::ALARM, "ALRM"),
    (Signal::FPE, "FPE"),
    (Signal::HUP, "HUP"),
    (Signal::ILL, "ILL"),
    (Signal::INT, "INT"),
    (Signal::KILL, "KILL"),
    (Signal::PIPE, "PIPE"),
    (Signal::QUIT, "QUIT"),
    (Signal::SEGV, "SEGV"),
    (Signal::TERM, "TERM"),
    (Signal::USR1, "USR1"),
    (Signal::USR2, "USR2"),
    (Signal::BUS, "BUS@openssh.com"),
];

/// What the protocol calls the signal that ended a process; none for those without a name.
pub(crate) fn named(number: i32) -> Option<Sig> {
    let (_, name) = NAMES.iter().find(|(signal, _)| signal.as_raw() == number)?;
    Some(Sig::Custom((*name).to_owned()))
}

/// The signal a client asks for, if it is one.
pub(crate) fn meant(signal: &Sig) -> Option<Signal> {
    let word = word(signal);
    NAMES.iter().find(|(_, name)| *name == word).map(|(signal, _)| *signal)
}

/// The name as it stands in the message.
pub(crate) fn word(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_its_signal_and_back() {
        for (signal, name) in NAMES {
            let told = named(signal.as_raw());
            assert_eq!(told.as_ref().map(word), Some(name.to_owned()));
            assert_eq!(told.as_ref().and_then(meant), Some(signal));
        }
        assert_eq!(meant(&Sig::TERM), Some(Signal::TERM));
        assert_eq!(
            (meant(&Sig::Custom("NOPE".into())), named(Signal::WINCH.as_raw()).map(|_| ())),
            (None, None)
        );
    }
}
