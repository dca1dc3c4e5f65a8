//! The tool as its user meets it: files in, text, files and exit codes out.

mod audit;
mod elf;
mod loader;
mod modules;
mod object;
mod real;
mod relocations;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use elf::{Kernel, section};
use policy::address::{Gpa, Gva};
use policy::approval::{ApprovalList, Architecture};
use policy::violation::{
    Action, Kind, RING_BYTES, RING_MAGIC, RING_RECORDS, UNIT_NAME_BYTES, Violation, record_offset,
};

const HIGH: u64 = 0xffff_ffff_8000_0000;

/// A folder of its own for each test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).unwrap();
    }

    fn get(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap()
    }

    /// Runs the tool here: exit code, standard output, standard error.
    fn run(&self, line: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secvisor"));
        let output = command.current_dir(&self.0).args(line.split(' ')).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Runs the tool, which must fail with `code` and say every one of `messages`.
    fn fails(&self, line: &str, code: i32, messages: &[&str]) {
        let (found, out, err) = self.run(line);
        assert_eq!(found, code, "{line}: {out}{err}");
        for message in messages {
            assert!(out.contains(message) || err.contains(message), "no {message} in {out}{err}");
        }
    }
}

/// A 64-bit kernel laid out like Linux: code, data, init code, and what only looks like code.
fn linux() -> Kernel {
    Kernel {
        long: true,
        entry: 0x100_0000,
        sections: vec![
            section(".text", 0x100_0000, HIGH, vec![0x90; 0x2345]),
            section(".data", 0x100_3000, HIGH, vec![1; 0x800]),
            section(".init.text", 0x100_4000, HIGH, vec![0xC3; 0x1000]),
            section(".altinstr_replacement", 0x100_5000, HIGH, vec![0xCC; 0x10]),
        ],
        symbols: vec![
            ("first_function", 0, HIGH + 0x100_0000),
            ("last_function", 0, HIGH + 0x100_2300),
            ("_etext", 0, HIGH + 0x100_2345),
            ("first_datum", 1, HIGH + 0x100_3000),
        ],
    }
}

/// A 32-bit kernel whose entry point is virtual.
fn small() -> Kernel {
    Kernel {
        long: false,
        entry: 0xC010_0004,
        sections: vec![
            section(".text", 0x10_0000, 0xC000_0000, vec![0x90; 0x100]),
            section(".data", 0x10_1000, 0xC000_0000, vec![1; 0x10]),
        ],
        symbols: vec![("start", 0, 0xC010_0000)],
    }
}

#[test]
fn a_kernel_is_approved_shown_and_checked() {
    let folder = Folder::new("approve");
    folder.put("vmlinux", &linux().build());
    let (code, out, err) = folder.run("approve --kernel vmlinux -o approvals.bin");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.contains("not approved  .altinstr_replacement (16 bytes) holds instructions"),
        "{out}"
    );

    let bytes = folder.get("approvals.bin");
    let list = ApprovalList::parse(&bytes).unwrap();
    assert_eq!((list.architecture(), list.entry()), (Architecture::X86_64, Gpa(0x100_0000)));
    let ranges: Vec<_> = list.kernel_ranges().collect();
    assert_eq!(ranges.len(), 2);
    assert_eq!(ranges[0].verify(&[0x90; 0x2345]), Ok(()));
    assert_eq!((ranges[0].physical.start(), ranges[0].physical.end()), (0x100_0000, 0x100_3000));
    assert_eq!(ranges[1].verify(&[0xC3; 0x1000]), Ok(()));
    assert_eq!((ranges[1].name, ranges[1].init), (".init.text", true));
    assert_eq!(ranges[1].virtual_start, Gva(HIGH + 0x100_4000));

    let (code, shown, _) = folder.run("show approvals.bin");
    assert_eq!(code, 0);
    assert!(out.starts_with(&shown), "{shown} is not the beginning of {out}");
    for line in ["architecture  x86_64", "entry         0x1000000", "0x1000000-0x1003000 (3 pages)"]
    {
        assert!(shown.contains(line), "no {line} in {shown}");
    }
    let (code, out, _) = folder.run("check approvals.bin --kernel vmlinux");
    assert_eq!((code, out.as_str()), (0, "approvals.bin approves vmlinux\n"));
}

