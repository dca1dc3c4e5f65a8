//! The duty to flush: what makes a tightened permission real.

/// Owed after a permission was tightened: until every processor flushed both of its ASIDs (and
/// the IOMMU its cache), some translation may still give what the tables no longer do. No emulator
/// shows a forgotten flush, so the type does: only [`FlushDuty::discharge`] consumes it.
#[derive(Debug)]
#[must_use = "a tightened permission may be relied upon only after the flush"]
pub struct FlushDuty {
    owed: bool,
}

impl FlushDuty {
    /// The duty that follows a change; `owed` if it took anything away.
    pub(crate) const fn new(owed: bool) -> Self {
        Self { owed }
    }

    /// Both duties in one.
    pub const fn and(self, other: Self) -> Self {
        Self { owed: self.owed | other.owed }
    }

    /// Runs `flush` if anything is owed. `flush` must return only when no processor holds an old
    /// translation any more.
    pub fn discharge(self, flush: impl FnOnce()) {
        if self.owed {
            flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_either_change_owes_is_flushed_once() {
        for (one, other) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut flushes = 0;
            FlushDuty::new(one).and(FlushDuty::new(other)).discharge(|| flushes += 1);
            assert_eq!(flushes, i32::from(one || other), "{one} {other}");
        }
    }
}
