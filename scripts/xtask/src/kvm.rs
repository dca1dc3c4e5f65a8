//! Whether this host's KVM can run a machine with SVM inside, and what mends it where it cannot.

use std::io::ErrorKind;

use harness::Result;

/// The processor model that passes on all that KVM has, GMET too: without the last word QEMU leaves
/// out what it has no name for, and no released QEMU has one for GMET.
pub const CPU: &str = "host,migratable=off";
const DEVICE: &str = "/dev/kvm";
const NESTED: &str = "/sys/module/kvm_amd/parameters/nested";
const RELOAD: &str = "sudo modprobe -r kvm_amd && sudo modprobe kvm_amd nested=1";

/// What a host says of itself.
pub struct Host {
    /// `/proc/cpuinfo`.
    processors: String,
    /// The driver's parameter, if the driver is there.
    nested: Option<String>,
    /// What opening the device came to.
    device: std::result::Result<(), ErrorKind>,
}

impl Host {
    /// This one.
    pub fn this() -> Self {
        let device = std::fs::OpenOptions::new().read(true).write(true).open(DEVICE);
        Self {
            processors: std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default(),
            nested: std::fs::read_to_string(NESTED).ok(),
            device: device.map(drop).map_err(|error| error.kind()),
        }
    }

    fn has_word(&self, key: &str, words: &[&str]) -> bool {
        let of_key = |line: &&str| line.split(':').next().is_some_and(|it| it.trim() == key);
        let line = self.processors.lines().find(of_key).unwrap_or_default();
        line.split_whitespace().any(|word| words.contains(&word))
    }

    /// The first thing that is missing, and what to do about it.
    pub fn lacks(&self) -> Option<String> {
        if !self.has_word("vendor_id", &["AuthenticAMD", "HygonGenuine"]) {
            return Some("the processor is not AMD's, so no guest of it can have SVM".into());
        }
        if !self.has_word("flags", &["svm"]) {
            let mend = "switch on SVM (also named AMD-V) in the firmware's setup, or in a virtual \
                        machine, nested virtualization on its host";
            return Some(format!("the processor has SVM switched off: {mend}"));
        }
        match self.nested.as_deref().map(str::trim) {
            Some("1" | "Y") => (),
            Some(_) => return Some(format!("KVM gives its guests no SVM: {RELOAD}")),
            None => return Some("KVM is not loaded: sudo modprobe kvm_amd nested=1".into()),
        }
        match self.device {
            Ok(()) => None,
            Err(ErrorKind::PermissionDenied) => Some(format!(
                "this user may not use {DEVICE}: sudo usermod -aG kvm $USER, then log in again"
            )),
            Err(error) => Some(format!("{DEVICE} cannot be opened ({error}): {RELOAD}")),
        }
    }
}

/// Nothing, or that KVM was `wanted` and cannot be had.
pub fn insist(wanted: bool) -> Result<()> {
    match Host::this().lacks() {
        Some(lacks) if wanted => {
            Err(format!("--kvm: {lacks}; without --kvm the machine is emulated").into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(
        vendor: &str,
        flags: &str,
        nested: Option<&str>,
        device: std::result::Result<(), ErrorKind>,
    ) -> Host {
        let processors =
            format!("vendor_id\t: {vendor}\nmodel\t: 49\nflags\t\t: fpu {flags} sse\n");
        Host { processors, nested: nested.map(str::to_owned), device }
    }

    #[test]
    fn what_is_missing_is_told_with_its_remedy() {
        let amd = "AuthenticAMD";
        assert_eq!(host(amd, "svm npt", Some("1\n"), Ok(())).lacks(), None);
        assert_eq!(host(amd, "svm", Some("Y\n"), Ok(())).lacks(), None);
        let denied = Err(ErrorKind::PermissionDenied);
        for (host, told) in [
            (host("GenuineIntel", "vmx", None, Ok(())), "not AMD's"),
            (host("", "", None, Ok(())), "not AMD's"),
            (host(amd, "npt", Some("1"), Ok(())), "firmware's setup"),
            (host(amd, "svm_lock", Some("1"), Ok(())), "firmware's setup"),
            (host(amd, "svm", None, Ok(())), "modprobe kvm_amd nested=1"),
            (host(amd, "svm", Some("0\n"), Ok(())), "modprobe -r kvm_amd"),
            (host(amd, "svm", Some("1\n"), denied), "usermod -aG kvm"),
            (host(amd, "svm", Some("1\n"), Err(ErrorKind::NotFound)), "/dev/kvm cannot be opened"),
        ] {
            let lacks = host.lacks().unwrap_or_default();
            assert!(lacks.contains(told), "{lacks:?} instead of {told:?}");
        }
    }
}