#[test]
fn the_same_kernel_gives_the_same_list() {
    let folder = Folder::new("deterministic");
    let mut turned = linux();
    turned.sections.reverse();
    turned.symbols.clear();
    folder.put("vmlinux", &linux().build());
    folder.put("turned", &turned.build());
    assert_eq!(folder.run("approve --kernel vmlinux -o first").0, 0);
    assert_eq!(folder.run("approve -o second --kernel vmlinux").0, 0);
    assert_eq!(folder.run("approve --kernel turned -o third").0, 0);
    assert_eq!(folder.get("first"), folder.get("second"));
    assert_eq!(folder.get("first"), folder.get("third"));
}

#[test]
fn a_32_bit_kernel_is_entered_at_its_physical_address() {
    let folder = Folder::new("i386");
    folder.put("vmlinux", &small().build());
    let (code, out, err) = folder.run("approve --kernel vmlinux -o list");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("i386") && out.contains("entry         0x100004"), "{out}");
}

#[test]
fn pages_of_code_and_data_are_refused_by_their_symbols() {
    let folder = Folder::new("mixed");
    let mut kernel = linux();
    kernel.sections[1] = section(".data", 0x100_2800, HIGH, vec![1; 0x800]);
    kernel.symbols[3].2 = HIGH + 0x100_2800;
    folder.put("vmlinux", &kernel.build());
    let told = [
        "section .text shares page 0x1002000 with section .data",
        "ends at 0x1002345",
        "(last symbol last_function)",
        "(first symbol first_datum)",
        "align .data to 4096",
    ];
    folder.fails("approve --kernel vmlinux -o list", 2, &told);
    assert!(!folder.0.join("list").exists());

    kernel.symbols.clear();
    kernel.sections[1] = section(".bss", 0x0FF_F000, HIGH, vec![1; 0x1004]);
    kernel.sections[0] = section(".text", 0x100_0010, HIGH, vec![0x90; 0x100]);
    folder.put("vmlinux", &kernel.build());
    let told = ["section .text shares page 0x1000000 with section .bss", "(last symbol none)"];
    folder.fails("approve --kernel vmlinux -o list", 2, &told);

    let mut kernel = linux();
    kernel.sections[0] = section(".text", 0x100_0010, HIGH, vec![0x90; 0x100]);
    folder.put("vmlinux", &kernel.build());
    folder.fails(
        "approve --kernel vmlinux -o list",
        2,
        &[".text starts at 0x1000010", "not on a page"],
    );
}

#[test]
fn kernels_without_sense_are_refused() {
    let folder = Folder::new("senseless");
    let refused = |kernel: &Kernel, message: &str| {
        folder.put("vmlinux", &kernel.build());
        folder.fails("approve --kernel vmlinux -o list", 2, &[message, "vmlinux: "]);
    };
    let mut kernel = linux();
    kernel.entry = 0x100_2345;
    refused(&kernel, "entry point 0x1002345 lies outside the approved code (.text, .init.text)");
    let mut kernel = linux();
    kernel.sections.retain(|section| section.name == ".data");
    refused(&kernel, "no section .text or .init.text is loaded");
    let mut kernel = linux();
    kernel.sections[1].physical = 0x100_0000;
    refused(&kernel, "two segments are loaded to the same place, at 0x1000000");
    let mut foreign = linux().build();
    foreign[18] = 40;
    folder.put("vmlinux", &foreign);
    folder.fails("approve --kernel vmlinux -o list", 2, &["ELF machine 40"]);
    // A section whose bytes are not the ones that its segment loads.
    let mut elsewhere = linux().build();
    let table = u64::from_le_bytes(elsewhere[0x28..0x30].try_into().unwrap()) as usize;
    elsewhere[table + 64 + 24] ^= 1;
    folder.put("vmlinux", &elsewhere);
    folder.fails("approve --kernel vmlinux -o list", 2, &["section .text lies in no segment"]);
    let whole = linux().build();
    for size in [0, 3, 16, 64, 200, whole.len() / 2, whole.len() - 1] {
        folder.put("vmlinux", &whole[..size]);
        folder.fails("approve --kernel vmlinux -o list", 2, &["vmlinux: "]);
    }
}

