//! A QEMU machine: started, watched, asked through its monitor, and reaped by its own pid.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::console::Console;

/// The QEMU of this machine's packages.
pub const INSTALLED: &str = "qemu-system-x86_64";
/// Status with which QEMU ends when the guest writes 0x10 to the debug-exit port.
pub const EXIT_DONE: i32 = 33;
/// How long a monitor answer may take.
const MONITOR_DEADLINE: Duration = Duration::from_secs(60);

/// How often a waiting test looks whether SecVisor has ended.
const LOOK: Duration = Duration::from_secs(1);
/// How SecVisor's line begins that says what keeps kernel entries inside approved code.
const CHOSEN: &str = "secvisor: views=";
/// Words by which SecVisor tells its own end.
const FATAL: [&str; 2] = ["secvisor: refused: ", "secvisor: panic: "];

/// What the machine starts from.
#[derive(Clone, Debug)]
pub enum Boot {
    /// A bootable CD, by the firmware.
    Iso(PathBuf),
    /// A disk on a USB stick, by the firmware; what the guest writes to it stays.
    Stick(PathBuf),
    /// A kernel image that QEMU loads itself.
    Kernel {
        /// bzImage, or a multiboot ELF.
        image: PathBuf,
        /// Its initial RAM disk.
        initrd: Option<PathBuf>,
        /// Its command line.
        append: String,
    },
}

/// Description of a machine; what is not said is the reference machine's.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The emulator: QEMU for x86_64, its path or its name.
    pub emulator: PathBuf,
    /// What it starts from.
    pub boot: Boot,
    /// QEMU's name of the processor model with its flags.
    pub cpu: String,
    /// Memory, as QEMU's `-m` takes it.
    pub memory: String,
    /// Number of processors.
    pub cpus: u32,
    /// Whether the host's KVM runs it instead of TCG.
    pub kvm: bool,
    /// Whether UEFI firmware starts it instead of a BIOS.
    pub uefi: bool,
    /// A raw image to attach as a virtio disk.
    pub disk: Option<PathBuf>,
    /// Whether the time stamp counter counts instructions.
    pub icount: bool,
    /// More arguments.
    pub extra: Vec<String>,
    /// What SecVisor's log must hold as soon as the guest says a word; `None` of a machine without it.
    pub launched: Option<&'static str>,
}

impl Machine {
    /// The reference machine.
    pub fn new(boot: Boot) -> Self {
        Self {
            emulator: INSTALLED.into(),
            boot,
            cpu: "max".into(),
            memory: "512M".into(),
            cpus: 1,
            kvm: false,
            uefi: false,
            disk: None,
            icount: false,
            extra: Vec::new(),
            launched: None,
        }
    }

