# SPDX-License-Identifier: Apache-2.0
# For scripts that try mistakes, read with `.`: each is exit code 1 and one line that says what is wrong.
# Wants $pollux. Counts in $mistakes; mistake_seen ends the script if one of them was not as it should be.
mistakes=0 mistakes_bad=0

mistake() { # TEXT ARGUMENT...
    local text=$1 said rc
    shift
    said=$(timeout 20 "$pollux" "$@" 2>&1 >/dev/null </dev/null)
    rc=$?
    mistakes=$((mistakes + 1))
    if [ $rc -ne 1 ] || [ "$(wc -l <<<"$said")" -ne 1 ] || [[ $said != *"$text"* ]]; then
        echo "pollux $*: exit code $rc, wanted 1 and one line with '$text':"
        echo "$said"
        mistakes_bad=$((mistakes_bad + 1))
    fi
}

mistakes_told() {
    echo "$mistakes mistakes tried, $mistakes_bad not as they should be"
    [ $mistakes_bad -eq 0 ]
}
