#!/bin/sh
# build.sh SOURCE OUT_DIR
# Builds the guest kernel from SOURCE, Debian's linux-source-6.1.tar.xz or its
# unpacked directory (which stays as it is). Leaves in OUT_DIR: vmlinux, bzImage,
# System.map, config, modules/*.ko and build.log. The same input gives the same
# bytes, wherever OUT_DIR is. With demo.config the module that nobody approves lies in
# OUT_DIR/unapproved, for the approval list takes all of OUT_DIR/modules.
# Environment: ARCH, x86_64 (the default) or i386; DEMO=no leaves demo.config out; JOBS=N (number of
# CPUs); KEEP=yes keeps the build tree; CC (gcc); MORE, the path of one more fragment.
set -eu

start=$(date +%s)
say() {
	t=$(($(date +%s) - start))
	printf 'linux-6.1: [%d:%02d] %s\n' $((t / 60)) $((t % 60)) "$*"
}
die() {
	echo "linux-6.1: $*" >&2
	exit 1
}
[ $# -eq 2 ] || die "usage: build.sh SOURCE OUT_DIR"
here=$(cd "$(dirname "$0")" && pwd)
arch=${ARCH:-x86_64}
[ -e "$here/config.$arch" ] || die "there is no ARCH=$arch, only x86_64 and i386"
[ -e "$1" ] || die "no kernel source at $1 (package linux-source-6.1)"
source=$(realpath "$1")
mkdir -p "$2" || die "cannot make $2"
out=$(cd "$2" && pwd)
log=$out/build.log
jobs=${JOBS:-$(nproc)}
case $out in *[[:space:]:]*) die "the kernel cannot be built in a path with blanks or colons: $out" ;; esac
for tool in make "${CC:-gcc}" ld bc flex bison patch tar xz strip; do
	command -v "$tool" >/dev/null || die "$tool is missing (packages build-essential bc flex bison patch xz-utils)"
done
[ -e /usr/include/libelf.h ] || die "libelf.h is missing (package libelf-dev)"
free=$(df -Pk "$out" | awk 'NR == 2 { print int($4 / 1024) }')
[ "$free" -ge 2000 ] || die "not enough space in $out: $free MB free, 2000 MB needed"
: >"$log" || die "cannot write $log"

make_pid=
stop() {
	[ -z "$make_pid" ] || kill "$make_pid" 2>/dev/null || :
	exit 130
}
trap stop INT TERM HUP

say "unpacking the source"
rm -rf "$out/src" "$out/obj" "$out/modules" "$out/unapproved"
rm -f "$out/vmlinux" "$out/bzImage" "$out/System.map" "$out/config"
mkdir -p "$out/src" "$out/obj" "$out/modules"
# what this kernel never compiles need not be unpacked, but for its Kconfig files
set -- --exclude=.git
for name in alpha arc arm arm64 csky hexagon ia64 loongarch m68k microblaze mips \
	nios2 openrisc parisc powerpc riscv s390 sh sparc um xtensa; do
	set -- "$@" --exclude="*/arch/$name/*.[chS]"
done
for name in drivers/gpu drivers/infiniband drivers/media drivers/net/wireless \
	drivers/staging sound; do
	set -- "$@" --exclude="*/$name/*.[ch]"
done
set -- "$@" --exclude='*/Documentation/*.[rtys]*' --exclude='*.dts' --exclude='*.dtsi'
if [ -d "$source" ]; then
	(cd "$source" && exec tar -c .) 2>>"$log"
else
	xz -dc "$source" 2>>"$log"
fi | tar -x -C "$out/src" "$@" 2>>"$log" || die "cannot unpack $source; see $log"
src=$out/src
[ -e "$src/Makefile" ] || src=$(echo "$out"/src/*)
[ -e "$src/Makefile" ] || die "no kernel source in $source"

say "applying the series"
while read -r name; do
	case $name in '' | '#'*) continue ;; esac
	patch -d "$src" -p1 --no-backup-if-mismatch -N -s <"$here/$name" >>"$log" 2>&1 ||
		die "$name does not apply to $source; see $log"
done <"$here/series"

export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_USER=secvisor KBUILD_BUILD_HOST=secvisor LC_ALL=C
unset MAKEFLAGS MAKELEVEL KCONFIG_CONFIG || :
kmake() {
	make -C "$src" O="$out/obj" ARCH="$arch" LOCALVERSION= CC="${CC:-gcc}" "$@" >>"$log" 2>&1
}

say "configuring"
fragments="$here/config $here/config.$arch"
[ "${DEMO:-yes}" = no ] || fragments="$fragments $here/demo.config"
fragments="$fragments ${MORE:-}"
kmake tinyconfig || die "tinyconfig failed; see $log"
# shellcheck disable=SC2086
(cd "$src" && exec scripts/kconfig/merge_config.sh -m -O "$out/obj" "$out/obj/.config" $fragments) \
	>>"$log" 2>&1 || die "the configuration does not merge; see $log"
kmake olddefconfig || die "olddefconfig failed; see $log"
# shellcheck disable=SC2086
sed -n 's/^# \(CONFIG_[A-Z0-9_]*\) is not set/\1=n/p; /^CONFIG_/p' $fragments |
	awk -F= '{ want[$1] = substr($0, length($1) + 2) }
		END { for (k in want) print k "=" want[k] }' | sort >"$out/obj/wanted"
while IFS= read -r line; do
	case $line in
	*=n) ! grep -q "^${line%=n}=" "$out/obj/.config" ;;
	*) grep -qxF "$line" "$out/obj/.config" ;;
	esac || die "the configuration refuses $line"
done <"$out/obj/wanted"

say "compiling with $jobs jobs (some minutes)"
kmake -j"$jobs" vmlinux bzImage modules &
make_pid=$!
next=$(($(date +%s) + 15))
while kill -0 "$make_pid" 2>/dev/null; do
	sleep 1
	if [ "$(date +%s)" -ge "$next" ]; then
		next=$((next + 15))
		say "compiling, $(grep -cE '^  (CC|AS|LD) ' "$log" || :) files done"
	fi
done
wait "$make_pid" || die "the kernel does not build: $(grep -m1 -E 'error|Error' "$log" || tail -n1 "$log")"
make_pid=

say "collecting"
{
	strip -g -o "$out/vmlinux.tmp" "$out/obj/vmlinux"
	find "$out/obj" -name '*.ko' -exec cp {} "$out/modules/" \;
	strip -g "$out"/modules/*.ko
	if [ -e "$out/modules/secvisor_demo_unapproved.ko" ]; then
		mkdir -p "$out/unapproved"
		mv "$out/modules/secvisor_demo_unapproved.ko" "$out/unapproved/"
	fi
	cp "$out/obj/arch/x86/boot/bzImage" "$out/obj/System.map" "$out/"
	cp "$out/obj/.config" "$out/config"
	mv "$out/vmlinux.tmp" "$out/vmlinux"
} >>"$log" 2>&1 || die "cannot collect the results; see $log"
[ "${KEEP:-no}" = yes ] || rm -rf "$out/src" "$out/obj"
say "done"
