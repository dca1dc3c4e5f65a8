# Sourced by scripts/run, test and bench: installs what this machine lacks (Debian 12, root or sudo),
# finds a Rust toolchain that builds for the bare-metal target, and says each long step's time.
# Idempotent; the second time it only looks. Sets PATH and, where needed, RUSTUP_TOOLCHAIN.

SECVISOR_ROOT=$(cd "$(dirname "$0")/.." && pwd)
SECVISOR_CWD=$PWD
SECVISOR_CACHE=${SECVISOR_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/secvisor}
export SECVISOR_ROOT SECVISOR_CWD SECVISOR_CACHE
# The hypervisor and the 64-bit attack guest; the 32-bit one, which uses none of that target's system.
SV_TARGETS="x86_64-unknown-none i586-unknown-linux-gnu"
SV_LOG=$SECVISOR_CACHE/setup.log
SV_QEMU_NOTE=$SECVISOR_CACHE/no-qemu-10

# What the build and the guest need; then what only a second emulator or a nicer QEMU needs.
SV_PACKAGES="gcc gcc-multilib libc6-dev make flex bison bc libelf-dev libssl-dev cpio xz-utils patch
 quilt rsync kmod linux-source-6.1 busybox-static grub-common grub-pc-bin grub-efi-amd64-bin xorriso
 mtools ovmf e2fsprogs lld ca-certificates"
SV_OPTIONAL="bochs bochsbios vgabios"
# What tests/emulator/build.sh needs beside them, where SV_EMULATOR is set.
SV_BUILDS_QEMU="ninja-build pkg-config python3-venv libglib2.0-dev libpixman-1-dev zlib1g-dev"
SV_RUST="rustc-web cargo-web rust-web-src rust-web-clippy rustfmt-web"

sv_die() {
    echo "secvisor setup: $*" >&2
    exit 1
}

# sv_step WHAT COMMAND...: runs it with its output in the log and its elapsed time on the terminal.
sv_step() {
    sv_what=$1
    shift
    sv_start=$(date +%s)
    "$@" >>"$SV_LOG" 2>&1 </dev/null &
    sv_pid=$!
    [ -t 2 ] || echo "setup: $sv_what ..." >&2
    while kill -0 "$sv_pid" 2>/dev/null; do
        [ -t 2 ] && printf '\rsetup: %s ... %s s ' "$sv_what" "$(($(date +%s) - sv_start))" >&2
        sleep 0.5
    done
    sv_code=0
    wait "$sv_pid" || sv_code=$?
    [ -t 2 ] && printf '\r' >&2
    [ "$sv_code" = 0 ] && sv_word="done" || sv_word="did not work"
    echo "setup: $sv_what: $sv_word after $(($(date +%s) - sv_start)) s" >&2
    return "$sv_code"
}

# sv_root WHY COMMAND...: as root, by sudo if need be.
sv_root() {
    sv_why=$1
    shift
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        echo "E: $sv_why needs root or sudo"
        return 1
    fi
}

sv_need_root() {
    [ "$(id -u)" = 0 ] && return
    command -v sudo >/dev/null || sv_die "$1 needs root or sudo; as root: $2"
    sudo -v || sv_die "$1 needs root and sudo refused; as root: $2"
}

# The packages of the list that are not installed.
sv_missing() {
    # shellcheck disable=SC2086
    dpkg-query -W -f '${Package} ${db:Status-Status}\n' $1 2>/dev/null |
        awk -v want="$1" '
            $2 == "installed" { have[$1] = 1 }
            END { n = split(want, w); for (i = 1; i <= n; i++) if (!have[w[i]]) printf "%s ", w[i] }'
}

sv_apt_update() {
    [ -n "${sv_updated:-}" ] && return
    sv_updated=1
    sv_step "reading the package lists" sv_root "apt-get" apt-get update -q \
        -o APT::Update::Error-Mode=any || sv_offline=" (package lists could not be read: no network?)"
}

sv_apt_install() {
    sv_root "apt-get" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "$@"
}

# The last error that a step gave, on one line.
sv_reason() {
    echo "$(sed -n 's/^[Ee]\(rror\)\?: //p' "$SV_LOG" | tail -1 | cut -c1-160)${sv_offline:-}"
}

# sv_install WHAT PACKAGES...
sv_install() {
    sv_label=$1
    shift
    sv_need_root "installing $sv_label" "apt-get install $*"
    sv_apt_update
    sv_step "installing $sv_label ($# packages)" sv_apt_install "$@"
}

