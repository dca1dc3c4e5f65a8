//! A Bochs machine: the second, independent emulator.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// Whether Bochs and its firmware are installed.
pub fn available() -> bool {
    Command::new("bochs").arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        && Path::new("/usr/share/bochs/BIOS-bochs-latest").exists()
}

/// Magic of a multiboot2 header, and its tag that asks for a framebuffer.
const HEADER: [u8; 4] = 0xE852_50D6_u32.to_le_bytes();
const FRAMEBUFFER: u16 = 5;
/// A tag that no loader knows, and passes over if it is optional.
const NOTHING: u16 = 0x7F;

/// A copy of SecVisor that does not ask for a framebuffer: GRUB crashes on the way to one with
/// Bochs' VGA BIOS, before anything of SecVisor has run.
pub fn without_framebuffer(secvisor: &Path, copy: &Path) -> Result<()> {
    let mut image = std::fs::read(secvisor)?;
    let half =
        |image: &[u8], at: usize| Some(u16::from_le_bytes([*image.get(at)?, *image.get(at + 1)?]));
    let start = image.windows(4).position(|part| part == HEADER).ok_or("no multiboot2 header")?;
    let mut at = start + 16;
    while let (Some(kind), Some(size @ 8..)) = (half(&image, at), half(&image, at + 4)) {
        if kind == FRAMEBUFFER {
            image[at..at + 2].copy_from_slice(&NOTHING.to_le_bytes());
            image[at + 2] |= 1;
        }
        if kind == 0 {
            break;
        }
        at += usize::from(size).next_multiple_of(8);
    }
    Ok(std::fs::write(copy, image)?)
}

/// A machine that boots `iso`.
pub struct Machine {
    /// The CD it boots from.
    pub iso: PathBuf,
    /// Memory in MiB.
    pub megabytes: u32,
}

/// What a machine left behind.
pub struct Ended {
    /// The guest's console (COM1).
    pub console: String,
    /// SecVisor's log (COM2).
    pub log: String,
    /// Whether it ended by itself, by the guest's word "Shutdown".
    pub shut_down: bool,
}

impl Machine {
    /// Runs it with its files in `directory` to its end or the deadline.
    pub fn run(&self, directory: &Path, deadline: Duration) -> Result<Ended> {
        std::fs::create_dir_all(directory)?;
        let file = |name: &str| directory.join(name);
        let (com1, com2) = (file("com1"), file("com2"));
        for path in [&com1, &com2] {
            let _ = std::fs::remove_file(path);
        }
        let configuration = format!(
            "cpu: model=ryzen, ips=100000000\n\
             memory: guest={memory}, host={memory}\n\
             romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
             vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
             ata0-master: type=cdrom, path={iso}, status=inserted\n\
             boot: cdrom\n\
             display_library: rfb, options=\"timeout=0\"\n\
             com1: enabled=1, mode=file, dev={com1}\n\
             com2: enabled=1, mode=file, dev={com2}\n\
             clock: sync=none\n\
             log: {log}\n\
             panic: action=fatal\n",
            memory = self.megabytes,
            iso = self.iso.display(),
            com1 = com1.display(),
            com2 = com2.display(),
            log = file("bochs.log").display(),
        );
        std::fs::write(file("bochsrc"), configuration)?;
        // The debugger is built in; it must be told to go on.
        std::fs::write(file("commands"), "c\n")?;
        let output = std::fs::File::create(file("bochs.out"))?;
        let child = Command::new("bochs")
            .args(["-q", "-f"])
            .arg(file("bochsrc"))
            .arg("-rc")
            .arg(file("commands"))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let shut_down = Reaped(child).ends_within(deadline)?;
        let text = |path: &Path| -> String {
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).replace('\r', "")
        };
        Ok(Ended { console: text(&com1), log: text(&com2), shut_down })
    }
}

struct Reaped(Child);

impl Reaped {
    fn ends_within(mut self, deadline: Duration) -> Result<bool> {
        let end = Instant::now() + deadline;
        while Instant::now() < end {
            if self.0.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
