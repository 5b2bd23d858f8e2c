#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a second vCPU brings and costs: the workloads of tests/bench/work on a guest with 2 vCPUs
# against the same on one with 1, timed on this host from outside, beside what a second processor
# brings the same program on this host itself, and QEMU's TCG (a thread for each vCPU, without a
# counter: with one, two vCPUs do not get through the boot in minutes), in the same minutes; the boot;
# the size of logs; what a parallel part costs beside its work.
. "$(dirname "$0")/lib.sh"
[ "$(nproc)" -ge 2 ] || die "two vCPUs want two cores"
work=build/guest-work
make -s guest PROFILE=work >&2 || die "no guest with the workloads"
repeat=${REPEAT:-3}
declare -A ms

# stamps FILE: prefixes each line of a growing stream with the host's milliseconds
stamps() { while IFS= read -r line; do echo "$(now_ms) $line"; done >"$1"; }

# What a run does: seconds of compute, so that neither the first translations nor the stamps count.
declare -A count=([compute]=24000 [fork]=1920 [pipe]=96000 [faults]=1440 [futex]=24000000)

# commands THREADS PERCENT: every workload, the value of pollux.run
commands() {
    local all="" w
    for w in compute fork pipe faults futex; do all+="work,$w,$1,$((count[$w] * $2 / 100))+"; done
    echo "${all%+}"
}

# gather WHO PERCENT: ms[NAME,WHO] grows by the time between the lines that say that it begins and
# that it is done, from $tmp/lines, for all of its count
gather() {
    local name took seen=0
    while read -r name took; do
        ms[$name,$1]+=" $took"
        seen=$((seen + 1))
    done < <(awk -v p="$2" '$2 == "work" { if ($5 == "begins") last = $1; else print $3, ($1 - last) * 100 / p }' "$tmp/lines")
    [ $seen = ${#count[@]} ] || die "$1 ran $seen of ${#count[@]} workloads"
}

run() { # VCPUS
    mkfifo "$tmp/console"
    stamps "$tmp/lines" <"$tmp/console" &
    "$pollux" run --kernel $work/vmlinuz --initrd $work/initrd.img --vcpus "$1" --append \
        "$append quiet pollux.run=$(commands "$1" 100)" --console "$tmp/console" --timeout 200 \
        </dev/null 2>"$tmp/err" || die "the guest failed: $(tail -n 1 "$tmp/err")"
    wait $!
    rm "$tmp/console"
    gather "$1" 100
}

peer() { # VCPUS
    timeout 200 qemu-system-x86_64 -M pc -accel tcg,thread=multi -smp "$1" -cpu max -m 256 -display none \
        -no-reboot -monitor none -serial stdio -kernel $work/vmlinuz -initrd $work/initrd.img \
        -append "$append quiet pollux.run=$(commands "$1" 10)" </dev/null 2>"$tmp/err" | stamps "$tmp/lines"
    gather "peer,$1" 10
}

# host THREADS: the same without a guest; ms[NAME,host,THREADS] grows
host() {
    local w
    for w in compute fork pipe faults futex; do
        ms[$w,host,$1]+=" $(build/work/work "$w" "$1" "${count[$w]}" | awk '$4 != "begins" && $5 == "ms" { print $4 }')"
    done
}

for ((i = 0; i < repeat; i++)); do
    host 1
    run 1
    run 2
    host 2
    peer 1
    peer 2
done
# ratio NAME [WHO,]: its time with 2 over that with 1
ratio() { calc "printf \"%.2f\", $(median ${ms[$1,${2:-}2]}) / $(median ${ms[$1,${2:-}1]})"; }
for w in compute fork pipe faults futex; do
    one=$(median ${ms[$w,1]}) two=$(median ${ms[$w,2]}) them=$(median ${ms[$w,peer,2]})
    beside="$one ms, $two ms; 2 over 1: this host itself $(ratio $w host,), qemu $(ratio $w peer,) and $(calc "printf \"%.1f\", $them / $two") times our time"
    if [ $w = compute ]; then
        x=$(calc "printf \"%.2f\", $one / $two")
        emit "compute, 2 vCPUs against 1" "$x times as fast" "1.8" "$(met "$x >= 1.8")" "$beside"
    else
        x=$(ratio $w)
        emit "$w, 2 vCPUs against 1" "$x of the time" "at most 1.2" "$(met "$x <= 1.2")" "$beside"
    fi
done

# boot VCPUS: sets took; the log's size in $tmp/log
boot() {
    local began
    rm -rf "$tmp/rec"
    began=$(now_ms)
    "$pollux" run --kernel $guest/vmlinuz --initrd $guest/initrd.img --vcpus "$1" --append "$append" \
        --console "$tmp/screen" --record "$tmp/rec" --save-at "$mark" "$tmp/state" --timeout 200 \
        </dev/null 2>"$tmp/err" || die "no boot: $(tail -n 1 "$tmp/err")"
    took=$(($(now_ms) - began))
}
for ((i = 0; i < repeat; i++)); do
    boot 1; ones+=("$took")
    boot 2; twos+=("$took")
done
one=$(median "${ones[@]}") two=$(median "${twos[@]}")
x=$(calc "printf \"%.2f\", $two / $one")
emit "recorded boot, 2 vCPUs against 1" "$x of the time" "at most 1.3" "$(met "$x <= 1.3")" "$one ms, $two ms"
log=$(stat -c %s "$tmp/rec/log.mdb")
emit "log of a boot with 2 vCPUs" "$((log / 1024)) KiB" "under 1024 KiB" "$(met "$log < 1048576")"

barrier=$(for ((i = 0; i < repeat; i++)); do "$BUILD/tests/tools/barrier" 2 || exit 1; done) || die "no barrier was timed"
ns=$(median $barrier)
emit "barriers of a parallel part, 2 threads" "$ns ns" "under 2000 ns" "$(met "$ns < 2000")"

# compute_log COUNT: sets insns and bytes of a recorded run with so many units of compute on both vCPUs
compute_log() {
    rm -rf "$tmp/rec"
    "$pollux" run --kernel $work/vmlinuz --initrd $work/initrd.img --vcpus 2 --append \
        "$append quiet pollux.run=work,compute,2,$1" --record "$tmp/rec" --stats --console "$tmp/screen" \
        --timeout 200 </dev/null 2>"$tmp/err" || die "the guest failed: $(tail -n 1 "$tmp/err")"
    insns=$(sed -n 's/^vcpu[0-9]*: \([0-9]*\) .*/\1/p' "$tmp/err" | awk '{ n += $1 } END { printf "%.0f", n }')
    bytes=$(stat -c %s "$tmp/rec/log.mdb")
}
compute_log 400
few=$insns base=$bytes
compute_log 8000
x=$(calc "printf \"%.3f\", ($bytes - $base) * 1000 / ($insns - $few)")
emit "log of compute on 2 vCPUs" "$x bytes/1000 insns" "under 0.1" "$(met "$x < 0.1")" \
    "$((bytes - base)) bytes for $(((insns - few) / 1000000)) M instructions"
