//! SecVisor's own command line.

use policy::fault::EntryGuard;
use policy::violation::Action;

use crate::error::BootError;

/// Where SecVisor writes its log. The port is then denied to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogPort {
    /// Nowhere.
    None,
    /// The serial port at 3F8h.
    Com1,
    /// The serial port at 2F8h.
    #[default]
    Com2,
}

/// What the owner chose, by GRUB's `multiboot2` line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `entry-guard=events|npf`.
    pub entry_guard: EntryGuard,
    /// `violation=inject|halt|audit`.
    pub violation: Action,
    /// `log=com1|com2|none`.
    pub log: LogPort,
}

impl Options {
    /// Reads the words of `line`; of an option that is given twice, the last one counts.
    ///
    /// # Errors
    /// The first word that is no option or whose value is not one of its option's.
    pub fn parse(line: &str) -> Result<Self, BootError<'_>> {
        let mut options = Self::default();
        for word in line.split(' ').filter(|word| !word.is_empty()) {
            let bad = |allowed| BootError::OptionValue { option: word, allowed };
            match word.split_once('=') {
                Some(("entry-guard", value)) => {
                    options.entry_guard = match value {
                        "events" => EntryGuard::Events,
                        "npf" => EntryGuard::Npf,
                        _ => return Err(bad("events, npf")),
                    }
                }
                Some(("violation", value)) => {
                    options.violation = match value {
                        "inject" => Action::Inject,
                        "halt" => Action::Halt,
                        "audit" => Action::Audit,
                        _ => return Err(bad("inject, halt, audit")),
                    }
                }
                Some(("log", value)) => {
                    options.log = match value {
                        "com1" => LogPort::Com1,
                        "com2" => LogPort::Com2,
                        "none" => LogPort::None,
                        _ => return Err(bad("com1, com2, none")),
                    }
                }
                _ => return Err(BootError::UnknownOption(word)),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn defaults_are_the_strict_ones() {
        let options = Options::parse("  ").unwrap();
        assert_eq!(options, Options::default());
        assert_eq!(options.entry_guard, EntryGuard::Events);
        assert_eq!(options.violation, Action::Inject);
        assert_eq!(options.log, LogPort::Com2);
    }

    #[test]
    fn options_in_any_order_and_the_last_counts() {
        let options = Options::parse("log=com1 violation=halt  entry-guard=npf violation=audit");
        let expected =
            Options { entry_guard: EntryGuard::Npf, violation: Action::Audit, log: LogPort::Com1 };
        assert_eq!(options, Ok(expected));
    }

    #[test]
    fn mistakes_are_named() {
        for word in ["entry_guard=npf", "npf", "log", "violation", "=", "Log=com1", "log =com1"] {
            let named = word.split(' ').next().unwrap();
            let line = format!("log=com2 {word} violation=halt");
            assert_eq!(Options::parse(&line), Err(BootError::UnknownOption(named)));
        }
        for word in ["entry-guard=", "violation=Halt", "log=com3", "log=com1=", "log=com1\n"] {
            let error = Options::parse(word).unwrap_err();
            assert!(matches!(error, BootError::OptionValue { option, .. } if option == word));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_judged(line: String) {
            let _ = Options::parse(&line).map_err(|error| error.to_string());
        }
    }
}
