#!/bin/sh
# build.sh OUT_DIR MODULES_DIR
# Compiles the guest's userland and packs OUT_DIR/initramfs.cpio.gz with it,
# busybox and MODULES_DIR/*.ko. The same files, as a tree, stay in OUT_DIR/root.
# Environment: CC (gcc), BUSYBOX (/bin/busybox, a static one).
set -eu

die() {
	echo "userland: $*" >&2
	exit 1
}
[ $# -eq 2 ] || die "usage: build.sh OUT_DIR MODULES_DIR"
here=$(cd "$(dirname "$0")" && pwd)
out=$1
modules=$2
cc=${CC:-gcc}
busybox=${BUSYBOX:-/bin/busybox}
command -v "$cc" >/dev/null || die "no compiler $cc (package gcc)"
command -v cpio >/dev/null || die "no cpio (package cpio)"
[ -x "$busybox" ] || die "no $busybox (package busybox-static)"
if readelf -lW "$busybox" 2>/dev/null | grep -q INTERP; then
	die "$busybox is not static (package busybox-static)"
fi
mkdir -p "$out" || die "cannot make $out"
root=$out/root
rm -rf "$root"
mkdir -p "$root/bin" "$root/sbin" "$root/lib/modules" "$root/dev" "$root/proc" \
	"$root/sys" "$root/tmp" "$root/root" "$root/etc"
for name in workload evil exit-qemu; do
	"$cc" -static -O2 -mno-red-zone -fno-ident -Wl,--build-id=none -pthread -s \
		-o "$root/bin/$name" "$here/$name.c" 2>"$out/cc.log" ||
		die "$name.c does not compile: $(grep -m1 error "$out/cc.log" || head -n1 "$out/cc.log")"
done
cp "$busybox" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
install -m 755 "$here/init" "$root/init"
ln -s ../init "$root/sbin/init"
for module in "$modules"/*.ko; do
	[ -e "$module" ] || continue
	cp "$module" "$root/lib/modules/" || die "cannot copy $module"
done
chmod -R u=rwX,go=rX "$root"
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort |
	cpio --quiet -o -H newc -R 0:0 --reproducible) >"$out/initramfs.cpio" ||
	die "cannot pack $out/initramfs.cpio"
gzip -9nf <"$out/initramfs.cpio" >"$out/initramfs.cpio.gz" || die "cannot pack"
rm -f "$out/initramfs.cpio" "$out/cc.log"
