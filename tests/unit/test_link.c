/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a stranger that gets in, a message lost between two connected replicas, a hello of
 * another VM accepted, a truncated message accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/buf.h"
#include "base/clock.h"
#include "replica/link.h"
#include "replica/wire.h"

struct keys {
    uint8_t public[LINK_KEY_LEN], secret[LINK_KEY_LEN];
};

static struct keys make_keys(void)
{
    char p[41], s[41];
    struct keys k;

    assert_int_equal(zmq_curve_keypair(p, s), 0);
    assert_non_null(zmq_z85_decode(k.public, p));
    assert_non_null(zmq_z85_decode(k.secret, s));
    return k;
}

static struct link *open_end(bool bind, const char *endpoint, const struct keys *own,
                             const struct keys *peer)
{
    struct link_config cfg = {.bind = bind,
                              .endpoint = endpoint,
                              .incarnation = bind ? 0x1100 : 22,
                              .peer = bind ? 22 : 0x1100};
    struct plx_err err = {0};
    struct link *l;

    memcpy(cfg.secret, own->secret, LINK_KEY_LEN);
    memcpy(cfg.peer_public, peer->public, LINK_KEY_LEN);
    if (link_open(&cfg, &l, &err) != 0) {
        print_error("%s\n", err.msg);
        fail();
    }
    return l;
}

/* Pump both ends until @at has a message or the time is over. */
static bool pump(struct link *at, struct link *other, const uint8_t **data, size_t *len,
                 unsigned ms)
{
    uint64_t end = clock_mono_ns() + ms * UINT64_C(1000000);
    const uint8_t *d;
    size_t n;

    while (clock_mono_ns() < end) {
        if (link_recv(at, data, len) == 1) {
            return true;
        }
        (void)link_recv(other, &d, &n);
        clock_sleep_ns(1000000);
    }
    return false;
}

static const char *endpoint(void)
{
    static char e[64];

    (void)snprintf(e, sizeof e, "ipc:///tmp/pollux-test-link-%d", (int)getpid());
    return e;
}

static void messages_go_both_ways(void **state)
{
    struct keys a = make_keys(), b = make_keys();
    struct link *p = open_end(true, endpoint(), &a, &b), *q = open_end(false, endpoint(), &b, &a);
    const uint8_t *data;
    size_t len;
    bool sent = false;

    (void)state;
    for (int i = 0; i < 1000 && !sent; i++) { /* until the handshake is over */
        (void)link_recv(p, &data, &len);
        sent = link_send(q, "to primary", 10);
        clock_sleep_ns(2000000);
    }
    assert_true(sent);
    assert_true(pump(p, q, &data, &len, 3000));
    assert_int_equal(len, 10);
    assert_memory_equal(data, "to primary", 10);
    assert_true(link_send(p, "to backup", 9));
    assert_true(pump(q, p, &data, &len, 3000));
    assert_memory_equal(data, "to backup", 9);
    link_close(p);
    link_close(q);
}

static void a_stranger_is_not_let_in(void **state)
{
    struct keys a = make_keys(), b = make_keys(), stranger = make_keys();
    struct link *p = open_end(true, endpoint(), &a, &b);
    struct link *q = open_end(false, endpoint(), &stranger, &a);
    const uint8_t *data;
    size_t len;

    (void)state;
    for (int i = 0; i < 100; i++) {
        (void)link_send(q, "let me in", 9);
        assert_int_equal(link_recv(p, &data, &len), 0);
        clock_sleep_ns(3000000);
    }
    link_close(p);
    link_close(q);
}

static void wire_round_trips_and_refuses(void **state)
{
    struct rep_identity id = {.cluster = {1}, .vm = {2}}, other = {.cluster = {1}, .vm = {3}};
    struct rep_msg m = {.kind = REP_HELLO,
                        .epoch = 3,
                        .from = 4,
                        .to = 5,
                        .seq = 6,
                        .ran = 7,
                        .released = 8,
                        .nonce = 9,
                        .start_ns = 10,
                        .resend = true,
                        .digest = {11, 12},
                        .data = (const uint8_t *)"data",
                        .len = 4};
    struct rep_msg got;
    struct rep_wire *w;
    struct wbuf b, again;

    (void)state;
    wbuf_init(&b);
    wbuf_init(&again);
    rep_wire_encode(&m, &id, &b);
    assert_int_equal(rep_wire_decode(b.data, b.len, &id, &w, &got), 0);
    assert_int_equal(got.len, 4);
    assert_memory_equal(got.data, "data", 4);
    assert_true(got.from == 4 && got.resend && got.digest.hi == 12);
    rep_wire_encode(&got, &id, &again);
    assert_int_equal(again.len, b.len);
    assert_memory_equal(again.data, b.data, b.len);
    rep_wire_free(w);
    assert_int_equal(rep_wire_decode(b.data, b.len, &other, &w, &got), PLX_EAUTH);
    assert_int_equal(rep_wire_decode(b.data, b.len - 1, &id, &w, &got), PLX_ECORRUPT);
    assert_int_equal(rep_wire_decode("", 0, &id, &w, &got), PLX_EVERSION);
    wbuf_free(&b);
    wbuf_free(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_go_both_ways),
        cmocka_unit_test(a_stranger_is_not_let_in),
        cmocka_unit_test(wire_round_trips_and_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
