#!/bin/sh
# build.sh OUT_DIR KERNEL_DIR
# Compiles the guest's userland and packs OUT_DIR/initramfs.cpio.gz with it,
# busybox and the modules of KERNEL_DIR. The same files, as a tree, stay in
# OUT_DIR/root.
# Environment: ARCH, x86_64 (the default) or i386, whose programs run on old kernels too;
# CC and BUSYBOX, for x86_64 by default gcc and a static /bin/busybox, for i386 what i386.sh makes.
set -eu

die() {
	echo "userland: $*" >&2
	exit 1
}
[ $# -eq 2 ] || die "usage: build.sh OUT_DIR KERNEL_DIR"
here=$(cd "$(dirname "$0")" && pwd)
out=$1
kernel=$2
case ${ARCH:-x86_64} in
x86_64) set -- "$here/machine64.c" "$here/segments.c" ;;
i386)
	set -- "$here/machine32.c"
	tools=$("$here/i386.sh") || exit 1
	CC=${CC:-$tools/cc}
	BUSYBOX=${BUSYBOX:-$tools/busybox}
	;;
*) die "there is no ARCH=$ARCH, only x86_64 and i386" ;;
esac
cc=${CC:-gcc}
busybox=${BUSYBOX:-/bin/busybox}
command -v "$cc" >/dev/null || die "no compiler $cc (package gcc)"
PATH=$PATH:/sbin:/usr/sbin
for tool in cpio depmod modinfo mke2fs xorriso; do
	command -v $tool >/dev/null || die "no $tool (packages cpio kmod e2fsprogs xorriso)"
done
[ -x "$busybox" ] || die "no $busybox (package busybox-static)"
if readelf -lW "$busybox" 2>/dev/null | grep -q INTERP; then
	die "$busybox is not static (package busybox-static)"
fi
mkdir -p "$out" || die "cannot make $out"
root=$out/root
rm -rf "$root"
mkdir -p "$root/bin" "$root/sbin" "$root/lib/modules" "$root/lib/images" "$root/dev" \
	"$root/proc" "$root/sys" "$root/tmp" "$root/root" "$root/etc"
# compile NAME ARGUMENTS...
compile() {
	name=$1
	shift
	"$cc" -static -O2 -fno-ident -Wl,--build-id=none -s -o "$root/bin/$name" "$@" \
		2>"$out/cc.log" ||
		die "$name does not compile: $(grep -m1 error "$out/cc.log" || head -n1 "$out/cc.log")"
}
compile workload -mno-red-zone -pthread "$here/workload.c" "$here/processor.c" "$@"
compile workload32 -m32 -nostdlib -ffreestanding -fno-pic -no-pie -fno-stack-protector \
	-fno-asynchronous-unwind-tables "$here/workload32.c" "$here/vm86.c"
for name in evil lmbench modtool; do
	compile "$name" "$here/$name.c"
done
compile hole "$here/hole.c" "$here"/hole-*.c
install -m 755 "$here/modules" "$here/exit-qemu" "$here/selfcheck" "$here/../../scripts/check-machine" \
	"$root/bin/"
cp "$busybox" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
install -m 755 "$here/init" "$root/init"
ln -s ../init "$root/sbin/init"
ln -s ../bin/busybox "$root/sbin/modprobe"

# the modules with what modprobe wants to know of them; the unapproved one apart
for module in "$kernel"/modules/*.ko; do
	[ -e "$module" ] || continue
	release=$(modinfo -F vermagic "$module" | cut -d' ' -f1)
	mkdir -p "$root/lib/modules/$release"
	cp "$module" "$root/lib/modules/$release/" || die "cannot copy $module"
done
if [ -n "${release:-}" ]; then
	: >"$root/lib/modules/$release/modules.builtin"
	: >"$root/lib/modules/$release/modules.builtin.modinfo"
	: >"$root/lib/modules/$release/modules.order"
	depmod -b "$root" "$release" || die "depmod does not work"
	rm "$root/lib/modules/$release"/*.bin
fi
if [ -d "$kernel/unapproved" ]; then
	cp -r "$kernel/unapproved" "$root/lib/unapproved"
fi

# file systems to mount, the same bytes each time
truncate -s 8M "$out/ext4"
uuid=5ec00000-0000-0000-0000-000000000000
E2FSPROGS_FAKE_TIME=1 mke2fs -q -t ext4 -b 1024 -J size=1 -U $uuid -E hash_seed=$uuid "$out/ext4" ||
	die "mke2fs does not work"
gzip -9n <"$out/ext4" >"$root/lib/images/ext4.gz"
SOURCE_DATE_EPOCH=1 xorriso -as mkisofs -quiet -R -J -o "$root/lib/images/iso" "$root/init" \
	2>"$out/cc.log" || die "xorriso does not work: $(head -n1 "$out/cc.log")"
chmod -R u=rwX,go=rX "$root"
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort |
	cpio --quiet -o -H newc -R 0:0 --reproducible) >"$out/initramfs.cpio" ||
	die "cannot pack $out/initramfs.cpio"
gzip -9nf <"$out/initramfs.cpio" >"$out/initramfs.cpio.gz" || die "cannot pack"
rm -f "$out/initramfs.cpio" "$out/cc.log" "$out/ext4"
