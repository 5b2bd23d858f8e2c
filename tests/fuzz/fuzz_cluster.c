/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_cluster.c - what other nodes say in Raft's name. First byte: which.
 *
 *   0  messages about tunnels, while Raft opens some of its own: who (2, 3; 4: Raft opens one),
 *      length (2 bytes), bytes; an acknowledgement of stream 1 is one of that opened last
 *   1  commands, as entries of the log: length (2 bytes), bytes
 *   2  the state, as a snapshot */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "consensus/roles.h"
#include "consensus/tunnel.h"
#include "tests/fuzz/fuzz.h"

enum { MESSAGES_MAX = 64, STREAMS_MAX = 128, TURNS_MAX = 1000 };

static struct raft_uv_transport transport;
static uint64_t opened; /* stream that was opened last */
static uv_stream_t *streams[STREAMS_MAX];
static unsigned nstreams, waiting;

/* --- stands for node_link.c ------------------------------------------------------------------ */

int node_link_send(struct node_link *l, uint32_t to, Cl__NodeMessage *msg)
{
    (void)l;
    PLX_CHECK(to == 2 || to == 3);
    if (msg->msg_case == CL__NODE_MESSAGE__MSG_TUNNEL_OPEN) {
        opened = msg->tunnel_open->stream;
    }
    return 0;
}

/* --- stands for Raft ------------------------------------------------------------------------- */

static char chunk[65536];

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    (void)h;
    (void)suggested;
    *buf = uv_buf_init(chunk, sizeof chunk);
}

static void on_closed(uv_handle_t *h)
{
    raft_free(h);
}

static void drop(uv_stream_t *s)
{
    for (unsigned i = 0; i < nstreams; i++) {
        if (streams[i] == s) {
            streams[i] = streams[--nstreams];
            uv_close((uv_handle_t *)s, on_closed);
            return;
        }
    }
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    (void)buf;
    if (n < 0) {
        drop(s);
    }
}

static void take_stream(struct uv_stream_s *s)
{
    PLX_CHECK(nstreams < STREAMS_MAX);
    streams[nstreams++] = s;
    (void)uv_read_start(s, on_alloc, on_read);
}

static void on_accept(struct raft_uv_transport *t, raft_id id, const char *address,
                      struct uv_stream_s *stream)
{
    PLX_CHECK(t == &transport && (id == 2 || id == 3) && address[0] != '\0');
    take_stream(stream);
}

static void on_connect(struct raft_uv_connect *req, struct uv_stream_s *stream, int status)
{
    PLX_CHECK((status == 0) == (stream != NULL) && waiting > 0);
    waiting--;
    if (stream != NULL) {
        uv_buf_t hello = uv_buf_init((char *)(uintptr_t) "hello", 5);
        take_stream(stream);
        (void)uv_try_write(stream, &hello, 1);
    }
    free(req);
}

static void on_transport_closed(struct raft_uv_transport *t)
{
    PLX_CHECK(t == &transport);
}

static void connect_one(void)
{
    struct raft_uv_connect *req = calloc(1, sizeof *req);

    PLX_CHECK(req != NULL);
    waiting++;
    PLX_CHECK(transport.connect(&transport, req, 2, "node-2", on_connect) == 0);
}

/* --------------------------------------------------------------------------------------------- */

static void hear(struct tunnels *t, uint32_t from, const uint8_t *data, size_t len)
{
    Cl__NodeMessage *m = cl__node_message__unpack(NULL, len, data);

    if (m == NULL) {
        return;
    }
    if (m->msg_case == CL__NODE_MESSAGE__MSG_TUNNEL_ACK && m->tunnel_ack->stream == 1) {
        m->tunnel_ack->stream = opened;
    }
    (void)tunnels_message(t, from, m);
    cl__node_message__free_unpacked(m, NULL);
}

static void hear_tunnels(const uint8_t *data, size_t size)
{
    uv_loop_t loop;

    PLX_CHECK(uv_loop_init(&loop) == 0);
    struct tunnels *t = tunnels_open(&loop, NULL, &transport);
    PLX_CHECK(t != NULL && transport.listen(&transport, on_accept) == 0);
    for (int i = 0; i < MESSAGES_MAX && size >= 3; i++) {
        uint32_t who = 2 + data[0] % 3U;
        data++;
        size--;
        size_t len = fuzz_length(&data, &size);
        if (who == 4) {
            connect_one();
        } else {
            hear(t, who, data, len);
        }
        (void)uv_run(&loop, UV_RUN_NOWAIT);
        data += len;
        size -= len;
    }
    transport.close(&transport, on_transport_closed);
    while (nstreams > 0) {
        drop(streams[0]);
    }
    tunnels_close(t);
    for (int i = 0; i < TURNS_MAX && uv_loop_alive(&loop); i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    }
    PLX_CHECK(waiting == 0 && uv_loop_close(&loop) == 0);
}

/* A state that was made can be told and read again. */
static void tell(const struct roles_state *s)
{
    struct roles_state copy;
    struct plx_err err = {0};
    struct wbuf out;

    wbuf_init(&out);
    roles_init(&copy);
    roles_encode(s, &out);
    PLX_CHECK(!out.failed && roles_decode(out.data, out.len, &copy, &err) == 0);
    PLX_CHECK(copy.n == s->n && copy.applied == s->applied);
    roles_free(&copy);
    wbuf_free(&out);
}

static void apply_commands(const uint8_t *data, size_t size)
{
    struct roles_state s;
    struct wbuf scratch;

    roles_init(&s);
    wbuf_init(&scratch);
    for (int i = 0; i < MESSAGES_MAX && size >= 2; i++) {
        size_t len = fuzz_length(&data, &size);
        struct plx_err err = {0};
        const struct roles_vm *vm;
        struct roles_cmd cmd;
        if (roles_cmd_decode(data, len, &cmd, &scratch, &err) == 0) {
            PLX_CHECK(roles_apply(&s, &cmd, &vm) < ROLES_RES_END);
        } else {
            PLX_CHECK(err.msg[0] != '\0');
        }
        data += len;
        size -= len;
    }
    tell(&s);
    wbuf_free(&scratch);
    roles_free(&s);
}

static void read_snapshot(const uint8_t *data, size_t size)
{
    struct roles_state s;
    struct plx_err err = {0};

    roles_init(&s);
    if (roles_decode(data, size, &s, &err) == 0) {
        tell(&s);
        roles_free(&s);
    } else {
        PLX_CHECK(err.msg[0] != '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_init("fuzz", LOG_ERROR);
    if (size == 0) {
        return 0;
    }
    switch (data[0] % 3) {
    case 0:
        hear_tunnels(data + 1, size - 1);
        break;
    case 1:
        apply_commands(data + 1, size - 1);
        break;
    default:
        read_snapshot(data + 1, size - 1);
        break;
    }
    return 0;
}
