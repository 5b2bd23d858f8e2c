#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ops/guest/build.sh OUT CACHE [PROFILE [PROGRAM...]] - a guest: Debian's kernel, and an initramfs
# with busybox, servers and the virtio modules, made of Debian packages alone.
#
#   stock    the cloud kernel and redis
#   work     the same, for measures that bring their own PROGRAMs
#   smp      the same with stress-ng, pigz, xz and nginx
#   generic  as smp, with the kernel for real hardware
#
# OUT receives vmlinuz, initrd.img, kernel.config and packages.txt (package, version, SHA-256 of
# each deb). Debs are kept in CACHE together with a lock file that pins them: a second build asks
# no mirror and gives the same bytes. GUEST_REFRESH=1 forgets the lock and takes what apt offers.
# PROGRAMs (static) are put into /usr/bin.
set -euo pipefail
export LC_ALL=C
umask 022

out=$1
cache=$2
profile=${3:-stock}
shift $(($# < 3 ? $# : 3))
here=$(cd "$(dirname "$0")" && pwd)
lock=$cache/packages-$profile.lock # lines: package version sha256 file
mkdir -p "$out" "$cache"
work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT

say() { echo "guest: $*"; }
die() { echo "guest: $*" >&2; exit 1; }

modules=(virtio_pci virtio_net virtio_blk virtio_console virtio_rng)
image=linux-image-cloud-amd64
packages=(redis-server redis-tools)
programs=(usr/bin/redis-server usr/bin/redis-cli)
case $profile in
stock | work) ;;
smp | generic)
    packages+=(stress-ng pigz xz-utils nginx)
    programs+=(usr/bin/redis-benchmark usr/bin/stress-ng usr/bin/pigz usr/bin/xz usr/sbin/nginx)
    [ "$profile" = generic ] && image=linux-image-amd64
    ;;
*) die "no profile '$profile': stock, work, smp or generic" ;;
esac

