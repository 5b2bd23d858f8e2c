# SPDX-License-Identifier: Apache-2.0
# For pair_flip_*.sh. flips FIRST LAST: for each seed a pair starts from the state of the guest with
# redis up, one bit of the backup's RAM is changed from outside, and the difference must be reported
# and the page named within the scrub time, with the primary going on alone. Each slice has its
# digest: an idle guest's slices are long, and at the usual distance the first digest after the
# change would hash everything.
#
# A bit that the guest overwrites before anything reads it is gone, and nobody can or need report
# it. The client sees that by reading the byte back; then another seed is tried, once a script, and
# said so.
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"

flips() {
    local seed again=1
    [ "$(id -u)" -eq 0 ] || { echo "writing another process's memory needs root"; exit 77; }
    out=$(mktemp)
    trap 'rm -f "$out"' EXIT
    local seeds
    seeds=$(seq "$1" "$2")
    set -- $seeds
    while [ $# -gt 0 ]; do
        seed=$1
        shift
        timeout 30 "$BUILD/tests/tools/duo" build/guest/vmlinuz build/guest/initrd.img - \
            --state build/guest/redis.state --net --scrub-ms 1500 --digest 1 --flip "$seed" \
            --after-ms $((seed * 379 % 1000)) --timeout 25 >"$out" 2>&1
        case $? in
        0) grep -ah '^flip\|^found' "$out" | paste -sd ' ' ;;
        5)
            echo "seed $seed: overwritten by the guest before the scrub"
            [ $again = 1 ] || return 1
            again=0
            set -- $((seed + 100)) "$@"
            ;;
        *)
            echo "seed $seed"
            cat "$out"
            return 1
            ;;
        esac
    done
}
