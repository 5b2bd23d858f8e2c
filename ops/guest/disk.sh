#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ops/guest/disk.sh OUT CACHE [debian] - disk images that boot with the stock guest's kernel.
#
# Always: OUT/disk-initrd.img, which mounts /dev/vda and goes on there, and OUT/disk.img, a small
# system (busybox, redis and their libraries) made of the packages that build.sh left in CACHE.
# With `debian`: CACHE/debian-{base,server,edited}.img, Debian by debootstrap: a base, the same with
# nginx and redis, the base with small changes. The mirror is taken from apt's own sources. All have
# ext4 on the whole disk and a login prompt on ttyS0.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
umask 022

out=$1
cache=$2
kind=${3:-small}
lock=$cache/packages-stock.lock # of build.sh
uuid=5ca1ab1e-0000-4000-8000-00000000000
work=$(mktemp -d /var/tmp/pollux-disk.XXXXXX)
cleanup() {
    umount "$work"/*/proc 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT

say() { echo "guest: $*"; }
die() { echo "guest: $*" >&2; exit 1; }

# image ROOT FILE MIB N: ext4 of a folder, the same bytes for the same folder as far as mkfs goes
image() {
    find "$1" -exec touch -h -d @0 {} +
    rm -f "$2.new"
    truncate -s "$3M" "$2.new"
    E2FSPROGS_FAKE_TIME=1 mkfs.ext4 -q -F -d "$1" -L pollux -U "$uuid$4" -E hash_seed="$uuid$4" "$2.new"
    mv "$2.new" "$2"
    say "$2: $3 MiB, $(du -m "$2" | cut -f1) MiB used"
}

# --- the initrd ---------------------------------------------------------------------------------

initrd() {
    local root=$work/initrd name
    mkdir -p "$root"/{bin,dev,proc,lib/modules,root} "$work/stock"
    (cd "$work/stock" && cpio -id --quiet <"$out_abs/initrd.img")
    cp "$work/stock/bin/busybox" "$root/bin/"
    for name in sh mount insmod switch_root sleep cat echo; do ln -s busybox "$root/bin/$name"; done
    # ext4 is part of the kernel; the modules are those of the stock guest.
    cp "$work/stock"/lib/modules/* "$root/lib/modules/"
    cat >"$root/init" <<'INIT'
#!/bin/sh
# Mounts the disk and goes on there. pollux.init=PROGRAM: what to start (/sbin/init).
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
for module in $(cat /lib/modules/load); do insmod "/lib/modules/$module.ko"; done
init=/sbin/init
for word in $(cat /proc/cmdline); do
    case $word in
    pollux.init=*) init=${word#*=} ;;
    esac
done
mount -t ext4 -o rw,noatime /dev/vda /root || { echo "pollux: no disk"; sleep 1000; }
mount -o move /dev /root/dev
mount -o move /proc /root/proc
exec switch_root /root "$init"
INIT
    chmod 755 "$root/init"
    find "$root" -exec touch -h -d @0 {} +
    (cd "$root" && find . -mindepth 1 -print0 | sort -z |
        cpio --null -o -H newc -R 0:0 --reproducible --quiet) >"$work/disk-initrd.img"
    mv "$work/disk-initrd.img" "$out/disk-initrd.img"
}

# --- the small system ----------------------------------------------------------------------------

small() {
    local root=$work/small name file
    mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,etc,root,lib,lib64,usr/bin,var/lib}
    cp -a "$work/stock/bin" "$work/stock/usr" "$work/stock/lib64" "$root/"
    find "$work/stock/lib" -maxdepth 1 -name '*.so*' -exec cp -a {} "$root/lib/" \;
    for name in init getty login; do ln -s ../bin/busybox "$root/sbin/$name"; done
    # Something for the background to fetch: what Debian documents of these packages.
    while read -r _ _ _ file; do
        dpkg --fsys-tarfile "$cache/$file" | tar -x -C "$root" --wildcards './usr/share/*' 2>/dev/null || true
    done <"$lock"
    cat >"$root/etc/inittab" <<'INITTAB'
::sysinit:/etc/start
ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100
INITTAB
    cat >"$root/etc/start" <<'START'
#!/bin/sh
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /tmp
echo "pollux: disk of $(cat /sys/block/vda/size) sectors"
redis-server --version
START
    chmod 755 "$root/etc/start"
    echo 'root::0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo pollux >"$root/etc/hostname"
    echo 'Pollux \n \l' >"$root/etc/issue"
    image "$root" "$out/disk.img" 192 0
}

# --- Debian ---------------------------------------------------------------------------------------

mirror() {
    { sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null || true
      sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true
    } | head -n 1
}

in_root() { # ROOT COMMAND...
    local root=$1
    shift
    mount -t proc proc "$root/proc"
    chroot "$root" "$@" >"$work/chroot.log" 2>&1 || { tail -n 5 "$work/chroot.log" >&2; die "$* failed"; }
    umount "$root/proc"
}

finish() { # ROOT: what no image should carry, and the console
    rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* "$1/etc/resolv.conf"
    rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* # the mirror stays here
    echo pollux >"$1/etc/hostname"
    sed -i 's/^[1-6]:.*getty.*//; /^T0:/d' "$1/etc/inittab"
    echo 'T0:23:respawn:/sbin/getty -L ttyS0 115200 vt100' >>"$1/etc/inittab"
    echo '/dev/vda / ext4 rw,noatime 0 0' >"$1/etc/fstab"
    sed -i 's/^root:[^:]*:/root::/' "$1/etc/shadow"
}

debian() {
    local base=$work/base url policy
    [ "$(id -u)" = 0 ] || die "debootstrap needs root"
    url=$(mirror)
    [ -n "$url" ] || die "apt has no sources"
    say "debootstrap (a few minutes)"
    debootstrap --variant=minbase --include=sysvinit-core,ifupdown,python3,gcc,libc6-dev,perl,openssh-server,vim,curl \
        bookworm "$base" "$url" >"$cache/debootstrap.log" 2>&1 || die "debootstrap failed ($cache/debootstrap.log)"
    policy=$base/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$policy" # nothing is started while installing
    chmod 755 "$policy"
    cp /etc/resolv.conf "$base/etc/resolv.conf"
    cp -a "$base" "$work/server"
    in_root "$work/server" apt-get install -y --no-install-recommends nginx redis-server
    cp -a "$base" "$work/edited"
    echo 'changed' >"$work/edited/etc/motd"
    head -c 3000000 /dev/urandom >"$work/edited/root/blob"
    rm -rf "$work/edited/usr/share/doc/perl"
    find "$work/edited/usr/lib/python3" "$work/edited/usr/lib/python3.11" -name '*.py' | sort | head -n 40 |
        while read -r f; do echo '# changed' >>"$f"; done
    local n=1 kind
    for kind in base server edited; do
        rm -f "$work/$kind/usr/sbin/policy-rc.d"
        finish "$work/$kind"
        image "$work/$kind" "$cache/debian-$kind.img" 800 $n
        n=$((n + 1))
    done
}

mkdir -p "$out" "$cache"
out_abs=$(cd "$out" && pwd)
[ -s "$out/initrd.img" ] && [ -s "$lock" ] || die "first make guest"
if [ "$kind" = debian ]; then
    debian
else
    initrd
    small
fi
