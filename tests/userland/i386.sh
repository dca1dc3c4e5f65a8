#!/bin/sh
# i386.sh: makes once, and names, the folder with what the guest's 32-bit programs are built with
# and from: `cc`, a compiler of static programs against musl, for glibc refuses to run on Linux
# 2.6, and `busybox`, built by it. Both come from Debian's own archive, by this machine's entry
# for it, without a change to the machine.
# Environment: SECVISOR_CACHE (~/.cache/secvisor), JOBS (number of CPUs).
set -eu

die() {
	echo "userland i386: $*" >&2
	exit 1
}
[ $# -eq 0 ] || die "usage: i386.sh"
here=$(cd "$(dirname "$0")" && pwd)
cache=${SECVISOR_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/secvisor}
for tool in apt-get dpkg-deb gcc make tar sha256sum; do
	command -v $tool >/dev/null || die "no $tool (packages apt dpkg gcc make tar coreutils)"
done
libgcc=$(gcc -m32 -print-libgcc-file-name)
[ -e "$libgcc" ] || die "gcc builds no 32-bit programs here (package gcc-multilib)"
key=$({ cat "$0" "$here/busybox.config" && gcc --version; } | sha256sum | cut -c1-16)
ready=$cache/userland-i386-$key
if [ -d "$ready" ]; then
	echo "$ready"
	exit
fi
mkdir -p "$cache" || die "cannot write to $cache"
out=$(mktemp -d "$cache/building-userland-i386.XXXXXX")
log=$cache/userland-i386.log
trap 'rm -rf "$out"' EXIT
trap 'exit 130' INT TERM HUP
: >"$log"

# ---- packages, by an apt of its own ----

# This machine's entry for the release's main archive, one line as sources.list has them.
suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
entry() {
	cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
		sed -nE "s/^deb +(\[[^]]*\] +)?([^ ]+) +$suite +main.*$/\1\2/p" |
		sed -E 's/arch=[^] ]* *//; s/^\[ *\] *//'
	for file in /etc/apt/sources.list.d/*.sources; do
		[ -e "$file" ] || continue
		awk -v suite="$suite" 'BEGIN { RS = ""; FS = "\n" } {
			split("", field)
			for (i = 1; i <= NF; i++)
				if ($i ~ /^[A-Za-z-]+:/) {
					name = value = $i
					sub(/:.*/, "", name); sub(/^[^:]*: */, "", value)
					field[tolower(name)] = value
				}
			if ((" " field["suites"] " ") !~ " " suite " " || field["enabled"] == "no" ||
			    field["types"] !~ /deb/ || field["components"] !~ /main/)
				next
			split(field["uris"], uri, " ")
			key = field["signed-by"]
			print (key ~ /^\// ? "[signed-by=" key "] " : "") uri[1]
		}' "$file"
	done
}
from=$(entry | head -n1)
[ -n "$from" ] || die "no entry for Debian's $suite main in /etc/apt/sources.list or sources.list.d"
mkdir -p "$out/apt/lists/partial" "$out/apt/archives/partial" "$out/get"
printf '%s\n' "deb $from $suite main" "deb-src $from $suite main" >"$out/apt/sources.list"
: >"$out/apt/status"
cat >"$out/apt/conf" <<EOF
APT::Architecture "i386";
APT::Architectures { "i386"; };
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
Dir::State "$out/apt";
Dir::State::status "$out/apt/status";
Dir::Cache "$out/apt";
Dir::Etc::sourcelist "$out/apt/sources.list";
Dir::Etc::sourceparts "-";
EOF
get() {
	(cd "$out/get" && exec env APT_CONFIG="$out/apt/conf" apt-get -q "$@") >>"$log" 2>&1 ||
		die "apt-get $*: $(sed -n 's/^E: //p' "$log" | tail -n1) (log: $log)"
}
echo "userland i386: fetching musl and busybox" >&2
get update
get download musl-dev
get source --download-only busybox

# ---- the compiler ----

dpkg-deb -x "$out"/get/musl-dev_*.deb "$out/musl" >>"$log" 2>&1 || die "cannot unpack musl-dev"
mkdir "$out/include"
mv "$out/musl/usr/include/i386-linux-musl" "$out/include/musl"
mv "$out/musl/usr/lib/i386-linux-musl" "$out/lib"
# the kernel's headers, which are the same for both widths
mkdir "$out/include/linux"
asm=$(gcc -print-multiarch)/asm
for name in linux asm-generic mtd "$asm"; do
	[ -d "/usr/include/$name" ] || die "no /usr/include/$name (package linux-libc-dev)"
	ln -s "/usr/include/$name" "$out/include/linux/"
done
cat >"$out/specs" <<'EOF'
*startfile:
%:getenv(SV_LIB /crt1.o) %:getenv(SV_LIB /crti.o)

*endfile:
%:getenv(SV_LIB /crtn.o)

EOF
# i686: the least that its kernels run on, and no SSE, which not all of them keep
cat >"$out/cc" <<'EOF'
#!/bin/sh
d=$(dirname "$0")
SV_LIB=$d/lib exec gcc -m32 -march=i686 -mtune=generic -fno-pie -no-pie -static \
	-specs="$d/specs" -L"$d/lib" -nostdinc -isystem "$d/include/musl" \
	-isystem "$d/include/linux" -isystem "$(gcc -print-file-name=include)" "$@"
EOF
chmod +x "$out/cc"

# ---- busybox ----

echo "userland i386: building busybox" >&2
mkdir "$out/src"
tar -xf "$out"/get/busybox_*.orig.tar.* -C "$out/src" --strip-components=1
bmake() {
	make -C "$out/src" ARCH=i386 CC="$out/cc" HOSTCC=gcc "$@" >>"$log" 2>&1 ||
		die "busybox does not build: $(grep -m1 -i error "$log" || tail -n1 "$log") (log: $log)"
}
unset MAKEFLAGS MAKELEVEL || :
export KCONFIG_NOTIMESTAMP=1 SOURCE_DATE_EPOCH=0 LC_ALL=C
bmake allnoconfig </dev/null
# its merge: lines of the fragment instead of those that name the same option
awk 'match($0, /CONFIG_[A-Z0-9_]+/) && !seen[substr($0, RSTART, RLENGTH)]++' "$here/busybox.config" \
	"$out/src/.config" >"$out/config"
mv "$out/config" "$out/src/.config"
yes '' 2>/dev/null | head -n 2000 >"$out/answers"
bmake oldconfig <"$out/answers"
grep '^CONFIG_' "$here/busybox.config" | while IFS= read -r line; do
	grep -qxF "$line" "$out/src/.config" || die "busybox refuses $line"
done
bmake -j"${JOBS:-$(nproc)}" busybox
cp "$out/src/busybox" "$out/busybox"

rm -rf "$out/answers" "$out/src" "$out/get" "$out/apt" "$out/musl"
mv "$out" "$ready" 2>/dev/null || [ -d "$ready" ] || die "cannot write $ready"
trap - EXIT
echo "$ready"
