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
    /// `views=auto|two|gmet`, and `entry-guard=events|npf` for two views.
    views: Option<EntryGuard>,
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
                Some(("views", value)) => {
                    options.views = match (value, options.views) {
                        ("auto", _) => None,
                        ("gmet", _) => Some(EntryGuard::Gmet),
                        ("two", Some(EntryGuard::Npf)) => options.views,
                        ("two", _) => Some(EntryGuard::Events),
                        _ => return Err(bad("auto, two, gmet")),
                    }
                }
                Some(("entry-guard", value)) => {
                    options.views = match value {
                        "events" => Some(EntryGuard::Events),
                        "npf" => Some(EntryGuard::Npf),
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

    /// What keeps kernel entries inside approved code, on a processor with or without GMET.
    ///
    /// # Errors
    /// GMET was asked for and is not there.
    pub fn guard(&self, gmet: bool) -> Result<EntryGuard, BootError<'static>> {
        match (self.views, gmet) {
            (Some(EntryGuard::Gmet), false) => Err(BootError::NoGmet),
            (None, true) => Ok(EntryGuard::Gmet),
            (views, _) => Ok(views.unwrap_or(EntryGuard::Events)),
        }
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
        assert_eq!(options.guard(false), Ok(EntryGuard::Events));
        assert_eq!(options.guard(true), Ok(EntryGuard::Gmet));
        assert_eq!(options.violation, Action::Inject);
        assert_eq!(options.log, LogPort::Com2);
    }

    #[test]
    fn options_in_any_order_and_the_last_counts() {
        let options = Options::parse("log=com1 violation=halt  entry-guard=npf violation=audit");
        let expected =
            Options { views: Some(EntryGuard::Npf), violation: Action::Audit, log: LogPort::Com1 };
        assert_eq!(options, Ok(expected));
    }

    #[test]
    fn gmet_is_taken_where_it_is_unless_two_views_are_asked_for() {
        use EntryGuard::*;
        let cases = [
            ("views=auto", Ok(Events), Gmet),
            ("views=two", Ok(Events), Events),
            ("views=gmet", Err(BootError::NoGmet), Gmet),
            ("entry-guard=events", Ok(Events), Events),
            ("entry-guard=npf", Ok(Npf), Npf),
            ("entry-guard=npf views=two", Ok(Npf), Npf),
            ("views=two entry-guard=npf", Ok(Npf), Npf),
            ("views=gmet entry-guard=npf", Ok(Npf), Npf),
            ("entry-guard=npf views=gmet", Err(BootError::NoGmet), Gmet),
            ("entry-guard=npf views=auto", Ok(Events), Gmet),
        ];
        for (line, without, with) in cases {
            let options = Options::parse(line).unwrap();
            assert_eq!((options.guard(false), options.guard(true)), (without, Ok(with)), "{line}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for word in ["entry_guard=npf", "npf", "log", "violation", "=", "Log=com1", "log =com1"] {
            let named = word.split(' ').next().unwrap();
            let line = format!("log=com2 {word} violation=halt");
            assert_eq!(Options::parse(&line), Err(BootError::UnknownOption(named)));
        }
        for word in [
            "entry-guard=",
            "views=",
            "views=one",
            "violation=Halt",
            "log=com3",
            "log=com1=",
            "log=com1\n",
        ] {
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