    /// The command that starts it, but for its serial ports and monitor.
    pub fn command(&self, directory: &Path) -> Result<Command> {
        let mut command = Command::new(&self.emulator);
        let accelerator = if self.kvm { "kvm" } else { "tcg" };
        command.args(["-machine", "q35,smm=off", "-accel", accelerator, "-cpu", &self.cpu]);
        command.args(["-m", &self.memory, "-smp", &self.cpus.to_string()]);
        command.args(["-display", "none", "-no-reboot", "-nic", "none", "-nodefaults", "-vga"]);
        command.args(["std", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        if self.icount {
            command.args(["-icount", "shift=0"]);
        }
        match &self.boot {
            Boot::Iso(path) => {
                command.arg("-cdrom").arg(path);
            }
            Boot::Stick(path) => {
                let drive = format!("if=none,id=stick,format=raw,file={}", path.display());
                command.args(["-drive", &drive, "-device", "qemu-xhci,id=usb"]);
                command.args(["-device", "usb-storage,drive=stick,bootindex=0"]);
            }
            Boot::Kernel { image, initrd, append } => {
                command.arg("-kernel").arg(image).args(["-append", append]);
                if let Some(initrd) = initrd {
                    command.arg("-initrd").arg(initrd);
                }
            }
        }
        if self.uefi {
            let variables = directory.join("efivars.fd");
            std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables)?;
            let flash = "if=pflash,format=raw,unit";
            command.args([
                "-drive",
                &format!("{flash}=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"),
            ]);
            command.args(["-drive", &format!("{flash}=1,file={}", variables.display())]);
        }
        if let Some(disk) = &self.disk {
            let drive = format!("if=none,id=root,format=raw,snapshot=on,file={}", disk.display());
            command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=root"]);
        }
        command.args(&self.extra);
        // Where snapshots of disks go.
        command.env("TMPDIR", directory);
        Ok(command)
    }

    /// Starts it with its files in `directory`; every wait on it ends at `deadline` from now.
    pub fn start(&self, directory: &Path, deadline: Duration) -> Result<Running> {
        self.start_with(directory, deadline, |_| ())
    }

    /// As [`Machine::start`], with every piece of the guest's console handed to `tee`.
    pub fn start_with(
        &self,
        directory: &Path,
        deadline: Duration,
        tee: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<Running> {
        std::fs::create_dir_all(directory)?;
        let log = directory.join("secvisor.log");
        let monitor = directory.join("monitor");
        let errors = directory.join("qemu.err");
        std::fs::write(&log, "")?;
        let _ = std::fs::remove_file(&monitor);
        let mut command = self.command(directory)?;
        command.args(["-serial", "stdio", "-serial", &format!("file:{}", log.display())]);
        command.args(["-monitor", &format!("unix:{},server=on,wait=off", monitor.display())]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(&errors)?);
        let mut child =
            command.spawn().map_err(|error| format!("{}: {error}", self.emulator.display()))?;
        let output = child.stdout.take().ok_or("no output pipe")?;
        Ok(Running {
            input: child.stdin.take(),
            console: Console::capture(output, tee),
            child,
            log,
            errors,
            monitor,
            launched: self.launched,
            deadline: Instant::now() + deadline,
        })
    }
}

/// A machine that runs; dropping it ends it.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    /// The guest's console (COM1).
    pub console: Console,
    log: PathBuf,
    errors: PathBuf,
    monitor: PathBuf,
    launched: Option<&'static str>,
    /// When waiting for it ends.
    pub deadline: Instant,
}

impl Running {
    /// Waits until the console holds `needle`.
    pub fn wait_for(&mut self, needle: &str) -> Result<()> {
        loop {
            let soon = (Instant::now() + LOOK).min(self.deadline);
            let result = self.console.wait_for(needle, soon);
            if let Some(end) = result.is_err().then(|| fatal(&self.log())).flatten() {
                return Err(end.into());
            }
            match result {
                Err(error) if soon == self.deadline || self.console.ended() => {
                    return Err(self.explain(&error.to_string()));
                }
                Err(_) => (),
                Ok(()) => return self.launched(),
            }
        }
    }

    /// Whether SecVisor launched as it was to.
    fn launched(&self) -> Result<()> {
        let log = self.log();
        let Some(words) = self.launched.filter(|words| !log.contains(words)) else {
            return Ok(());
        };
        let line = log.lines().find(|line| line.starts_with(CHOSEN)).unwrap_or("no such line");
        Err(format!("SecVisor's log does not say {words:?} but: {line}").into())
    }

    /// Waits until SecVisor's log holds `needle`.
    pub fn wait_for_log(&mut self, needle: &str) -> Result<()> {
        self.wait_for_line(needle, fatal)
    }

    /// Waits until SecVisor's log holds `needle`, which SecVisor's failure may precede.
    pub fn wait_for_end(&mut self, needle: &str) -> Result<()> {
        self.wait_for_line(needle, |_| None)
    }

