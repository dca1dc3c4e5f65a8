//! First steps with an unported kernel: a list for audit, and the sum of what its boot did.
//!
//! `audit.log` is from a boot of Debian's linux-image-6.1.0-56-amd64, its lines as they were written, most
//! of them left out.

use policy::address::Gpa;
use policy::approval::ApprovalList;

use super::elf::{Kernel, section};
use super::{Folder, HIGH, small};

const LOG: &str = include_str!("audit.log");

/// The sections of that kernel that the log's lines touch.
fn stock() -> Kernel {
    Kernel {
        long: true,
        entry: 0x100_0000,
        sections: vec![
            section(".text", 0x100_0000, HIGH, vec![0x90; 0xA4_9000]),
            section(".init.text", 0x307_9000, HIGH, vec![0xC3; 0x6_EC04]),
            section(".altinstr_aux", 0x30E_7C04, HIGH, vec![0xC3; 0x2C28]),
        ],
        symbols: vec![],
    }
}

/// Lines as /proc/kallsyms had them.
const MAP: &str = "ffffffff81000000 T startup_64
ffffffff8107e740 t native_write_msr_safe
ffffffff819f6a00 T clear_page_erms
ffffffff81a48eb0 t memcpy_orig
ffffffff82a00000 D init_thread_union
ffffffffc0201150 t dummy_setup\t[dummy]
ffffffffc0206000 t char2uni\t[nls_utf8]
ffffffffc020b000 t max_loop_param_set_int\t[loop]
";

#[test]
fn what_shares_a_page_is_left_out_for_audit() {
    let folder = Folder::new("audit-approve");
    folder.put("vmlinux", &stock().build());
    folder.fails(
        "approve --kernel vmlinux -o list",
        2,
        &["section .init.text shares page 0x30e7000"],
    );
    let (code, out, err) = folder.run("approve --audit --kernel vmlinux -o list");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("not approved  section .init.text shares page 0x30e7000"), "{out}");
    let bytes = folder.get("list");
    let list = ApprovalList::parse(&bytes).unwrap();
    let names: Vec<_> = list.kernel_ranges().map(|range| range.name).collect();
    assert_eq!((list.entry(), names), (Gpa(0x100_0000), vec![".text"]));

    let mut mixed = stock();
    mixed.sections[0] = section(".text", 0x307_8000, HIGH, vec![0x90; 0x1800]);
    mixed.entry = 0x307_8000;
    mixed.sections[1].physical = 0x307_9800;
    mixed.sections[1].virtual_start = HIGH + 0x307_9800;
    mixed.sections.truncate(2);
    folder.put("mixed", &mixed.build());
    folder.fails("approve --audit --kernel mixed -o none", 2, &["no code has pages of its own"]);
}

/// The summary's groups: title, times, and the rows.
fn groups(out: &str) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for line in out.lines() {
        let text = line.trim().to_owned();
        match groups.last_mut() {
            _ if !line.starts_with(' ') && line.contains(": ") && !line.contains("read,") => {
                groups.push((text, Vec::new()));
            }
            Some((_, rows)) if text.starts_with(|first: char| first.is_ascii_digit()) => {
                rows.push(text);
            }
            _ => {}
        }
    }
    groups
}

fn expect(out: &str, expected: &[(&str, &[&str])]) {
    let owned = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect();
    let expected: Vec<(String, Vec<String>)> =
        expected.iter().map(|(title, rows)| ((*title).to_owned(), owned(rows))).collect();
    assert_eq!(groups(out), expected, "{out}");
}

#[test]
fn a_log_is_summed_up_by_function_and_module() {
    let folder = Folder::new("audit-map");
    folder.put("vmlinux", &stock().build());
    folder.put("log", LOG.as_bytes());
    folder.put("map", MAP.as_bytes());
    let (code, out, err) = folder.run("audit log --kernel vmlinux --map map");
    assert_eq!((code, err.as_str()), (0, ""));
    let first = "13 violations read, the last says count=7595: 7582 lines are missing or damaged\n";
    assert!(out.starts_with(first), "{out}");
    expect(
        &out,
        &[
            (
                "writes to approved code: 4",
                &[
                    "2  .text by memcpy_orig  (count 18 to 89)",
                    "2  approved memory by clear_page_erms  (count 7592 to 7595)",
                ],
            ),
            ("changed code that ran again: 1", &["1  .text  (count 90 to 90)"]),
            (
                "kernel code that the list leaves out: 3",
                &["2  .init.text  (count 1 to 3)", "1  .altinstr_aux  (count 11 to 11)"],
            ),
            (
                "modules: 3",
                &[
                    "1  [dummy]  (count 7586 to 7586)",
                    "1  [loop]  (count 7593 to 7593)",
                    "1  [nls_utf8]  (count 7585 to 7585)",
                ],
            ),
            (
                "writes to model-specific registers: 2",
                &["2  MSR 0x2ff by native_write_msr_safe  (count 1171 to 1172)"],
            ),
        ],
    );
}

