//! A client of QEMU's gdb stub: stops the machine at an address and writes its physical memory.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::Result;
use crate::qemu::Running;

/// How long the stub may think about what does not let the machine run.
const ANSWER: Duration = Duration::from_secs(60);
/// RDI's place among the registers as the stub tells them.
pub const RDI: usize = 5;
/// RIP's place.
const RIP: usize = 16;
/// What stops a machine that runs.
const BREAK: [u8; 1] = [3];

/// A machine that is stopped, for good if it is not let go.
pub struct Debugger {
    stream: UnixStream,
    /// What came and was not read yet.
    received: Vec<u8>,
    /// When a machine that runs must have stopped.
    deadline: Instant,
}

impl Debugger {
    /// Stops the machine.
    pub fn attach(machine: &Running) -> Result<Self> {
        let path = machine.file("gdb");
        let answer =
            machine.monitor(&format!("gdbserver unix:{},server=on,wait=off", path.display()))?;
        let stream =
            UnixStream::connect(&path).map_err(|error| format!("gdb stub: {error}; {answer}"))?;
        let mut debugger = Self { stream, received: Vec::new(), deadline: machine.deadline };
        debugger.ask("?")?;
        Ok(debugger)
    }

    /// Lets the machine run until it is about to execute the instruction at `address`, even if it
    /// stands there already.
    pub fn run_to(&mut self, address: u64) -> Result<()> {
        if self.register(RIP)? == address {
            self.stops("s", Instant::now() + ANSWER)?;
        }
        self.expect(&format!("Z1,{address:x},1"), "OK")?;
        let stopped = self.stops("c", self.deadline);
        self.expect(&format!("z1,{address:x},1"), "OK")?;
        stopped.map_err(|error| format!("did not come to {address:#x}: {error}").into())
    }

    /// A register of the processor that stopped.
    pub fn register(&mut self, place: usize) -> Result<u64> {
        let registers = self.ask("g")?;
        let digits = registers.get(place * 16..place * 16 + 16);
        let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let value = value.ok_or_else(|| format!("gdb stub: registers {registers:?}"))?;
        Ok(value.swap_bytes())
    }

    /// Writes to physical memory.
    pub fn write(&mut self, physical: u64, bytes: &[u8]) -> Result<()> {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.expect("Qqemu.PhyMemMode:1", "OK")?;
        let written = self.expect(&format!("M{physical:x},{:x}:{digits}", bytes.len()), "OK");
        self.expect("Qqemu.PhyMemMode:0", "OK")?;
        written
    }

    /// Lets the machine run for good.
    pub fn detach(mut self) -> Result<()> {
        self.expect("D", "OK")
    }

    fn expect(&mut self, question: &str, wanted: &str) -> Result<()> {
        match self.ask(question)? {
            answer if answer == wanted => Ok(()),
            answer => Err(format!("gdb stub: {question} gave {answer:?}").into()),
        }
    }

    /// Sends a command that lets the machine run, and waits until it has stopped.
    fn stops(&mut self, command: &str, deadline: Instant) -> Result<()> {
        self.send(command)?;
        let answer = match self.receive(deadline) {
            Ok(answer) => answer,
            Err(error) => {
                self.stream.write_all(&BREAK)?;
                self.receive(Instant::now() + ANSWER)?;
                return Err(error);
            }
        };
        // 05 is SIGTRAP: a breakpoint, or a step's end.
        match answer.get(..3) {
            Some("T05" | "S05") => Ok(()),
            _ => Err(format!("gdb stub: the machine stopped with {answer:?}").into()),
        }
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        self.send(question)?;
        self.receive(Instant::now() + ANSWER)
    }

    fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.write_all(&packet(text))?)
    }

    /// The next packet.
    fn receive(&mut self, deadline: Instant) -> Result<String> {
        let mut bytes = [0; 4096];
        loop {
            if let Some((text, length)) = first_packet(&self.received)? {
                self.received.drain(..length);
                self.stream.write_all(b"+")?;
                return Ok(text);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err("gdb stub: the machine ended".into()),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err("gdb stub: no answer within the deadline".into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn checksum(text: &[u8]) -> u8 {
    text.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

fn packet(text: &str) -> Vec<u8> {
    format!("${text}#{:02x}", checksum(text.as_bytes())).into_bytes()
}

/// The first whole packet in `bytes`, and where it ends.
fn first_packet(bytes: &[u8]) -> Result<Option<(String, usize)>> {
    let position = |from: usize, wanted| {
        Some(from + bytes.get(from..)?.iter().position(|&byte| byte == wanted)?)
    };
    let Some(start) = position(0, b'$') else { return Ok(None) };
    let Some(end) = position(start, b'#') else { return Ok(None) };
    let Some(sum) = bytes.get(end + 1..end + 3) else { return Ok(None) };
    let text = &bytes[start + 1..end];
    if format!("{:02x}", checksum(text)).as_bytes() != sum {
        return Err("gdb stub: a packet with a wrong checksum".into());
    }
    Ok(Some((String::from_utf8_lossy(text).into_owned(), end + 3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_back() {
        let mut bytes = b"+".to_vec();
        bytes.extend(packet("T05thread:01;"));
        bytes.extend(packet("OK"));
        let (text, length) = first_packet(&bytes).expect("a packet").expect("a whole one");
        assert_eq!((text.as_str(), &bytes[length..]), ("T05thread:01;", &b"$OK#9a"[..]));
        assert_eq!(first_packet(&bytes[length..bytes.len() - 1]).expect("no error"), None);
        assert!(first_packet(b"$OK#9b").is_err());
    }
}
