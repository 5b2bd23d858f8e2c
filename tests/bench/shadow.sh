#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What each feature of the shadow page tables gains: one run of each workload is recorded, and
# replayed with the feature on and off, in turns; the instructions are the same to the last, so the
# processor time of the host is all that differs. The workloads are shell scripts of the stock
# guest, started when it has booted. Owed flags and batched shootdowns have effect only with several
# vCPUs, whose recordings differ in lazy-ad: there the time for the same work counts.
. "$(dirname "$0")/lib.sh"
vcpus=${VCPUS:-1 2}
go="bench: go"
workloads="switch exec fault"

# Every workload ends by powering off.
script() {
    cat <<'EOF'
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
cd /tmp
what=$(sed 's/.*bench=\([a-z]*\).*/\1/' /proc/cmdline)
echo "bench: go"
case $what in
switch)
    mkfifo a b
    (while read -r x; do echo "$x"; done <a >b) &
    exec 3>a 4<b
    i=0
    while [ $i -lt 3000 ]; do echo $i >&3; read -r y <&4; i=$((i + 1)); done
    ;;
exec)
    i=0
    while [ $i -lt 300 ]; do /bin/busybox true; (:); i=$((i + 1)); done
    ;;
fault)
    i=0
    while [ $i -lt 8 ]; do dd if=/dev/zero of=/dev/null bs=24M count=1 2>/dev/null; i=$((i + 1)); done
    ;;
esac
poweroff -f
EOF
}

# Sets cpu to the processor milliseconds of a command, user mode.
timed() {
    local out
    TIMEFORMAT=%U
    out=$({ time "$@" >"$tmp/out" 2>&1 </dev/null || echo failed >>"$tmp/failed"; } 2>&1)
    [ ! -e "$tmp/failed" ] || die "$*: $(tail -n 1 "$tmp/out")"
    cpu=$(calc "printf \"%.0f\", $out * 1000")
}

mkdir "$tmp/root"
script >"$tmp/root/bench"
chmod +x "$tmp/root/bench"
(cd "$tmp/root" && echo bench | cpio -o -H newc 2>/dev/null) >"$tmp/bench.cpio"
cat $guest/initrd.img "$tmp/bench.cpio" >"$tmp/initrd"

# record WORKLOAD VCPUS SHADOW DIR: from a state saved when the guest had booted
record() {
    local state=$tmp/$1.$2.$3.state # lazy-ad is part of it
    if [ ! -e "$state" ]; then
        "$pollux" run --kernel $guest/vmlinuz --initrd "$tmp/initrd" --memory 256 --vcpus "$2" \
            --append "console=ttyS0 panic=-1 rdinit=/bench bench=$1" --console /dev/null --shadow "$3" \
            --save-at "$go" "$state" --timeout 300 </dev/null >"$tmp/out" 2>&1 ||
            die "no boot: $(tail -n 1 "$tmp/out")"
    fi
    rm -rf "$4"
    "$pollux" run --load "$state" --record "$4" --console /dev/null --shadow "$3" --timeout 300 \
        </dev/null >"$tmp/out" 2>&1 || die "$1: $(tail -n 1 "$tmp/out")"
}

# compare WHAT WORKLOAD VCPUS ON OFF: replays with both settings in turns
compare() {
    local i on=() off=()
    for ((i = 0; i < repeat; i++)); do
        timed "$pollux" replay "$tmp/rec.on" --shadow "$4"
        on+=("$cpu")
        timed "$pollux" replay "$tmp/rec.off" --shadow "$5"
        off+=("$cpu")
    done
    note "$1, $2, $3 vCPUs: on ${on[*]}, off ${off[*]}"
    emit "$1: $2, $3 vCPU$([ "$3" = 1 ] || echo s)" \
        "$(calc "printf \"%.2fx\", $(median "${off[@]}") / $(median "${on[@]}")")" "" "" \
        "$(calc "printf \"on %.0f ms, off %.0f ms of processor\", $(median "${on[@]}"), $(median "${off[@]}")")"
}

for n in $vcpus; do
    for w in $workloads; do
        record "$w" "$n" lazy-ad=on "$tmp/rec.on"
        rm -rf "$tmp/rec.off"
        cp -r "$tmp/rec.on" "$tmp/rec.off"
        compare "spaces kept over CR3 loads" "$w" "$n" tagged=on tagged=off
        compare "filled in batches" "$w" "$n" batch=8 batch=1
        [ "$n" != 1 ] || continue
        compare "shootdowns in batches" "$w" "$n" batch-shootdown=on batch-shootdown=off
        record "$w" "$n" lazy-ad=off "$tmp/rec.off"
        compare "flags owed" "$w" "$n" lazy-ad=on lazy-ad=off
        rm -f "$tmp/$w.$n".*.state
    done
done
