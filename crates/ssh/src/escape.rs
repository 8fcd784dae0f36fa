//! The keys that are for the client and not for the other side: a tilde at the start of a line, as in OpenSSH.

/// What was typed, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// For the other side.
    Data(Vec<u8>),
    /// End the connection (`~.`).
    Disconnect,
    /// Say which keys there are (`~?`).
    Help,
}

/// Remembers where in a line the typist is.
#[derive(Debug)]
pub(crate) struct Escapes {
    line_start: bool,
    tilde: bool,
}

impl Default for Escapes {
    fn default() -> Self {
        Self { line_start: true, tilde: false }
    }
}

impl Escapes {
    /// Sorts what was typed.
    pub(crate) fn sort(&mut self, typed: &[u8]) -> Vec<Typed> {
        let (mut sorted, mut data) = (Vec::new(), Vec::new());
        for &byte in typed {
            if std::mem::take(&mut self.tilde) {
                match byte {
                    b'.' => {
                        push(&mut sorted, &mut data);
                        sorted.push(Typed::Disconnect);
                        return sorted;
                    }
                    b'?' => {
                        push(&mut sorted, &mut data);
                        sorted.push(Typed::Help);
                        self.line_start = true;
                        continue;
                    }
                    b'~' => {}
                    _ => data.push(b'~'),
                }
            } else if byte == b'~' && self.line_start {
                self.tilde = true;
                continue;
            }
            data.push(byte);
            self.line_start = matches!(byte, b'\r' | b'\n');
        }
        push(&mut sorted, &mut data);
        sorted
    }
}

fn push(sorted: &mut Vec<Typed>, data: &mut Vec<u8>) {
    if !data.is_empty() {
        sorted.push(Typed::Data(std::mem::take(data)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(pieces: &[&str]) -> Vec<Typed> {
        let mut escapes = Escapes::default();
        pieces.iter().flat_map(|piece| escapes.sort(piece.as_bytes())).collect()
    }

    fn data(text: &str) -> Typed {
        Typed::Data(text.as_bytes().to_vec())
    }

    #[test]
    fn a_tilde_and_a_dot_at_the_start_of_a_line_end_the_connection() {
        assert_eq!(sorted(&["ls\r~."]), [data("ls\r"), Typed::Disconnect]);
        assert_eq!(sorted(&["~", "."]), [Typed::Disconnect]);
        assert_eq!(sorted(&["ls\r", "~", ".", "x"])[1], Typed::Disconnect);
    }

    #[test]
    fn elsewhere_a_tilde_is_a_tilde() {
        assert_eq!(sorted(&["cd ~.\r"]), [data("cd ~.\r")]);
        assert_eq!(sorted(&["~~.\r"]), [data("~.\r")]);
        assert_eq!(sorted(&["~/bin\r"]), [data("~/bin\r")]);
    }

    #[test]
    fn help_leaves_the_line_as_it_was() {
        assert_eq!(sorted(&["~?~."]), [Typed::Help, Typed::Disconnect]);
    }
}