    fn wait_for_line(
        &mut self,
        needle: &str,
        fatal: impl Fn(&str) -> Option<String>,
    ) -> Result<()> {
        loop {
            let log = self.log();
            if log.contains(needle) {
                return Ok(());
            }
            if let Some(end) = fatal(&log) {
                return Err(end.into());
            }
            if Instant::now() > self.deadline || self.child.try_wait()?.is_some() {
                let last = crate::console::tail(&log);
                return Err(self.explain(&format!("no {needle:?} in the log; last: {last}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn explain(&self, what: &str) -> crate::Error {
        let errors = std::fs::read_to_string(&self.errors).unwrap_or_default();
        match errors.lines().rev().find(|line| !line.contains("warning")) {
            Some(line) => format!("{what} (qemu: {line})").into(),
            None => what.into(),
        }
    }

    /// Types `text` on the guest's console.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().ok_or("the console is closed")?;
        input.write_all(text.as_bytes())?;
        Ok(input.flush()?)
    }

    /// The writing end of the guest's console.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.input.take()
    }

    /// SecVisor's log (COM2) so far: whole lines, since the last one may be under way.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let end = log.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        String::from_utf8_lossy(&log[..end]).replace('\r', "")
    }

    /// The path of a file among this machine's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.log.with_file_name(name)
    }

    /// Asks the monitor one question.
    pub fn monitor(&self, question: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.monitor)?;
        stream.set_read_timeout(Some(MONITOR_DEADLINE))?;
        read_prompt(&mut stream)?;
        stream.write_all(format!("{question}\n").as_bytes())?;
        let answer = read_prompt(&mut stream)?;
        // The first line is the question's own echo.
        Ok(answer.split_once("\r\n").map_or("", |(_, rest)| rest).replace('\r', ""))
    }

    /// Guest-physical memory, read from outside the guest.
    pub fn memory(&self, physical: u64, bytes: u64) -> Result<Vec<u8>> {
        let file = self.file(&format!("memory-{physical:x}"));
        let answer =
            self.monitor(&format!("pmemsave {physical:#x} {bytes:#x} \"{}\"", file.display()))?;
        let data = std::fs::read(&file).map_err(|_| format!("pmemsave said: {answer}"))?;
        std::fs::remove_file(&file)?;
        if data.len() as u64 != bytes {
            return Err(format!("pmemsave gave {} bytes of {bytes}", data.len()).into());
        }
        Ok(data)
    }

    /// Waits for the machine's own end and gives its status.
    pub fn wait(&mut self) -> Result<i32> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.console.finish(Instant::now() + Duration::from_secs(5));
                self.launched()?;
                return Ok(status.code().unwrap_or(-1));
            }
            if let Some(end) = fatal(&self.log()) {
                return Err(end.into());
            }
            if Instant::now() > self.deadline {
                let last = crate::console::tail(&self.console.text());
                return Err(self.explain(&format!("did not end within the deadline; last: {last}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the end that a guest asks for when it is done.
    pub fn wait_done(&mut self) -> Result<()> {
        match self.wait()? {
            EXIT_DONE => Ok(()),
            status => {
                let last = crate::console::tail(&self.console.text());
                Err(self.explain(&format!("ended with status {status}; last: {last}")))
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // For whoever has to find out why.
        let _ = std::fs::write(self.file("console"), self.console.text());
    }
}

/// What SecVisor says when it can go on no more: nothing can follow it.
fn fatal(log: &str) -> Option<String> {
    let at = FATAL.iter().find_map(|word| log.find(word))?;
    let start = log[..at].rfind('\n').map_or(0, |end| end + 1);
    // A panic's reason stands on its second line.
    Some(log[start..].lines().take(2).collect::<Vec<_>>().join(" "))
}

fn read_prompt(stream: &mut UnixStream) -> Result<String> {
    let mut text = Vec::new();
    let mut byte = [0; 512];
    while !text.ends_with(b"(qemu) ") {
        match stream.read(&mut byte)? {
            0 => return Err("the monitor closed".into()),
            count => text.extend_from_slice(&byte[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The installed QEMU's major version.
pub fn major_version() -> Result<u32> {
    let output = Command::new(INSTALLED).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split("version ").nth(1).and_then(|rest| rest.split('.').next());
    Ok(number.and_then(|digits| digits.parse().ok()).ok_or("qemu-system-x86_64 told no version")?)
}