#[test]
fn check_names_what_differs() {
    let folder = Folder::new("check");
    folder.put("vmlinux", &linux().build());
    assert_eq!(folder.run("approve --kernel vmlinux -o list").0, 0);
    let mut kernel = linux();
    kernel.sections[2].bytes[0xFFF] ^= 1;
    folder.put("changed", &kernel.build());
    let (code, out, _) = folder.run("check list --kernel changed");
    assert_eq!(code, 1);
    assert!(out.starts_with("section .init.text: approved SHA-256 "), "{out}");
    assert_eq!(out.lines().count(), 1, "{out}");

    kernel.sections.remove(2);
    kernel.entry += 1;
    folder.put("changed", &kernel.build());
    let told = [
        "section .init.text: approved, but not in the kernel",
        "entry point: approved 0x1000000, found 0x1000001",
    ];
    folder.fails("check list --kernel changed", 1, &told);

    assert_eq!(folder.run("approve --kernel changed -o less").0, 0);
    folder.fails("check less --kernel vmlinux", 1, &["section .init.text: in the kernel, but not"]);

    let mut damaged = folder.get("list");
    damaged[8] = 9;
    folder.put("list", &damaged);
    folder.fails(
        "check list --kernel vmlinux",
        2,
        &["list: no sound approval list: header: unknown version: 0x9"],
    );
    folder.fails("show list", 2, &["list: no sound approval list: header: unknown version"]);
    folder.fails("show missing", 2, &["missing: "]);
}

/// A bzImage around `payload`.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 3 * 512 + 0x20];
    file[0x1F1] = 2;
    file[0x202..0x208].copy_from_slice(b"HdrS\x08\x02");
    file[0x248..0x24C].copy_from_slice(&0x20u32.to_le_bytes());
    file[0x24C..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
    file.extend(payload);
    // Linux appends the unpacked size to most payloads.
    file.extend([0xEE; 64]);
    file
}

/// Packed as Linux packs itself, with the filter for x86 branches.
fn xz(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut options = lzma_rust2::XzOptions::default();
    options.set_check_sum_type(lzma_rust2::CheckType::Crc32);
    options.prepend_pre_filter(lzma_rust2::FilterType::BcjX86, 0);
    let mut packer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

#[test]
fn a_bzimage_is_unpacked() {
    use std::io::Write;
    let folder = Folder::new("bzimage");
    let vmlinux = linux().build();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vmlinux).unwrap();
    let packed = packer.finish().unwrap();
    folder.put("vmlinux", &vmlinux);
    folder.put("bzImage", &bzimage(&packed));
    assert_eq!(folder.run("approve --kernel vmlinux -o plain").0, 0);
    let (code, _, err) = folder.run("approve --kernel bzImage -o packed");
    assert!(code == 0 && err.contains("--vmlinux-out"), "{err}");
    assert_eq!(folder.run("approve --kernel bzImage -o packed --vmlinux-out unpacked").2, "");
    assert_eq!(folder.get("plain"), folder.get("packed"));
    assert_eq!(folder.get("unpacked"), vmlinux);
    assert_eq!(folder.run("check plain --kernel bzImage").0, 0);

    folder.put("bzImage", &bzimage(&xz(&vmlinux)));
    assert_eq!(folder.run("check plain --kernel bzImage").0, 0);
    let fastest = ruzstd::encoding::CompressionLevel::Fastest;
    folder.put("bzImage", &bzimage(&ruzstd::encoding::compress_to_vec(&*vmlinux, fastest)));
    assert_eq!(folder.run("check plain --kernel bzImage").0, 0);

    folder.put("bzImage", &bzimage(&packed[..packed.len() / 2]));
    folder.fails("approve --kernel bzImage -o list", 2, &["the bzImage: cannot unpack it by gzip"]);
    folder.put("bzImage", &bzimage(b"\x02\x21\x4c\x18 lz4"));
    folder.fails(
        "approve --kernel bzImage -o list",
        2,
        &["begins with 02214c18", "extract-vmlinux"],
    );
    folder.put("bzImage", &bzimage(&packed)[..0x600]);
    folder.fails("approve --kernel bzImage -o list", 2, &["does not point into the file"]);
    let mut old = bzimage(&packed);
    old[0x206] = 5;
    folder.put("bzImage", &old);
    let told = ["a bzImage of boot protocol 2.05 holds no ELF", "give the vmlinux"];
    folder.fails("approve --kernel bzImage -o list", 2, &told);
    folder.put("bzImage", b"hello");
    folder.fails("approve --kernel bzImage -o list", 2, &["neither an ELF vmlinux nor a bzImage"]);
}

