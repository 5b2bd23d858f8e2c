/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a frame split or joined by the socket that comes out wrong, a length that is believed, a
 * descriptor that leaks or goes with the wrong packet; a key file accepted although it must not be,
 * a CURVE client let in without an allowed key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/check.h"
#include "base/io.h"
#include "base/prng.h"
#include "proto/frame.h"
#include "proto/keys.h"

static void frames_survive_any_split(void **state)
{
    struct prng g;

    (void)state;
    prng_seed(&g, 3);
    for (int round = 0; round < 50; round++) {
        struct wbuf w;
        struct frame_reader r;
        unsigned next = 0, count = 20;
        wbuf_init(&w);
        frame_reader_init(&r);
        for (unsigned i = 0; i < count; i++) {
            uint8_t body[64];
            memset(body, (int)i, sizeof body);
            frame_put(&w, body, i * 3);
        }
        for (size_t at = 0; at < w.len;) {
            size_t n = 1 + prng_below(&g, 40);
            n = n > w.len - at ? w.len - at : n;
            assert_int_equal(frame_feed(&r, w.data + at, n), 0);
            at += n;
            const uint8_t *data;
            size_t len;
            while (frame_next(&r, &data, &len) == 1) {
                assert_int_equal(len, next * 3);
                for (size_t k = 0; k < len; k++) {
                    assert_int_equal(data[k], next);
                }
                next++;
            }
        }
        assert_int_equal(next, count);
        frame_reader_free(&r);
        wbuf_free(&w);
    }
}

static void an_absurd_length_ends_the_connection(void **state)
{
    struct frame_reader r;
    uint32_t n = FRAME_MAX + 1;
    const uint8_t *data;
    size_t len;
    int sv[2];
    struct wbuf w;
    struct plx_err err;

    (void)state;
    frame_reader_init(&r);
    assert_int_equal(frame_feed(&r, &n, sizeof n), 0);
    assert_int_equal(frame_next(&r, &data, &len), PLX_ERANGE);
    frame_reader_free(&r);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    wbuf_init(&w);
    assert_int_equal(io_write_full(sv[0], &n, sizeof n), 0);
    assert_int_equal(frame_read_fd(sv[1], &w, &err), PLX_ERANGE);
    assert_int_equal(frame_write_fd(sv[0], "abc", 3, &err), 0);
    assert_int_equal(frame_read_fd(sv[1], &w, &err), 0);
    assert_int_equal(w.len, 3);
    (void)close(sv[0]);
    assert_int_equal(frame_read_fd(sv[1], &w, &err), PLX_ECONN);
    (void)close(sv[1]);
    wbuf_free(&w);
}

static void packets_carry_their_descriptors(void **state)
{
    int sv[2], pipefd[2], fds[PACKET_FDS_MAX];
    unsigned nfds;
    char buf[64], c;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
    assert_int_equal(pipe(pipefd), 0);
    assert_int_equal(packet_send(sv[0], "one", 3, NULL, 0), 0);
    assert_int_equal(packet_send(sv[0], "two", 3, pipefd, 2), 0);
    assert_int_equal(packet_send(sv[0], "much too long", 13, pipefd, 1), 0);
    assert_int_equal(packet_recv(sv[1], buf, sizeof buf, fds, &nfds), 3);
    assert_int_equal(nfds, 0);
    assert_int_equal(packet_recv(sv[1], buf, sizeof buf, fds, &nfds), 3);
    assert_int_equal(nfds, 2);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(read(pipefd[0], &c, 1), 1);
    (void)close(fds[0]);
    (void)close(fds[1]);
    assert_int_equal(packet_recv(sv[1], buf, 4, fds, &nfds), -1);
    assert_int_equal(errno, EMSGSIZE);
    assert_int_equal(nfds, 0);
    (void)close(pipefd[1]);
    assert_int_equal(read(pipefd[0], &c, 1), 0); /* no writer is left open anywhere */
    (void)close(pipefd[0]);
    (void)close(sv[0]);
    assert_int_equal(packet_recv(sv[1], buf, sizeof buf, fds, &nfds), 0);
    (void)close(sv[1]);
}

