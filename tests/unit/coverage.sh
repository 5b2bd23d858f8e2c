#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The summary of MODE=cov says of each folder how many of its lines ran, with what never ran and
# without tests; and `make check` ends with it.
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
mkdir -p base vmm/cpu tests/unit build/cov/{base,vmm/cpu,tests/unit}
printf 'int half(int x)\n{\n    if (x)\n        return 1;\n    x++;\n    return x;\n}\n' >base/half.c
printf 'int never(void)\n{\n    return 1;\n}\n' >vmm/cpu/never.c
printf 'int half(int);\nint main(void)\n{\n    return half(1) - 1;\n}\n' >tests/unit/test.c
for f in base/half vmm/cpu/never tests/unit/test; do
    gcc -O0 --coverage -c $f.c -o build/cov/$f.o || exit 1
done
gcc --coverage -o build/cov/test build/cov/base/half.o build/cov/tests/unit/test.o && build/cov/test || exit 1
said=$("$root/tests/tools/coverage.sh" build/cov | tr -s ' ') || { echo "exit code $?: $said"; exit 1; }
[ "$said" = "base 3 of 5 lines 60.0 %
vmm/cpu 0 of 2 lines 0.0 %
all 3 of 7 lines 42.9 %" ] || { echo "$said"; exit 1; }
! "$root/tests/tools/coverage.sh" base >/dev/null || { echo "nothing to tell, and content"; exit 1; }

cd "$root" || exit 1
env -u MAKEFLAGS -u MAKELEVEL make -n check MODE=cov >"$tmp/steps" 2>&1
grep -q 'tests/tools/coverage.sh build/cov' "$tmp/steps" || { echo "check MODE=cov ends without it"; exit 1; }
echo "$said"
