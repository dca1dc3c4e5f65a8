#!/bin/sh
# build.sh OUT_DIR STORE_DIR
# Builds OUT_DIR/qemu-system-x86_64: QEMU with gmet.patch, TCG only, with the devices of devices.mak.
# Its firmware is that of the installed packages seabios and qemu-system-data. The source is kept in
# STORE_DIR. It is the one that QEMU 10.0.2 of Debian 12's backports is built from, which the tests
# run too, so that the patch is all that tells the two apart.
# Environment: JOBS=N (number of CPUs).
set -eu

die() {
	echo "error: $*" >&2
	exit 1
}
[ $# -eq 2 ] || die "usage: build.sh OUT_DIR STORE_DIR"
version=10.0.2
tarball=qemu_$version+ds.orig.tar.xz
sha256=0901da33844a331bf8b3602b9c1fbd178e60b737c8e3ade678255bd090c9b9f1
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" "$2" || die "cannot write to $1 and $2"
out=$(cd "$1" && pwd)
source=$(cd "$2" && pwd)/$tarball
work=$out/work
python=/usr/bin/python3

for tool in gcc ninja pkg-config patch xz "$python"; do
	command -v "$tool" >/dev/null || missing="${missing:-} $tool"
done
for library in glib-2.0 pixman-1 zlib; do
	pkg-config --exists "$library" 2>/dev/null || missing="${missing:-} $library"
done
[ -z "${missing:-}" ] ||
	die "missing:$missing (packages gcc ninja-build pkg-config patch xz-utils python3-venv libglib2.0-dev libpixman-1-dev zlib1g-dev; scripts/test installs them)"
free=$(df -Pk "$out" | awk 'NR == 2 { print int($4 / 1024) }')
[ "$free" -ge 1000 ] || die "not enough space in $out: $free MB free, 1000 MB needed"

is_right() {
	[ -e "$source" ] && echo "$sha256  $source" | sha256sum --check --status
}
# From the mirror that this machine's apt uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1)
is_right || {
	/usr/lib/apt/apt-helper download-file "${mirror%/}/pool/main/q/qemu/$tarball" "$source.part" \
		"SHA256:$sha256" && mv "$source.part" "$source" || rm -f "$source.part"*
}
is_right ||
	die "cannot get $tarball with SHA-256 $sha256 from '$mirror': see the lines above; where that mirror no longer has it, put it into $2 by hand, from Debian's archive of past packages"

rm -rf "$work"
mkdir -p "$work/build"
tar -C "$work" -xf "$source" --exclude='*/roms/*' || die "$source cannot be unpacked"
src=$work/qemu-$version
patch -d "$src" -p1 --fuzz=0 <"$here/gmet.patch" || die "gmet.patch does not apply to QEMU $version"
# Firmware that Debian leaves out of the source is unpacked all the same.
sed -i 's/^\( *unpack_edk2_blobs = \)bzip2.found()$/\1false/' "$src/meson.build"
cp "$here/devices.mak" "$src/configs/devices/x86_64-softmmu/secvisor.mak"
"$python" -m venv "$work/pip" || die "python3 makes no environment (package python3-venv)"
"$work/pip/bin/pip" download --no-deps --require-hashes --only-binary :all: \
	-r "$here/requirements.txt" -d "$src/python/wheels" || die "cannot get meson from PyPI"

cd "$work/build"
"$src/configure" --python="$python" --target-list=x86_64-softmmu --disable-download \
	--without-default-features --enable-system --enable-tcg --enable-pixman --disable-fdt \
	--without-default-devices --with-devices-x86_64=secvisor \
	--enable-trace-backends=nop --disable-install-blobs --disable-debug-info --prefix=/usr/local \
	--firmwarepath=/usr/share/qemu:/usr/share/seabios || die "QEMU cannot be configured"
ninja -j "${JOBS:-$(nproc)}" qemu-system-x86_64 || die "QEMU does not compile"
strip -o "$out/qemu-system-x86_64" qemu-system-x86_64
cd "$out"
rm -rf "$work"
"$out/qemu-system-x86_64" -cpu help | grep -qw gmet || die "the emulator knows no gmet"
