#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Debian's SeaBIOS, from the reset vector to its boot prompt on the serial console: real mode, ROM,
# fw_cfg, PIC, PIT, RTC and i8042 as firmware uses them. Without a disk it finds nothing to boot; from
# a disk it starts a boot sector, which prints through INT 10H and leaves by the debug exit; the
# recording of that replays to the same digests.
set -u
cd "$(dirname "$0")/../.." || exit 1
pollux=${BUILD:-build}/pollux
roms=/usr/share/seabios
[ -s $roms/bios.bin ] || { echo "no SeaBIOS (package seabios)"; exit 77; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
    echo "FAIL: $*"
    [ -s "$tmp/console" ] && tail -n 5 "$tmp/console" | cat -v
    [ -s "$tmp/err" ] && cat "$tmp/err"
    exit 1
}

run() {
    "$pollux" run --console "$tmp/console" --timeout 50 "$@" \
        >"$tmp/out" 2>"$tmp/err" </dev/null
    rc=$?
}

# cli; ss:sp = 0:7c00; sti; cld; si = text
# next: lodsb; or al, al; jz end; mov ah, 0eh; mov bx, 7; int 10h; jmp next
# end: mov al, 15h; out f4h, al; hlt
{
    printf '\xfa\x31\xc0\x8e\xd8\x8e\xd0\xbc\x00\x7c\xfb\xfc\xbe\x22\x7c'
    printf '\xac\x08\xc0\x74\x09\xb4\x0e\xbb\x07\x00\xcd\x10\xeb\xf2\xb0\x15\xe6\xf4\xf4'
    printf 'pollux boot sector\r\n\0'
} >"$tmp/disk"
truncate -s 510 "$tmp/disk"
printf '\x55\xaa' >>"$tmp/disk"
truncate -s 1M "$tmp/disk"

for rom in bios bios-256k; do
    run --firmware $roms/$rom.bin --memory 64 --save-at "No bootable device" "$tmp/state"
    [ $rc -eq 0 ] || fail "$rom: exit code $rc"
    grep -q 'SeaBIOS (version' "$tmp/console" || fail "$rom: no banner"
    grep -q 'Booting from' "$tmp/console" || fail "$rom: nothing tried"
    run --load "$tmp/state" --timeout 2
    [ $rc -eq 124 ] || fail "$rom: from the saved state: exit code $rc"

    run --firmware $roms/$rom.bin --memory 64 --disk "$tmp/disk" --record "$tmp/$rom"
    [ $rc -eq 43 ] || fail "$rom: boot sector: exit code $rc"
    grep -q 'Booting from Hard Disk' "$tmp/console" || fail "$rom: not from the disk"
    grep -q 'pollux boot secto' "$tmp/console" || fail "$rom: the boot sector did not print"
    "$pollux" replay "$tmp/$rom" >"$tmp/out" 2>"$tmp/err" || fail "$rom: replay: exit code $?"
    grep -qE '^[0-9]+ slices, [1-9][0-9]* digests compared, 0 differ' "$tmp/out" ||
        fail "$rom: replay"
done

# Other processors: started from real mode, counted, left waiting in HLT.
POLLUX_LOG=debug run --firmware $roms/bios.bin --memory 64 --vcpus 3 \
    --save-at "No bootable device" "$tmp/state"
[ $rc -eq 0 ] || fail "3 vCPUs: exit code $rc"
grep -q 'Found 3 cpu(s)' "$tmp/err" || fail "not all processors were found"

run --firmware $roms/vgabios.bin
[ $rc -eq 1 ] || fail "a ROM without a reset vector: exit code $rc"
[ "$(wc -l <"$tmp/err")" -eq 1 ] || fail "not one line"
echo "boot prompt and boot sector, bios.bin and bios-256k.bin"
