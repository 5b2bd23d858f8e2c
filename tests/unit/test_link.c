/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a stranger that gets in or keeps others out, a message lost, cut or out of order between
 * two connected replicas, a hello of another VM accepted, a truncated message accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "proto/keys.h"
#include "replica/link.h"
#include "replica/wire.h"

static struct curve_pair make_keys(void)
{
    struct curve_pair k;
    struct plx_err err = {0};

    assert_int_equal(curve_generate(&k, &err), 0);
    return k;
}

static struct link *open_end(bool bind, const char *endpoint, const struct curve_pair *own,
                             const struct curve_pair *peer)
{
    struct link_config cfg = {.bind = bind, .endpoint = endpoint, .rekey = 50, .quiet_ms = 30000};
    struct plx_err err = {0};
    struct link *l;

    memcpy(cfg.secret, own->secret_key, LINK_KEY_LEN);
    memcpy(cfg.peer_public, peer->public_key, LINK_KEY_LEN);
    if (link_open(&cfg, &l, &err) != 0) {
        print_error("%s\n", err.msg);
        fail();
    }
    return l;
}

/* What the I/O loop of a replica does between two messages. */
static void serve(struct link *l, int timeout_ms)
{
    struct pollfd fds[LINK_FDS_MAX];

    link_pollfds(l, fds, true);
    (void)poll(fds, LINK_FDS_MAX, timeout_ms);
    link_ready(l, fds);
    link_tick(l, clock_mono_ns());
}

/* Serve both ends until @at has a message or the time is over. */
static bool pump(struct link *at, struct link *other, const uint8_t **data, size_t *len,
                 unsigned ms)
{
    uint64_t end = clock_mono_ns() + ms * UINT64_C(1000000);

    while (clock_mono_ns() < end) {
        if (link_recv(at, data, len) == 1) {
            return true;
        }
        serve(other, 0);
        serve(at, 1);
    }
    return false;
}

