#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Virtual disks by NBD, as fio sees them: VHDX (dynamic; differencing) served by `pollux disk serve`
# against qcow2 (alone; over a backing file) served by qemu-nbd, with its threads and with its io_uring,
# whichever is faster; the files in memory, all in the same run, in turns. The processor time of the
# servers is in the notes.
# Then a chain of ten layers against one; at random with server and client on one core: on two, whether
# one of them sleeps whenever the other is at it is luck, and changes the rate up to tenfold.
. "$(dirname "$0")/lib.sh"
for t in fio qemu-nbd qemu-img qemu-io; do command -v $t >/dev/null || die "$t is missing: make deps"; done
mb=${MB:-256}
# In memory, where that can be: what is measured is the format and the server, not who else writes
# to this machine's disk.
if [ "$(df --output=avail -m /dev/shm 2>/dev/null | tail -n 1)" -gt $((8 * mb)) ]; then
    rm -rf "$tmp"
    tmp=$(mktemp -d /dev/shm/pollux-bench-XXXXXX)
fi
sock=$tmp/s
server=
on= # before servers and fio

serve() { # COMMAND...
    rm -f "$sock"
    $on "$@" 2>>"$tmp/err" &
    server=$!
    bench_pids+=("$server")
    local i
    for ((i = 0; i < 200; i++)); do
        [ -S "$sock" ] && return
        sleep 0.05
    done
    die "$* does not serve: $(tail -n 1 "$tmp/err")"
}
unserve() { stop "$server"; }

# fio_rate RW BS DEPTH IO-MEGABYTES: MiB/s
fio_rate() {
    $on fio --name=x --ioengine=nbd --uri="nbd+unix:///?socket=$sock" --rw="$1" --bs="$2" --iodepth="$3" \
        --size="${mb}M" --io_size="$4M" --randseed=7 --output-format=terse --terse-version=3 2>>"$tmp/err" |
        awk -F';' '{ r = $7 + $48; if (r > m) m = r } END { printf "%.1f\n", m / 1024 }'
}

declare -A rate # of "who what": the figures
works="write-new write read randwrite randread"
measure() { # WHO: all works on what is served
    local w v c
    for w in $works; do
        c=$(cpu_ms "$server")
        case $w in
        write-new) v=$(fio_rate write 1M 8 "$mb") ;;
        write | read) v=$(fio_rate $w 1M 8 "$mb") ;;
        *) v=$(fio_rate $w 4k 16 $((mb / 4))) ;;
        esac
        rate["$1 $w"]+=" $v"
        rate["$1 $w cpu"]+=" $(calc "print $(cpu_ms "$server") - $c")"
    done
    note "$1: $(for w in $works; do echo -n "$w ${rate["$1 $w"]##* } (${rate["$1 $w cpu"]##* } ms) "; done)"
}

dd if=/dev/urandom of="$tmp/base.raw" bs=1M count="$mb" status=none
"$pollux" disk convert "$tmp/base.raw" "$tmp/base.vhdx" || die convert
qemu-img convert -f raw -O qcow2 "$tmp/base.raw" "$tmp/base.qcow2" || die qemu-img
rm "$tmp/base.raw"
[ "$repeat" -gt 5 ] && repeat=5
for ((i = 0; i < repeat; i++)); do
    for kind in dynamic differencing; do
        rm -f "$tmp"/t.*
        if [ $kind = dynamic ]; then
            "$pollux" disk create --size "${mb}M" "$tmp/t.vhdx"
        else
            "$pollux" disk create --parent "$tmp/base.vhdx" "$tmp/t.vhdx"
        fi
        serve "$pollux" disk serve --socket "$sock" "$tmp/t.vhdx"
        measure "pollux-$kind"
        unserve
        for aio in threads io_uring; do
            rm -f "$tmp"/t.*
            if [ $kind = dynamic ]; then
                qemu-img create -q -f qcow2 "$tmp/t.qcow2" "${mb}M"
            else
                qemu-img create -q -f qcow2 -b "$tmp/base.qcow2" -F qcow2 "$tmp/t.qcow2"
            fi
            serve qemu-nbd -t -f qcow2 --cache=writeback --aio=$aio -k "$sock" "$tmp/t.qcow2"
            measure "qemu-$aio-$kind"
            unserve
        done
    done
