//! The words that change a link, on the command line as on standard input.
//!
//!     [ab|ba] rate 100m | delay 15ms | jitter 1ms | loss 0.01 | burst 4 | reorder 0.001 | hold 3ms | limit 1000000
//!     [ab|ba] largest 1280 | down | up
//!     stats
//!
//! `ab` is from the first end to the second; without it a word holds for both directions.

use std::time::Duration;

use crate::lane::Settings;

/// A line of input, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Write the counters.
    Stats,
    /// Change one setting of some directions.
    Change(Ways, Change),
}

/// Which directions are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// Both.
    Both,
    /// From the first end to the second.
    Forth,
    /// From the second end to the first.
    Back,
}

/// One setting's new value.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "the words are those of `Settings`")]
pub enum Change {
    Rate(Option<u64>),
    Delay(Duration),
    Jitter(Duration),
    Reorder(f64),
    Hold(Duration),
    Loss(f64),
    Burst(f64),
    Limit(usize),
    Largest(usize),
    Up(bool),
}

impl Change {
    /// Makes the change.
    pub fn apply(self, settings: &mut Settings) {
        match self {
            Self::Rate(rate) => settings.rate = rate,
            Self::Delay(delay) => settings.delay = delay,
            Self::Jitter(jitter) => settings.jitter = jitter,
            Self::Reorder(share) => settings.reorder = share,
            Self::Hold(hold) => settings.hold = hold,
            Self::Loss(share) => settings.loss = share,
            Self::Burst(burst) => settings.burst = burst,
            Self::Limit(limit) => settings.limit = limit,
            Self::Largest(largest) => settings.largest = largest,
            Self::Up(up) => settings.up = up,
        }
    }
}

/// Understands one line; the error names the word that was not.
pub fn parse(line: &str) -> Result<Command, String> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let ways = match words.first() {
        Some(&"ab") => Ways::Forth,
        Some(&"ba") => Ways::Back,
        _ => Ways::Both,
    };
    if ways != Ways::Both {
        words.remove(0);
    }
    let change = match words.as_slice() {
        ["stats"] if ways == Ways::Both => return Ok(Command::Stats),
        ["up"] => Change::Up(true),
        ["down"] => Change::Up(false),
        [name, value] => setting(name, value).ok_or_else(|| format!("{name} {value}: not understood"))?,
        _ => return Err(format!("{line:?}: not understood")),
    };
    Ok(Command::Change(ways, change))
}

fn setting(name: &str, value: &str) -> Option<Change> {
    Some(match name {
        "rate" => Change::Rate(rate(value)?),
        "delay" => Change::Delay(duration(value)?),
        "jitter" => Change::Jitter(duration(value)?),
        "reorder" => Change::Reorder(share(value)?),
        "hold" => Change::Hold(duration(value)?),
        "loss" => Change::Loss(share(value)?),
        "burst" => Change::Burst(value.parse().ok().filter(|burst| *burst >= 1.0)?),
        "limit" => Change::Limit(value.parse().ok()?),
        "largest" => Change::Largest(value.parse().ok()?),
        _ => return None,
    })
}

/// `none`, or bits per second, with k, m or g for thousands.
fn rate(text: &str) -> Option<Option<u64>> {
    if text == "none" {
        return Some(None);
    }
    let (number, unit) = match text.strip_suffix(['k', 'm', 'g']) {
        Some(number) => (number, text.chars().last()?),
        None => (text, ' '),
    };
    let factor = match unit {
        'k' => 1e3,
        'm' => 1e6,
        'g' => 1e9,
        _ => 1.0,
    };
    let rate = number.parse::<f64>().ok()? * factor;
    (1.0..=1e12).contains(&rate).then_some(Some(rate as u64))
}

/// A number and `s`, `ms` or `us`.
fn duration(text: &str) -> Option<Duration> {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 1e-6)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else {
        (text.strip_suffix('s')?, 1.0)
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()
}

fn share(text: &str) -> Option<f64> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(line: &str) -> Option<(Ways, Change)> {
        match parse(line) {
            Ok(Command::Change(ways, change)) => Some((ways, change)),
            Ok(Command::Stats) | Err(_) => None,
        }
    }

    #[test]
    fn words_are_understood() {
        let ms = Duration::from_millis;
        for (line, expected) in [
            ("rate 1g", (Ways::Both, Change::Rate(Some(1_000_000_000)))),
            ("rate 2.5m", (Ways::Both, Change::Rate(Some(2_500_000)))),
            ("rate none", (Ways::Both, Change::Rate(None))),
            ("ab delay 15ms", (Ways::Forth, Change::Delay(ms(15)))),
            ("ba jitter 2000us", (Ways::Back, Change::Jitter(ms(2)))),
            ("hold 1s", (Ways::Both, Change::Hold(ms(1000)))),
            ("loss 0.01", (Ways::Both, Change::Loss(0.01))),
            ("burst 4", (Ways::Both, Change::Burst(4.0))),
            ("reorder 0.5", (Ways::Both, Change::Reorder(0.5))),
            ("limit 3000", (Ways::Both, Change::Limit(3000))),
            ("largest 1280", (Ways::Both, Change::Largest(1280))),
            ("ab down", (Ways::Forth, Change::Up(false))),
            ("up", (Ways::Both, Change::Up(true))),
        ] {
            assert_eq!(change(line), Some(expected), "{line}");
        }
        assert_eq!(parse(" stats "), Ok(Command::Stats));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in
            ["", "ab", "loss", "loss 2", "loss -1", "rate 0", "rate fast", "delay 5", "burst 0", "ab stats"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_change_changes_its_setting_alone() {
        let mut settings = Settings::default();
        Change::Loss(0.25).apply(&mut settings);
        assert_eq!(settings, Settings { loss: 0.25, ..Settings::default() });
    }
}
