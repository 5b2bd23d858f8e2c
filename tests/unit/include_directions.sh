#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The include directions of ARCHITECTURE.md: base includes only base; vmm only vmm and base;
# replica, consensus, migrate and storage may include vmm, proto and base, never one another.
bad=0
forbid() { # FOLDER REGEX: no file of FOLDER includes "REGEX/..."
    local hits
    hits=$(grep -rnE "^#include \"($2)/" "$1" --include='*.[ch]' 2>/dev/null)
    [ -z "$hits" ] || { echo "$hits"; bad=1; }
}
forbid base 'vmm|replica|consensus|storage|migrate|proto|ops|tests'
forbid vmm 'replica|consensus|storage|migrate|proto|ops|tests'
forbid proto 'vmm|replica|consensus|storage|migrate|ops|tests'
forbid replica 'consensus|storage|migrate|ops|tests'
forbid consensus 'replica|storage|migrate|ops|tests'
forbid storage 'replica|consensus|migrate|ops|tests'
forbid migrate 'replica|consensus|storage|ops|tests'
forbid ops 'tests'
[ $bad -eq 0 ] || { echo "an include goes the wrong way"; exit 1; }
echo "include directions hold"