done

best() { printf '%s\n' "$@" | sort -g | tail -n 1; }
# shellcheck disable=SC2086 # figures are words
for kind in dynamic differencing; do
    for w in $works; do
        ours=$(median ${rate["pollux-$kind $w"]})
        peer=$(best "$(median ${rate["qemu-threads-$kind $w"]})" "$(median ${rate["qemu-io_uring-$kind $w"]})")
        unit="MiB/s" what="1 MiB $w"
        if [[ $w == rand* ]]; then
            unit="k requests/s" what="4 KiB $w"
            ours=$(calc "printf \"%.1f\", $ours * 0.256") peer=$(calc "printf \"%.1f\", $peer * 0.256")
        fi
        emit "disk $kind, $what" "$ours $unit" ">= qcow2" "$(met "$ours >= $peer")" "qcow2 $peer"
    done
done

# Ten layers: each holds another tenth of all blocks of 64 KiB, so that every layer is asked. They are
# only read, out of the page cache of a file system on a disk, where chains live: tmpfs does not say
# what is in memory, so there each piece of a read takes a thread of the kernel.
rm -f "$tmp"/t.* "$tmp/base.qcow2"
layered=$(mktemp -d "$BUILD/bench-layers-XXXXXX")
trap 'bench_cleanup; rm -rf "$layered"' EXIT
below=$layered/base.vhdx
mv "$tmp/base.vhdx" "$below"
for ((l = 1; l < 10; l++)); do
    "$pollux" disk create --parent "$below" "$layered/l$l.vhdx" || die "layer $l"
    below=$layered/l$l.vhdx
    serve "$pollux" disk serve --socket "$sock" "$below"
    for ((k = l; k < mb * 16; k += 10)); do echo "write -P $l $((k * 64))k 64k"; done |
        qemu-io -f raw "nbd+unix:///?socket=$sock" >/dev/null || die "layer $l"
    unserve
done
"$pollux" disk convert --block 2M "$below" "$layered/one.vhdx" || die "one layer"
sync "$layered"/* # what is being written meanwhile would be in the way
declare -A layers
cores=$(taskset -pc $$ | sed 's/.*: //')
for ((i = 0; i < 5; i++)); do
    for n in one ten; do
        for w in randread read; do
            on=
            [ $w = read ] || on="taskset -c ${cores%%[,-]*}"
            serve "$pollux" disk serve --readonly --socket "$sock" "$([ $n = one ] && echo "$layered/one.vhdx" || echo "$below")"
            [ $i$w = 0randread ] && fio_rate read 1M 8 "$mb" >/dev/null
            c=$(cpu_ms "$server")
            if [ $w = read ]; then v=$(fio_rate read 1M 8 $((4 * mb))); else v=$(fio_rate randread 4k 16 "$mb"); fi
            layers["$n $w"]+=" $v"
            layers["$n $w cpu"]+=" $(calc "print $(cpu_ms "$server") - $c")"
            unserve
        done
    done
done
# shellcheck disable=SC2086
for w in randread read; do
    one=$(median ${layers["one $w"]}) ten=$(median ${layers["ten $w"]})
    note "one layer $w:${layers["one $w"]}; ten:${layers["ten $w"]}"
    note "server, ms of processor: one${layers["one $w cpu"]}; ten${layers["ten $w cpu"]}"
    emit "disk, ten layers, $w" "$(calc "printf \"%.0f\", $ten * 100 / $one") % of one" ">= 90 %" \
        "$(met "$ten >= 0.9 * $one")" "one layer $one MiB/s"
done
