//! What a guest writes to a serial port, while it writes it.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::Result;

#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
    ended: bool,
}

/// The text captured so far; clones share it.
#[derive(Clone, Default)]
pub struct Console {
    inner: Arc<(Mutex<Captured>, Condvar)>,
}

impl Console {
    /// Captures everything `source` yields, on a thread of its own, and hands each piece to `tee`.
    pub fn capture(
        mut source: impl Read + Send + 'static,
        mut tee: impl FnMut(&[u8]) + Send + 'static,
    ) -> Self {
        let console = Self::default();
        let shared = console.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = source.read(&mut piece) {
                tee(&piece[..count]);
                shared.change(|captured| captured.bytes.extend_from_slice(&piece[..count]));
            }
            shared.change(|captured| captured.ended = true);
        });
        console
    }

    fn change(&self, with: impl FnOnce(&mut Captured)) {
        with(&mut self.inner.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.inner.1.notify_all();
    }

    /// All text so far, carriage returns removed.
    pub fn text(&self) -> String {
        let captured = self.inner.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&captured.bytes).replace('\r', "")
    }

    /// Whether nothing can come any more.
    pub fn ended(&self) -> bool {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Waits until the text contains `needle`; an error when the source ends or the deadline passes.
    pub fn wait_for(&self, needle: &str, deadline: Instant) -> Result<()> {
        let mut captured = self.inner.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen: usize = 0;
        loop {
            let from = seen.saturating_sub(needle.len());
            if captured.bytes[from..].windows(needle.len()).any(|part| part == needle.as_bytes()) {
                return Ok(());
            }
            seen = captured.bytes.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let tail = || tail(&String::from_utf8_lossy(&captured.bytes));
            if captured.ended {
                return Err(format!("the guest ended before {needle:?}; last: {}", tail()).into());
            }
            if left.is_zero() {
                return Err(format!("no {needle:?} within the deadline; last: {}", tail()).into());
            }
            captured =
                self.inner.1.wait_timeout(captured, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the source's end, so that the text is whole.
    pub fn finish(&self, deadline: Instant) {
        let mut captured = self.inner.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !captured.ended && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            captured =
                self.inner.1.wait_timeout(captured, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The last non-empty line of a text, shortened for a message.
pub fn tail(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(nothing)");
    line.trim().chars().take(160).collect()
}