static void key_files(void **state)
{
    char dir[] = "/tmp/plx-keys-XXXXXX", path[64];
    struct curve_pair a, b;
    struct plx_err err;
    char hex[CURVE_KEY_HEX];

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/key", dir);
    assert_int_equal(curve_generate(&a, &err), 0);
    assert_int_equal(curve_write_file(path, &a, &err), 0);
    assert_int_equal(curve_write_file(path, &a, &err), PLX_EEXIST);
    assert_int_equal(curve_read_file(path, &b, &err), 0);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(curve_read_file(path, &b, &err), PLX_EACCES);
    (void)unlink(path);
    b = a;
    b.public_key[0] ^= 1;
    assert_int_equal(curve_write_file(path, &b, &err), 0);
    assert_int_equal(curve_read_file(path, &b, &err), PLX_ECORRUPT);
    (void)unlink(path);
    assert_int_equal(curve_read_file(path, &b, &err), PLX_ENOENT);
    (void)rmdir(dir);
    assert_true(curve_from_hex(curve_hex(a.public_key, hex), b.public_key));
    assert_memory_equal(a.public_key, b.public_key, CURVE_KEY_LEN);
    assert_false(curve_from_hex("12", b.public_key));
    hex[3] = 'g';
    assert_false(curve_from_hex(hex, b.public_key));
}

/* A PUSH with an allowed key is heard and named; one with another key is not heard. */
static void only_allowed_keys_get_in(void **state)
{
    void *ctx = zmq_ctx_new();
    struct authoriser *auth;
    struct curve_pair server, friend, stranger;
    struct plx_err err;
    char endpoint[256];
    size_t len = sizeof endpoint;
    int zero = 0, wait_ms = 3000, brief_ms = 200;
    zmq_msg_t m;

    (void)state;
    assert_int_equal(authoriser_start(ctx, &auth, &err), 0);
    assert_int_equal(curve_generate(&server, &err), 0);
    assert_int_equal(curve_generate(&friend, &err), 0);
    assert_int_equal(curve_generate(&stranger, &err), 0);
    assert_int_equal(authoriser_allow(auth, friend.public_key, "2"), 0);
    void *pull = zmq_socket(ctx, ZMQ_PULL);
    assert_int_equal(curve_server(pull, &server, &err), 0);
    assert_int_equal(zmq_bind(pull, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(pull, ZMQ_LAST_ENDPOINT, endpoint, &len), 0);
    void *bad = zmq_socket(ctx, ZMQ_PUSH);
    assert_int_equal(curve_client(bad, &stranger, server.public_key, &err), 0);
    assert_int_equal(zmq_setsockopt(bad, ZMQ_LINGER, &zero, sizeof zero), 0);
    assert_int_equal(zmq_connect(bad, endpoint), 0);
    assert_int_equal(zmq_send(bad, "evil", 4, ZMQ_DONTWAIT), 4);
    assert_int_equal(zmq_setsockopt(pull, ZMQ_RCVTIMEO, &brief_ms, sizeof brief_ms), 0);
    assert_int_equal(zmq_msg_init(&m), 0);
    assert_int_equal(zmq_msg_recv(&m, pull, 0), -1);
    assert_true(authoriser_refused(auth) > 0);
    void *good = zmq_socket(ctx, ZMQ_PUSH);
    assert_int_equal(curve_client(good, &friend, server.public_key, &err), 0);
    assert_int_equal(zmq_setsockopt(good, ZMQ_LINGER, &zero, sizeof zero), 0);
    assert_int_equal(zmq_connect(good, endpoint), 0);
    assert_int_equal(zmq_send(good, "hello", 5, 0), 5);
    assert_int_equal(zmq_setsockopt(pull, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms), 0);
    assert_int_equal(zmq_msg_recv(&m, pull, 0), 5);
    assert_string_equal(zmq_msg_gets(&m, "User-Id"), "2");
    (void)zmq_msg_close(&m);
    (void)zmq_close(bad);
    (void)zmq_close(good);
    (void)zmq_close(pull);
    authoriser_stop(auth);
    (void)zmq_ctx_term(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_survive_any_split),
        cmocka_unit_test(an_absurd_length_ends_the_connection),
        cmocka_unit_test(packets_carry_their_descriptors),
        cmocka_unit_test(key_files),
        cmocka_unit_test(only_allowed_keys_get_in),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
