#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The measures of the boot name the engine they measure: a pollux and a peer that do nothing but say
# how they were called. The line of the interpreter, and its aim, are the interpreter's.
set -u
cd "$(dirname "$0")/../.." || exit 1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "$*"; cat "$tmp/calls" "$tmp/lines" "$tmp/err"; exit 1; }
mkdir "$tmp/bin"

# Boots at once, after 60 ms of processor time or more, in 1000 M instructions by the interpreter and
# 2000 M by another engine, and leaves the number in the state.
cat >"$tmp/pollux" <<'S'
#!/usr/bin/env bash
echo "pollux $*" >>"$CALLS"
engine=auto insns=2000000000
while [ $# -gt 0 ]; do
    case $1 in
    --engine) engine=$2 ;;
    --console) console=$2 ;;
    --save-at) state=$3 ;;
    --load) cat "$2"; exit ;;
    esac
    shift
done
[ $engine = interp ] && insns=1000000000
[ -z "${state:-}" ] || { echo "$insns instructions" >"$state"; exit 0; }
until [ "$(awk '{ print $14 + $15 }' /proc/$$/stat)" -ge 6 ]; do :; done
echo "pollux: redis ready" >>"$console"
exec sleep 60
S
cat >"$tmp/bin/qemu-system-x86_64" <<'S'
#!/usr/bin/env bash
while [ "$1" != -serial ]; do shift; done
until [ "$(awk '{ print $14 + $15 }' /proc/$$/stat)" -ge 6 ]; do :; done
echo "pollux: redis ready" >"${2#file:}"
exec sleep 60
S
chmod +x "$tmp/pollux" "$tmp/bin/qemu-system-x86_64"
CALLS=$tmp/calls BUILD=$tmp REPEAT=1 PATH=$tmp/bin:$PATH tests/bench/boot.sh \
    >"$tmp/lines" 2>"$tmp/err" </dev/null || fail "exit code $?"

line() { grep "^$1" "$tmp/lines" || fail "no line '$1'"; }
interp=$(line "interpreter over the boot") || fail "$interp"
auto=$(line "translator (auto) over the boot") || fail "$auto"
[[ $interp == *"|60 M/s|"*"|1000 M instructions"*ratio* ]] || fail "the interpreter's: $interp"
[[ $auto == *"/s|||2000 M instructions"*ratio* ]] || fail "auto's: $auto"
[ "$(grep -c -- '--engine interp' "$tmp/calls")" = 2 ] || fail "calls of the interpreter"
cat "$tmp/lines"
