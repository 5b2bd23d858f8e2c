#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Which share of the instructions of a boot, of redis and of nginx the translator leaves to the
# interpreter, by form or in blocks that are not worth a translation yet. Servers run in the guest of
# PROFILE=smp on one vCPU with clients of their own, and what the same boot without them did is taken
# off. The counts are of the guest; the host's speed hardly shows in them.
. "$(dirname "$0")/lib.sh"
make -s guest PROFILE=smp >&2 || die "no guest with servers"

mkdir -p "$tmp/extra/usr/bin"
cat >"$tmp/extra/usr/bin/share_load" <<'EOF'
#!/bin/sh
ip link set lo up
case $1 in
redis)
    redis-server --port 6400 --save "" --appendonly no --daemonize yes --dir /tmp >/dev/null 2>&1
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ "$(redis-cli -p 6400 ping 2>/dev/null)" = PONG ] && break
        sleep 0.2
    done
    redis-benchmark -p 6400 -c 10 -n 20000 -q -t ping,set,get,incr,lpush,lrange_100,sadd,hset,zadd,mset && echo "share: done"
    ;;
nginx)
    mkdir -p /var/log/nginx /var/lib/nginx /run /tmp/www
    echo 'www-data:x:33:33::/:/bin/sh' >>/etc/passwd
    echo 'www-data:x:33:' >>/etc/group
    head -c 1000 /usr/bin/redis-server >/tmp/www/small
    head -c 1000000 /usr/bin/redis-server >/tmp/www/large
    cat >/tmp/nginx.conf <<X
user www-data;
error_log /tmp/nginx.log;
pid /tmp/nginx.pid;
events { worker_connections 64; }
http { access_log off; keepalive_requests 100000; server { listen 8080; root /tmp/www; } }
X
    nginx -c /tmp/nginx.conf
    for _ in 1 2 3 4 5; do
        {
            for _ in $(seq 2000); do printf 'GET /small HTTP/1.1\r\nHost: x\r\n\r\n'; done
            for _ in 1 2 3 4 5 6 7 8 9; do printf 'GET /large HTTP/1.1\r\nHost: x\r\n\r\n'; done
            printf 'GET /small HTTP/1.0\r\n\r\n'
            sleep 3
        } | nc -w 20 127.0.0.1 8080 | wc -c >/tmp/got
    done
    [ "$(cat /tmp/got)" -gt 11000000 ] && echo "share: done"
    ;;
*) echo "share: done" ;;
esac
EOF
chmod +x "$tmp/extra/usr/bin/share_load"
(cd "$tmp/extra" && find . -mindepth 1 | cpio -o -H newc --quiet) | cat build/guest-smp/initrd.img - >"$tmp/initrd"

# counts WHAT: instructions, those called for by form, those in blocks; sets most
counts() {
    "$pollux" run --engine jit --kernel build/guest-smp/vmlinuz --initrd "$tmp/initrd" --memory 512 --stats \
        --append "$append quiet pollux.run=share_load,$1" --console "$tmp/console" --timeout 400 \
        </dev/null 2>"$tmp/err" >"$tmp/out" || die "$1: $(tail -n 1 "$tmp/err")"
    grep -aq 'share: done' "$tmp/console" || die "$1: $(tail -n 3 "$tmp/console")"
    insns=$(sed -n 's/.*vcpu0: \([0-9]*\) instructions.*/\1/p' "$tmp/out" "$tmp/err")
    read -r called cold < <(sed -n 's/^interpreted: \([0-9]*\) not translated, .*, \([0-9]*\) in cold blocks.*/\1 \2/p' "$tmp/out" "$tmp/err")
    most=$(sed -n 's/.*cold blocks; not translated: \([^ ]* [^ ]* [^ ]*\).*/\1/p' "$tmp/out" "$tmp/err")
    [ -n "$insns" ] && [ -n "$cold" ] || die "$1: no counts"
}

report() { # WHAT INSNS CALLED COLD
    local share
    share=$(calc "printf \"%.2f\", ($3 + $4) * 100 / $2")
    emit "interpreted, $1" "$share %" "below 0.5 %" "$(met "$share < 0.5")" \
        "$(calc "printf \"%.0f M instructions; %.2f %% by form, %.2f %% in cold blocks; most: %s\", $2 / 1e6, $3 * 100 / $2, $4 * 100 / $2, \"$most\"")"
}

counts boot
report "boot" "$insns" "$called" "$cold"
base=$insns base_called=$called base_cold=$cold
for what in redis nginx; do
    counts $what
    report "$what" $((insns - base)) $((called - base_called)) $((cold - base_cold))
done