#[test]
fn without_a_map_sections_are_named() {
    let folder = Folder::new("audit-sections");
    folder.put("vmlinux", &stock().build());
    folder.put("log", LOG.as_bytes());
    let (_, out, _) = folder.run("audit log --kernel vmlinux");
    for row in [
        "2  .text by .text  (",
        "3  where Linux loads modules and BPF  (",
        "2  MSR 0x2ff by .text  (",
    ] {
        assert!(out.contains(row), "no {row} in {out}");
    }
    let (_, out, _) = folder.run("audit log");
    assert!(out.contains("No --kernel was given"), "{out}");
}

#[test]
fn code_that_a_32_bit_kernel_loads_is_told_from_its_data() {
    let folder = Folder::new("audit-i386");
    folder.put("vmlinux", &small().build());
    let line = |count: u32, gpa: &str, rip: &str| {
        format!(
            "secvisor: violation kind=kernel-fetch cpu=0 gpa={gpa} rip={rip} cr3=0x1000 cpl=0 \
             class=data unit=kernel/.text count={count} info=0x15 audit=no-guarantee-holds\n"
        )
    };
    let log = [
        line(1, "0x101008", "0xc0101008"),
        line(2, "0x5123010", "0xe0812010"),
        line(3, "0x5124010", "0xc5124010"),
    ];
    folder.put("log", log.concat().as_bytes());
    let (code, out, err) = folder.run("audit log --kernel vmlinux");
    assert_eq!((code, err.as_str()), (0, ""));
    let elsewhere = [
        "1  code at 0xc5124010  (count 3 to 3)",
        "1  where Linux loads modules and BPF  (count 2 to 2)",
    ];
    expect(
        &out,
        &[
            ("kernel code that the list leaves out: 1", &["1  .data  (count 1 to 1)"]),
            ("code from elsewhere: 2", &elsewhere),
        ],
    );
}

#[test]
fn devices_ports_and_whole_logs_are_told() {
    let folder = Folder::new("audit-devices");
    let line = |count: u32, kind: &str, gpa: &str, class: &str, info: &str| {
        format!(
            "secvisor: violation kind={kind} cpu=0 gpa={gpa} rip=0xffffffff81000010 cr3=0x1000 cpl=0 \
             class={class} unit=kernel/.text count={count} info={info} audit=no-guarantee-holds\n"
        )
    };
    let boot = [
        line(1, "write", "0xfed00148", "guarded", "0x0"),
        line(2, "port", "-", "-", "0xcd6"),
        line(3, "read", "0x3fc00000", "hidden", "0x0"),
        line(4, "init", "0xfee00300", "guarded", "0xc4500"),
    ]
    .concat();
    folder.put("log", format!("{boot}{boot}").as_bytes());
    let (code, out, _) = folder.run("audit log");
    assert_eq!(code, 0);
    let first = "4 violations read, the last says count=4: none is missing\n(of the last boot;";
    assert!(out.starts_with(first), "{out}");
    let code = "code near kernel/.text";
    expect(
        &out,
        &[
            ("accesses to ports: 1", &[&format!("1  port 0xcd6 by {code}  (count 2 to 2)")]),
            (
                "writes to guarded devices: 1",
                &[&format!("1  0xfed00148 by {code}  (count 1 to 1)")],
            ),
            ("INIT, start-up and SMI: 1", &[&format!("1  0xfee00300 by {code}  (count 4 to 4)")]),
            (
                "accesses to SecVisor's memory: 1",
                &[&format!("1  hidden memory by {code}  (count 3 to 3)")],
            ),
            ("No --kernel was given: the kernel's own code is not told from other code.", &[]),
        ],
    );
    folder.put("empty", b"");
    folder.fails("audit empty", 2, &["no line of SecVisor's log"]);
    folder.put("map", b"0000000000000000 T startup_64\n");
    folder.fails("audit log --map map", 2, &["map: no function with an address"]);
}