/* Until the handshake is over and a message from @from to @to is through. */
static bool connected(struct link *from, struct link *to)
{
    uint64_t end = clock_mono_ns() + UINT64_C(20000000000);
    const uint8_t *data;
    size_t len;

    while (clock_mono_ns() < end) {
        if (link_send(from, "?", 1)) {
            return pump(to, from, &data, &len, 5000) && len == 1 && data[0] == '?';
        }
        serve(from, 1);
        serve(to, 1);
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
    struct curve_pair a = make_keys(), b = make_keys();
    struct link *p = open_end(true, endpoint(), &a, &b), *q = open_end(false, endpoint(), &b, &a);
    const uint8_t *data;
    size_t len;

    (void)state;
    assert_true(connected(q, p));
    for (int i = 0; i < 300; i++) { /* past several changes of keys */
        assert_true(link_send(q, "to primary", 10));
        assert_true(link_send(p, "to backup", 9));
        assert_true(pump(p, q, &data, &len, 5000));
        assert_int_equal(len, 10);
        assert_memory_equal(data, "to primary", 10);
        assert_true(pump(q, p, &data, &len, 5000));
        assert_int_equal(len, 9);
        assert_memory_equal(data, "to backup", 9);
    }
    link_close(p);
    link_close(q);
}

/* One thread polls for everything but messages, and is not woken by them; another finds them there,
 * without having polled. */
static void a_reader_that_does_not_poll(void **state)
{
    struct curve_pair a = make_keys(), b = make_keys();
    struct link *p = open_end(true, endpoint(), &a, &b), *q = open_end(false, endpoint(), &b, &a);
    struct pollfd fds[LINK_FDS_MAX];
    const uint8_t *data;
    size_t len;

    (void)state;
    assert_int_equal(link_fd(p), -1);
    assert_true(connected(q, p));
    assert_true(link_fd(p) >= 0);
    while (link_recv(p, &data, &len) == 1) {
    }
    assert_true(link_send(q, "acknowledged", 12));
    link_pollfds(p, fds, false);
    assert_int_equal(poll(fds, LINK_FDS_MAX, 100), 0);
    assert_int_equal(link_recv(p, &data, &len), 0); /* nobody said that there is something */
    struct pollfd arrivals = {.fd = link_fd(p), .events = POLLIN};
    assert_int_equal(poll(&arrivals, 1, 5000), 1);
    link_look(p);
    assert_int_equal(link_recv(p, &data, &len), 1);
    assert_int_equal(len, 12);
    link_close(q);
    link_look(p);
    assert_int_equal(link_recv(p, &data, &len), 0);
    link_tick(p, clock_mono_ns()); /* the end was seen */
    assert_int_equal(link_fd(p), -1);
    link_close(p);
}

/* More than a socket holds: what is queued arrives whole and in order, what does not fit is said
 * to be lost. */
static void a_full_socket_keeps_messages_whole(void **state)
{
    struct curve_pair a = make_keys(), b = make_keys();
    struct link *p = open_end(true, endpoint(), &a, &b), *q = open_end(false, endpoint(), &b, &a);
    enum { BIG = 3000000, TRIES = 40 };
    static uint8_t big[BIG];
    const uint8_t *data;
    uint32_t sent = 0, i;
    size_t len;

    (void)state;
    assert_true(connected(p, q));
    for (i = 0; i < TRIES; i++) {
        memset(big, (int)i, BIG);
        memcpy(big, &i, sizeof i);
        if (!link_send(p, big, BIG - i)) {
            break;
        }
        sent++;
    }
    assert_in_range(sent, 15, TRIES - 1);
    assert_true(link_needs_poll(p));
    for (i = 0; i < sent; i++) {
        assert_true(pump(q, p, &data, &len, 10000));
        assert_int_equal(len, BIG - i);
        assert_memory_equal(data, &i, sizeof i);
        assert_int_equal(data[len - 1], i);
    }
    assert_false(link_needs_poll(p));
    assert_true(connected(p, q));
    link_close(p);
    link_close(q);
}

/* A peer that died and came back under the same keys is let in at once. */
static void a_new_connection_replaces_the_old(void **state)
{
    struct curve_pair a = make_keys(), b = make_keys();
    struct link *p = open_end(true, endpoint(), &a, &b), *q = open_end(false, endpoint(), &b, &a);

    (void)state;
    assert_true(connected(q, p));
    struct link *r = open_end(false, endpoint(), &b, &a); /* q is still there, and silent */
    assert_true(connected(r, p));
    assert_true(connected(p, r));
    link_close(q);
    assert_true(connected(p, r));
    link_close(p);
    p = open_end(true, endpoint(), &a, &b);
    assert_true(connected(r, p));
    link_close(p);
    link_close(r);
}

static void a_stranger_is_not_let_in(void **state)
{
    struct curve_pair a = make_keys(), b = make_keys(), stranger = make_keys();
    struct link *p = open_end(true, endpoint(), &a, &b);
    struct link *q = open_end(false, endpoint(), &stranger, &a);
    const uint8_t *data;
    size_t len;

    (void)state;
    for (int i = 0; i < 100; i++) {
        serve(q, 1);
        serve(p, 1);
        assert_false(link_send(q, "let me in", 9));
        assert_false(link_send(p, "secret", 6));
        assert_int_equal(link_recv(p, &data, &len), 0);
    }
    struct link *friend =
        open_end(false, endpoint(), &b, &a); /* whom the stranger does not keep out */
    for (int i = 0; i < 5; i++) {
        serve(q, 1);
        assert_true(connected(friend, p));
    }
    link_close(friend);
    link_close(p);
    /* And it is not connected to: whoever listens in the peer's place cannot prove its key. */
    struct link *trap = open_end(true, endpoint(), &stranger, &b);
    friend = open_end(false, endpoint(), &b, &a);
    for (int i = 0; i < 100; i++) {
        serve(friend, 1);
        serve(trap, 1);
        assert_false(link_send(friend, "secret", 6));
    }
    link_close(trap);
    link_close(friend);
    link_close(q);
}

/* Those who connect and say nothing, or nonsense, keep nobody out and cost no more than a place. */
static void silence_and_nonsense_are_given_up(void **state)
{
    struct curve_pair a = make_keys(), b = make_keys();
    struct link *p = open_end(true, endpoint(), &a, &b);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fds[20];

    (void)state;
    strcpy(at.sun_path, endpoint() + strlen("ipc://"));
    for (int i = 0; i < 20; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&at, sizeof at), 0);
        if (i % 2 == 0) {
            assert_int_equal(write(fds[i], "GET / HTTP/1.1\r\n\r\n", 18), 18);
        }
        serve(p, 1);
    }
    struct link *q = open_end(false, endpoint(), &b, &a);
    assert_true(connected(q, p));
    for (int i = 0; i < 20; i++) {
        (void)close(fds[i]);
    }
    assert_true(connected(p, q));
    link_close(p);
    link_close(q);
}

static void bad_endpoints_and_keys_are_refused(void **state)
{
    static const char *const bad[] = {
        "", "tcp://", "tcp://:", "tcp://nothing", "udp://1.2.3.4:5", "ipc://", "1.2.3.4:5"};
    struct curve_pair a = make_keys();
    struct link_config cfg = {.bind = true, .endpoint = endpoint()};
    struct plx_err err = {0};
    struct link *l;

    (void)state;
    memcpy(cfg.secret, a.secret_key, LINK_KEY_LEN);
    assert_int_equal(link_open(&cfg, &l, &err), PLX_EINVAL); /* a public key of zeros */
    memcpy(cfg.peer_public, a.public_key, LINK_KEY_LEN);
    for (size_t i = 0; i < PLX_COUNT(bad); i++) {
        cfg.endpoint = bad[i];
        err.msg[0] = '\0';
        assert_int_equal(link_open(&cfg, &l, &err), PLX_EINVAL);
        assert_null(l);
        assert_true(err.msg[0] != '\0');
    }
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
        cmocka_unit_test(a_reader_that_does_not_poll),
        cmocka_unit_test(a_full_socket_keeps_messages_whole),
        cmocka_unit_test(a_new_connection_replaces_the_old),
        cmocka_unit_test(a_stranger_is_not_let_in),
        cmocka_unit_test(silence_and_nonsense_are_given_up),
        cmocka_unit_test(bad_endpoints_and_keys_are_refused),
        cmocka_unit_test(wire_round_trips_and_refuses),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
