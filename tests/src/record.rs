//! SecVisor's log as read back from its serial port.

use std::ops::Range;

/// Start of every line of SecVisor's log.
pub const PREFIX: &str = "secvisor: ";

/// One violation line, by its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its kind's name, such as `kernel-fetch`.
    pub kind: String,
    /// The guest-physical address; `None` where the kind has none.
    pub gpa: Option<u64>,
    /// Where the offender stood.
    pub rip: u64,
    /// Privilege level of the offender.
    pub cpl: u8,
    /// Name of the frame's class.
    pub class: String,
    /// Violations so far, this one included.
    pub count: u64,
    /// The kind's own number: MSR, port, exit code.
    pub info: u64,
    /// The whole line.
    pub line: String,
}

/// A number as logs write it: decimal, or hexadecimal after `0x`.
pub fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The ranges that lines name behind `what`, such as `secvisor: hidden 0x1000-0x2000`.
pub fn ranges<'a>(text: &'a str, what: &'a str) -> impl Iterator<Item = Range<u64>> + 'a {
    text.lines().filter_map(move |line| {
        let range = line.trim().strip_prefix(what)?.strip_prefix(' ')?;
        let (start, end) = range.split_once('-')?;
        Some(number(start)?..number(end)?)
    })
}

/// The value of `name=value` in a line of such words.
pub fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

impl Record {
    /// Reads one line; `None` if it is no violation.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        line.strip_prefix(PREFIX)?.strip_prefix("violation ")?;
        Some(Self {
            kind: field(line, "kind")?.to_owned(),
            gpa: number(field(line, "gpa")?),
            rip: number(field(line, "rip")?)?,
            cpl: field(line, "cpl")?.parse().ok()?,
            class: field(line, "class")?.to_owned(),
            count: number(field(line, "count")?)?,
            info: number(field(line, "info")?)?,
            line: line.to_owned(),
        })
    }

    /// Every violation of a log.
    pub fn all(log: &str) -> Vec<Self> {
        log.lines().filter_map(Self::parse).collect()
    }
}

/// The text of SecVisor's refusal to launch, if its log holds one.
pub fn refusal(log: &str) -> Option<&str> {
    log.lines().find_map(|line| line.trim().strip_prefix("secvisor: refused: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_line_is_read_back() {
        let line = "secvisor: violation kind=kernel-fetch cpu=0 gpa=0x7ff000 rip=0x7ff004 \
                    cr3=0x1000 cpl=0 class=data unit=kernel/.text count=7 info=0x11";
        let record = Record::parse(line).expect("a record");
        assert_eq!(
            (record.kind.as_str(), record.gpa, record.rip, record.cpl, record.count, record.info),
            ("kernel-fetch", Some(0x7f_f000), 0x7f_f004, 0, 7, 0x11)
        );
        assert_eq!(Record::parse("secvisor: launching"), None);
        assert_eq!(
            Record::parse(&line.replace("0x7ff000 rip", "- rip")).map(|r| r.gpa),
            Some(None)
        );
    }

    #[test]
    fn a_refusal_is_found() {
        assert_eq!(refusal("a\r\nsecvisor: refused: no SVM\r\n"), Some("no SVM"));
        assert_eq!(refusal("secvisor: launching"), None);
    }
}
