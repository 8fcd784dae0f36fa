//! A file as people read it in a directory's list.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: i64 = 24 * 60 * 60;

/// The line of a file, as `ls -l` has it with numbers for users and the time in UTC.
pub(super) fn line(metadata: &Metadata, name: &[u8]) -> Vec<u8> {
    let (mode, links) = (mode(metadata.mode()), metadata.nlink());
    let (uid, gid, size, at) = (metadata.uid(), metadata.gid(), metadata.len(), date(metadata.mtime()));
    let mut line = format!("{mode} {links:>4} {uid:<8} {gid:<8} {size:>8} {at} ").into_bytes();
    line.extend_from_slice(name);
    line
}

fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, sign) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => sign,
            (true, false) => sign.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A time in seconds since 1970, in UTC.
fn date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let name = usize::try_from(month - 1).ok().and_then(|index| MONTHS.get(index)).unwrap_or(&"???");
    format!("{name} {day:>2} {year} {:02}:{:02}", rest / 3600, rest / 60 % 60)
}

/// Year, month and day of a day counted from the first of 1970, in the Gregorian calendar: its 400 years have 146097
/// days, and counted from March leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // since the first of March of the year 0
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "Jan  1 1970 00:00");
        assert_eq!(date(951_782_399), "Feb 28 2000 23:59");
        assert_eq!(date(951_782_400), "Feb 29 2000 00:00");
        assert_eq!(date(4_107_542_400), "Mar  1 2100 00:00");
        assert_eq!(date(-1), "Dec 31 1969 23:59");
    }

    #[test]
    fn modes_read_as_everywhere() {
        assert_eq!(mode(0o100_644), "-rw-r--r--");
        assert_eq!(mode(0o041_777), "drwxrwxrwt");
        assert_eq!(mode(0o104_654), "-rwSr-xr--");
        assert_eq!(mode(0o120_777), "lrwxrwxrwx");
    }
}