# The packages a package's programs may link to: its Depends, followed through lib* only, the
# first of each choice of alternatives.
lib_closure() {
    local todo=("$@") seen=" " p d
    while [ ${#todo[@]} -gt 0 ]; do
        p=${todo[0]}
        todo=("${todo[@]:1}")
        [[ $seen == *" $p "* ]] && continue
        seen+="$p "
        echo "$p"
        for d in $(apt-cache depends "$p" | awk '
            /^ [ |]Depends:/ { if (!alt && $2 ~ /^z?lib/) print $2; alt = ($1 ~ /^\|/) }'); do
            todo+=("$d")
        done
    done
}

locked_debs_present() {
    [ -z "${GUEST_REFRESH:-}" ] && [ -s "$lock" ] || return 1
    awk -v d="$cache" '{print $3 "  " d "/" $4}' "$lock" | sha256sum -c --status 2>/dev/null
}

resolve_kernel() {
    apt-cache depends "$image" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

fetch() {
    local kernel p version sha file
    kernel=$(resolve_kernel)
    if [ -z "$kernel" ]; then
        say "no package lists: apt-get update"
        apt-get update >"$cache/apt-update.log" 2>&1 || die "apt-get update failed ($cache/apt-update.log)"
        kernel=$(resolve_kernel)
    fi
    [ -n "$kernel" ] || die "apt knows no $image"
    : >"$lock.new"
    for p in "$kernel" busybox-static $(lib_closure "${packages[@]}"); do
        read -r version sha < <(apt-cache show --no-all-versions "$p" | awk '
            /^Version:/ { v = $2 } /^SHA256:/ { s = $2 } END { print v, s }')
        [ -n "$version" ] && [ -n "$sha" ] || die "apt knows no package $p"
        file=${p}_${version//[:~+]/_}.deb
        if [ "$(sha256sum "$cache/$file" 2>/dev/null | cut -d' ' -f1)" != "$sha" ]; then
            (cd "$work" && apt-get download "$p=$version" >download.log 2>&1) ||
                { tail -n 5 "$work/download.log" >&2; die "cannot download $p $version"; }
            mv "$work/$p"_*.deb "$cache/$file"
            [ "$(sha256sum "$cache/$file" | cut -d' ' -f1)" = "$sha" ] ||
                die "$p $version does not have the SHA-256 that apt states"
        fi
        echo "$p $version $sha $file" >>"$lock.new"
    done
    mv "$lock.new" "$lock"
}

locked_debs_present || fetch
awk '{print $1, $2, $3}' "$lock" >"$out/packages.txt"
while read -r p version sha; do
    say "$p $version sha256 $sha"
done <"$out/packages.txt"

debs=$work/debs
root=$work/root
mkdir -p "$debs" "$root"/{bin,dev,etc,proc,sys,run,tmp,lib/modules,lib64,usr/bin,mnt}
while read -r _ _ _ file; do
    dpkg -x "$cache/$file" "$debs"
done <"$lock"

kernel=("$debs"/boot/vmlinuz-*)
release=${kernel[0]##*/vmlinuz-}
install -m 644 "${kernel[0]}" "$out/vmlinuz"
install -m 644 "$debs/boot/config-$release" "$out/kernel.config"

# Modules, each after those it names in its "depends" field; `load` is the order for insmod.
declare -A loaded=()
add_module() {
    local name=${1//-/_} ko dep deps
    [ -n "${loaded[$name]:-}" ] && return
    loaded[$name]=1
    ko=$(find "$debs/lib/modules/$release" -name "$name.ko" -o -name "${name//_/-}.ko" | head -n 1)
    [ -n "$ko" ] || die "the kernel has no module $name"
    deps=$(objcopy -O binary --only-section=.modinfo "$ko" /dev/stdout | tr '\0' '\n' |
        sed -n 's/^depends=//p' | tr ',' ' ')
    for dep in $deps; do
        add_module "$dep"
    done
    install -m 644 "$ko" "$root/lib/modules/$name.ko"
    echo "$name" >>"$root/lib/modules/load"
}
for m in "${modules[@]}"; do
    add_module "$m"
done

# Programs, and the libraries they need, by soname.
install -m 755 "$debs/bin/busybox" "$root/bin/busybox"
for applet in sh mount mkdir cat echo ip insmod sleep nc dmesg grep sed cut head tail dd printf \
    poweroff reboot uname ls ps date sync sha256sum cmp hexdump stty test setsid [ awk tr wc kill; do
    ln -s busybox "$root/bin/$applet"
done
add_libs() {
    local soname lib
    for soname in $(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        [ -e "$root/lib/$soname" ] && continue
        lib=$(find "$debs/lib" "$debs/usr/lib" -name "$soname" | sort | head -n 1)
        [ -n "$lib" ] || die "no package brings $soname, needed by ${1##*/}"
        install -m 755 "$(readlink -f "$lib")" "$root/lib/$soname"
        add_libs "$lib"
    done
}
for program in "${programs[@]}"; do
    binary=$(readlink -f "$debs/$program")
    install -m 755 "$binary" "$root/usr/bin/${program##*/}"
    add_libs "$binary"
done
for program in "$@"; do
    install -m 755 "$program" "$root/usr/bin/"
done
ln -s ../lib/ld-linux-x86-64.so.2 "$root/lib64/ld-linux-x86-64.so.2"
install -m 755 "$here/init" "$root/init"
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"

# Not compressed: unpacking is the slowest part of a boot on an interpreter. Sorted, no times, no
# owners, inode numbers renumbered, so that equal inputs give equal bytes.
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . -mindepth 1 -print0 | sort -z |
    cpio --null -o -H newc -R 0:0 --reproducible --quiet) >"$work/initrd.img"
mv "$work/initrd.img" "$out/initrd.img"
say "kernel $release, $(wc -c <"$out/vmlinuz") bytes; initrd $(wc -c <"$out/initrd.img") bytes," \
    "sha256 $(sha256sum "$out/initrd.img" | cut -d' ' -f1)"