sv_packages() {
    sv_list=$(sv_missing "$SV_PACKAGES ${SV_EMULATOR:+$SV_BUILDS_QEMU}")
    # shellcheck disable=SC2086
    if [ -n "$sv_list" ]; then
        sv_install "packages for the build" $sv_list ||
            sv_die "could not install ${sv_list% }: $(sv_reason) (log: $SV_LOG)"
    fi
    sv_list=$(sv_missing "$SV_OPTIONAL")
    [ -z "$sv_list" ] || [ -e "$SECVISOR_CACHE/no-bochs" ] && return
    # shellcheck disable=SC2086
    sv_install "the second emulator" $sv_list || : >"$SECVISOR_CACHE/no-bochs"
}

sv_qemu_major() {
    qemu-system-x86_64 --version 2>/dev/null | sed -n '1s/.*version \([0-9]*\).*/\1/p'
}

# Writes the backports entry: this machine's own Debian entry with the suite changed.
sv_backports_entry() {
    sv_suite=$1
    sv_dir=/etc/apt/sources.list.d
    grep -rqs "^[^#]*$sv_suite-backports" /etc/apt/sources.list "$sv_dir" && return
    sv_entry=$(mktemp)
    for sv_file in "$sv_dir"/*.sources; do
        [ -e "$sv_file" ] || continue
        awk -v code="$sv_suite" 'BEGIN { RS = ""; suite = "(^|\n)Suites:([^\n]* )?" code "( [^\n]*)?(\n|$)" }
            $0 ~ suite && $0 ~ /(^|\n)Types:[^\n]*deb/ && $0 !~ /(^|\n)Enabled: *no/ {
                gsub(/(^|\n)#[^\n]*/, ""); sub(/^\n/, "")
                sub(/Suites:[^\n]*/, "Suites: " code "-backports"); print; exit
            }' "$sv_file" >"$sv_entry"
        [ -s "$sv_entry" ] && sv_to=$sv_dir/secvisor-backports.sources && break
    done
    if [ ! -s "$sv_entry" ]; then
        sv_to=$sv_dir/secvisor-backports.list
        cat /etc/apt/sources.list "$sv_dir"/*.list 2>/dev/null |
            sed -nE "s/^(deb +(\[[^]]*\] +)?[^ ]+ +)$sv_suite( +main.*)$/\1$sv_suite-backports\3/p" |
            head -1 >"$sv_entry"
    fi
    sv_code=0
    { [ -s "$sv_entry" ] && sv_root "adding backports" install -m 644 "$sv_entry" "$sv_to"; } ||
        sv_code=1
    rm -f "$sv_entry"
    return $sv_code
}

# QEMU 10 from backports; else Debian's own.
sv_qemu() {
    sv_have=$(sv_qemu_major)
    [ "${sv_have:-0}" -ge 10 ] && return
    sv_suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    if [ ! -e "$SV_QEMU_NOTE" ]; then
        sv_need_root "installing QEMU" "apt-get install qemu-system-x86"
        if sv_backports_entry "$sv_suite" >>"$SV_LOG" 2>&1; then
            sv_updated=
            sv_apt_update
            sv_step "installing QEMU from backports" \
                sv_apt_install -t "$sv_suite-backports" qemu-system-x86 || true
        fi
        sv_have=$(sv_qemu_major)
        [ "${sv_have:-0}" -ge 10 ] && return
        mkdir -p "$SECVISOR_CACHE" && : >"$SV_QEMU_NOTE"
    fi
    [ -n "$sv_have" ] || sv_install "QEMU" qemu-system-x86 ||
        sv_die "could not install QEMU: $(sv_reason) (log: $SV_LOG)"
    echo "setup: QEMU $(sv_qemu_major) instead of 10: what needs its INVD, ICEBP and XSETBV" \
        "intercepts is skipped (remove $SV_QEMU_NOTE to try again)" >&2
}

# The bare-metal targets that the rustc which PATH and RUSTUP_TOOLCHAIN name cannot compile and link for.
sv_missing_targets() {
    sv_probe=$(mktemp -d)
    printf '%s\n' '#![no_std]' '#![no_main]' '#[panic_handler]' \
        'fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }' >"$sv_probe/probe.rs"
    for sv_target in $SV_TARGETS; do
        (cd "$SECVISOR_ROOT" && RUSTUP_AUTO_INSTALL=0 rustc --target "$sv_target" -C panic=abort \
            -C linker=rust-lld -C linker-flavor=ld.lld -C relocation-model=static \
            -o "$sv_probe/probe" "$sv_probe/probe.rs") >/dev/null 2>&1 || echo "$sv_target"
    done
    rm -rf "$sv_probe"
}

sv_targets_work() {
    [ -z "$(sv_missing_targets)" ]
}

# The ordinary way: rustup fetches the pinned toolchain and its target.
sv_by_rustup() {
    sv_channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$SECVISOR_ROOT/rust-toolchain.toml")
    # shellcheck disable=SC2046,SC2086
    RUSTUP_MAX_RETRIES=0 RUSTUP_DOWNLOAD_TIMEOUT=30 timeout 900 rustup toolchain install \
        "$sv_channel" --profile minimal -c clippy -c rustfmt $(printf -- '-t %s ' $SV_TARGETS)
}

# Debian's rustc and sources: builds a target's core once and puts it where rustc looks for it.
sv_build_core() {
    sv_target=$1
    sv_crate=$(mktemp -d)
    mkdir "$sv_crate/src"
    printf '%s\n' '[package]' 'name = "core-build"' 'edition = "2021"' '[profile.release]' \
        'panic = "abort"' '[workspace]' >"$sv_crate/Cargo.toml"
    echo '#![no_std]' >"$sv_crate/src/lib.rs"
    (cd "$sv_crate" && env -u RUSTUP_TOOLCHAIN PATH=/usr/bin:/bin RUSTC_BOOTSTRAP=1 \
        CARGO_TARGET_DIR="$sv_crate/target" RUSTFLAGS='-C embed-bitcode=yes' cargo build --release \
        --target "$sv_target" -Zbuild-std=core,alloc,compiler_builtins \
        -Zbuild-std-features=compiler-builtins-mem) || return 1
    sv_lib=/usr/lib/rustlib/$sv_target/lib
    sv_bin=/usr/lib/rustlib/x86_64-unknown-linux-gnu/bin
    sv_root "installing core" mkdir -p "$sv_lib" "$sv_bin" &&
        sv_root "installing core" find "$sv_lib" -name '*.rlib' -delete &&
        sv_root "installing core" install -m 644 -t "$sv_lib" \
            "$sv_crate/target/$sv_target/release/deps/"lib{core,alloc,compiler_builtins}-*.rlib &&
        sv_root "installing a linker" ln -sf /usr/bin/lld "$sv_bin/rust-lld"
    sv_code=$?
    rm -rf "$sv_crate"
    return $sv_code
}

sv_use_debian() {
    if command -v rustup >/dev/null; then
        [ -x /usr/bin/cargo ] || return 1
        [ -d "${RUSTUP_HOME:-$HOME/.rustup}/toolchains/debian" ] ||
            rustup toolchain link debian /usr >>"$SV_LOG" 2>&1 || return 1
        export RUSTUP_TOOLCHAIN=debian
    else
        PATH=/usr/bin:$PATH
    fi
}

sv_toolchain() {
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    export PATH
    # What is there already comes first, so that nothing is fetched the second time.
    sv_targets_work && return
    sv_given=${RUSTUP_TOOLCHAIN:-}
    sv_use_debian && sv_targets_work && return
    if command -v rustup >/dev/null; then
        unset RUSTUP_TOOLCHAIN
        [ -z "$sv_given" ] || export RUSTUP_TOOLCHAIN="$sv_given"
        sv_step "fetching the Rust toolchain by rustup" sv_by_rustup && sv_targets_work && return
        unset RUSTUP_TOOLCHAIN
        sv_targets_work && return
    fi
    sv_list=$(sv_missing "$SV_RUST")
    # shellcheck disable=SC2086
    [ -z "$sv_list" ] || sv_install "Debian's Rust" $sv_list ||
        sv_die "no Rust toolchain to be had: $(sv_reason) (log: $SV_LOG)"
    sv_need_root "installing the bare-metal core library" "scripts/run"
    sv_use_debian || sv_die "Debian's Rust cannot be used (log: $SV_LOG)"
    for sv_lacking in $(sv_missing_targets); do
        sv_step "building the core library for $sv_lacking" sv_build_core "$sv_lacking" ||
            sv_die "the core library did not build: $(sv_reason) (log: $SV_LOG)"
    done
    if ! sv_targets_work; then
        sv_die "no Rust toolchain here builds for $(sv_missing_targets) (log: $SV_LOG)"
    fi
}

[ "$(uname -m)" = x86_64 ] || sv_die "this needs an x86_64 machine, this is $(uname -m)"
command -v apt-get >/dev/null || sv_die "this needs Debian's apt-get"
sv_writable() {
    mkdir -p "$SECVISOR_CACHE" && : >"$SV_LOG"
}
sv_writable 2>/dev/null ||
    sv_die "cannot write to $SECVISOR_CACHE (set SECVISOR_CACHE to a folder with 4 GB of room)"
sv_packages
sv_qemu
sv_toolchain
# Paths in the tools' arguments are the caller's; cargo and rustup need the checkout's files.
cd "$SECVISOR_ROOT" || exit 1
[ -x "${CARGO_TARGET_DIR:-target}/debug/xtask" ] ||
    sv_step "building the task runner" cargo build -p xtask ||
    sv_die "the task runner did not build: $(sv_reason) (log: $SV_LOG)"