fn violation(count: u64) -> Violation {
    Violation {
        kind: Kind::Write,
        action: Action::Inject,
        cpu: 0,
        gpa: Some(Gpa(0x1000 * count)),
        rip: Gva(HIGH),
        cr3: 0x1000,
        cpl: 0,
        class: None,
        info: 0,
        count,
        unit: [0; UNIT_NAME_BYTES],
    }
}

fn ring(counts: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut ring = vec![0; RING_BYTES];
    ring[..8].copy_from_slice(&RING_MAGIC);
    for count in counts {
        let record = violation(count).encode();
        ring[record_offset(count)..][..record.len()].copy_from_slice(&record);
    }
    ring
}

#[test]
fn records_are_found_in_a_dump_and_ordered() {
    let folder = Folder::new("ring");
    let newest = RING_RECORDS as u64 + 2;
    let mut dump = vec![0x53; 0x1_2340];
    // A program that knows the magic is no ring.
    dump[0x100..0x108].copy_from_slice(&RING_MAGIC);
    dump.extend(ring(1..=newest));
    dump.extend([0; 100]);
    folder.put("dump", &dump);
    let (code, out, _) = folder.run("ring dump");
    assert_eq!(code, 0);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], format!("ring at offset 0x12340: {RING_RECORDS} records"));
    assert_eq!(lines[1], "2 earlier records are overwritten");
    let expected: Vec<_> = (3..=newest).map(|count| violation(count).to_string()).collect();
    assert_eq!(lines[2..], expected);

    // Torn and misplaced records are left out, and the end of the dump may cut a ring.
    let mut torn = ring(1..=6);
    torn[record_offset(2) + 20] ^= 1;
    let misplaced = violation(9).encode();
    torn[record_offset(4)..][..misplaced.len()].copy_from_slice(&misplaced);
    torn.truncate(record_offset(7) - 1);
    folder.put("dump", &torn);
    let (code, out, _) = folder.run("ring dump");
    let left = [1, 3, 5].map(|count| format!("{}\n", violation(count))).concat();
    assert_eq!((code, out), (0, format!("ring at offset 0x0: 3 records\n{left}")));
}

#[test]
fn a_ring_across_the_border_of_two_reads_is_found_once() {
    let folder = Folder::new("border");
    for offset in [(16 << 20) - 4, (16 << 20) - RING_BYTES, (16 << 20) - RING_BYTES + 4, 16 << 20] {
        let mut dump = vec![0; offset];
        dump.extend(ring(1..=2));
        folder.put("dump", &dump);
        let (code, out, _) = folder.run("ring dump");
        assert_eq!((code, out.lines().count()), (0, 3), "{offset:#x}: {out}");
        assert!(out.starts_with(&format!("ring at offset {offset:#x}: 2 records\n")), "{out}");
    }
}

#[test]
fn a_dump_without_a_ring_says_so() {
    let folder = Folder::new("no-ring");
    folder.put("dump", &[0; 5000]);
    folder.fails("ring dump", 1, &["no violation ring in dump"]);
    folder.put("dump", &[]);
    folder.fails("ring dump", 1, &["no violation ring in dump"]);
    folder.fails("ring missing", 2, &["missing: "]);
}

#[test]
fn bad_use_is_told() {
    let folder = Folder::new("use");
    folder.fails("approve", 2, &["--kernel", "--output"]);
    folder.fails("explain", 2, &["explain"]);
    for line in
        ["--help", "approve --help", "show --help", "check --help", "ring --help", "--version"]
    {
        assert_eq!(folder.run(line).0, 0);
    }
}
