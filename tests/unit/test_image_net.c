/* SPDX-License-Identifier: Apache-2.0
 * Hunts: clients that starve others, or fill a server's memory; a read that waits behind the
 * background; a server's death that a guest sees; bytes that pass for a segment and are none;
 * strangers who are let in. */
#include "storage/client_priv.h"
#include "storage/server_queue.h"
#include "storage/server_wire.h"
#include "storage/stream.h"
#include "tests/unit/server_fixture.h"

/* --- whose turn it is ----------------------------------------------------------------------- */

static struct seg_id id_of(unsigned client, unsigned n)
{
    struct seg_id id = {{(uint8_t)client, (uint8_t)n, (uint8_t)(n >> 8)}};

    return id;
}

static void clients_get_equal_shares_whatever_they_ask(void **state)
{
    static const uint64_t sizes[3] = {4000, 32000, 200000};
    static struct queue_client c[3];
    struct queue q = {NULL};
    uint64_t bytes[3] = {0};
    struct seg_id id;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        queue_client_init(&c[i], UINT64_MAX);
        for (unsigned n = 0; n < 3000; n++) {
            assert_int_equal(queue_want(&q, &c[i], 2, (struct seg_id[]){id_of(i, n)}), 0);
        }
    }
    while (bytes[0] + bytes[1] + bytes[2] < 20 << 20) {
        struct queue_client *turn = queue_next(&q, &id);
        assert_non_null(turn);
        unsigned i = (unsigned)(turn - c);
        assert_int_equal(id.sha[0], i);
        queue_sent(&q, turn, sizes[i]);
        bytes[i] += sizes[i];
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_in_range(bytes[i], 6 << 20, 8 << 20);
        queue_client_free(&q, &c[i]);
    }
    assert_null(q.turn);
}

static void a_client_that_takes_nothing_in_gets_one_window(void **state)
{
    struct queue_client slow, quick;
    struct queue q = {NULL};
    struct seg_id id;
    uint64_t sent = 0;

    (void)state;
    queue_client_init(&slow, 100000);
    queue_client_init(&quick, 100000);
    for (unsigned n = 0; n < 100; n++) {
        assert_int_equal(queue_want(&q, &slow, 0, (struct seg_id[]){id_of(0, n)}), 0);
        assert_int_equal(queue_want(&q, &quick, 0, (struct seg_id[]){id_of(1, n)}), 0);
    }
    for (;;) {
        struct queue_client *turn = queue_next(&q, &id);
        if (turn == NULL) {
            break;
        }
        queue_sent(&q, turn, 30000);
        if (turn == &quick) {
            sent += 30000;
            assert_int_equal(queue_credit(&q, &quick, sent), 0);
        }
    }
    assert_int_equal(sent, 100 * 30000);
    assert_int_equal(slow.sent, 120000); /* the window, and what was under way */
    assert_int_equal(queue_credit(&q, &slow, 120001), PLX_EINVAL);
    assert_int_equal(queue_credit(&q, &slow, 120000), 0);
    assert_ptr_equal(queue_next(&q, &id), &slow);
    queue_sent(&q, &slow, 1);
    assert_int_equal(queue_credit(&q, &slow, 5), PLX_EINVAL); /* backwards */
    queue_client_free(&q, &slow);
    queue_client_free(&q, &quick);
}

static void what_is_urgent_goes_first_and_too_much_is_refused(void **state)
{
    struct queue_client c;
    struct queue q = {NULL};
    struct seg_id id;

    (void)state;
    queue_client_init(&c, UINT64_MAX);
    for (unsigned n = 0; n < QUEUE_MAX; n++) {
        assert_int_equal(
            queue_want(&q, &c, n % 3 == 0 ? 2 : n % 3, (struct seg_id[]){id_of(n % 3, n)}), 0);
    }
    assert_int_equal(queue_want(&q, &c, 0, (struct seg_id[]){id_of(9, 9)}), PLX_ERANGE);
    assert_int_equal(queue_want(&q, &c, 3, (struct seg_id[]){id_of(9, 9)}), PLX_EINVAL);
    (void)queue_next(&q, &id);
    queue_sent(&q, &c, 100);
    assert_int_equal(queue_want(&q, &c, 0, (struct seg_id[]){id_of(9, 9)}), 0);
    assert_ptr_equal(queue_next(&q, &id), &c);
    assert_int_equal(id.sha[0], 9);
    queue_sent(&q, &c, 100);
    queue_client_free(&q, &c);
}

/* --- servers and clients -------------------------------------------------------------------- */

struct session {
    struct running servers[2];
    void *zmq;
    struct store *cache;
    struct image_client *client;
    struct image_ref ref;
    struct manifest m;
    struct stream *stream;
};

static bool next(void *ctx, struct seg_id *id, enum client_urgency *urgency)
{
    struct session *s = ctx;
    struct stream *stream = __atomic_load_n(&s->stream, __ATOMIC_ACQUIRE);

    return stream != NULL && stream_next(stream, id, urgency);
}

static void arrived(void *ctx, const struct seg_id *id, uint32_t len, enum client_urgency urgency)
{
    struct session *s = ctx;
    struct stream *stream = __atomic_load_n(&s->stream, __ATOMIC_ACQUIRE);

    if (stream != NULL) {
        stream_arrived(stream, id, len, urgency);
    }
}

static void open_session(struct store_fixture *f, struct session *s, unsigned nservers,
                         bool background)
{
    struct plx_err err = {{0}};
    struct stream_config sc = {.name = "img:1", .manifest = &s->m};
    struct wbuf text;
    struct stream *stream;

    must(curve_generate(&client_key, &err), &err);
    for (unsigned i = 0; i < nservers; i++) {
        must(curve_generate(&s->servers[i].key, &err), &err);
        start_server(&s->servers[i], f->s);
    }
    s->zmq = zmq_ctx_new();
    must(store_open_memory(&s->cache, &err), &err);
    struct image_client_config cfg = client_of(s->zmq, s->cache, s->servers, nservers);
    cfg.next = background ? next : NULL;
    cfg.arrived = arrived;
    cfg.ctx = s;
    must(image_client_open(&cfg, &s->client, &err), &err);
    must(image_client_image(s->client, "img", "1", WAIT_MS, &s->ref, &err), &err);
    must(store_get_blob(&s->ref.manifest, image_client_fetch, s->client, &text, &err), &err);
    must(image_manifest_open(&s->ref, text.data, text.len, &s->m, &err), &err);
    wbuf_free(&text);
    sc.cache = s->cache;
    sc.client = s->client;
    must(stream_open(&sc, &stream, &err), &err);
    __atomic_store_n(&s->stream, stream, __ATOMIC_RELEASE);
    image_client_poke(s->client);
}

static void close_session(struct session *s)
{
    stream_stop(s->stream);
    image_client_stop(s->client);
    image_client_close(s->client);
    (void)disk_close(stream_disk(s->stream), NULL);
    manifest_free(&s->m);
    image_ref_free(&s->ref);
    (void)zmq_ctx_term(s->zmq);
    store_close(s->cache);
}

static void assert_reads(struct session *s, const uint8_t *data, size_t off, size_t len)
{
    struct plx_err err = {{0}};
    uint8_t *back = malloc(len);

    must(disk_read(stream_disk(s->stream), back, len, off, &err), &err);
    assert_memory_equal(back, data + off, len);
    free(back);
}

static void a_disk_reads_what_was_pushed_and_nothing_comes_twice(void **state)
{
    struct store_fixture *f = *state;
    struct session s = {.zmq = NULL};
    uint8_t *data = make_contents(LEN, 1);
    struct image_server_stats st;
    struct stream_progress p;
    struct prng g;
    struct plx_err err = {{0}};

    must(push_bytes(f, "img", "1", data, LEN, NULL, &err), &err);
    open_session(f, &s, 1, false);
    prng_seed(&g, 2);
    for (int i = 0; i < 300; i++) {
        size_t off = (size_t)prng_below(&g, LEN / 512) * 512;
        size_t len = (1 + (size_t)prng_below(&g, 256)) * 512;
        assert_reads(&s, data, off, len < LEN - off ? len : LEN - off);
    }
    assert_reads(&s, data, 0, LEN);
    stream_progress(s.stream, &p);
    assert_int_equal(p.here, p.segments);
    image_server_stats(s.servers[0].server, &st);
    /* The segments, each distinct one once, and the manifest. */
    assert_true(st.segments <= p.segments + s.ref.manifest.nparts);
    assert_int_equal(p.needed + p.profile + p.rest, st.segments - s.ref.manifest.nparts);
    close_session(&s);
    stop_server(&s.servers[0]);
    free(data);
}

static void the_background_fetches_the_rest(void **state)
{
    struct store_fixture *f = *state;
    struct session s = {.zmq = NULL};
    uint8_t *data = make_contents(LEN, 3);
    struct stream_progress p;
    struct plx_err err = {{0}};
    uint64_t end = clock_mono_ns() + WAIT_MS * UINT64_C(1000000);

    must(push_bytes(f, "img", "1", data, LEN, NULL, &err), &err);
    open_session(f, &s, 1, true);
    do {
        clock_sleep_ns(5000000);
        stream_progress(s.stream, &p);
    } while (p.here < p.segments && clock_mono_ns() < end);
    assert_int_equal(p.here, p.segments);
    assert_true(p.rest > 0);
    stop_server(&s.servers[0]); /* all is here: no server is needed any more */
    assert_reads(&s, data, 0, LEN);
    close_session(&s);
    free(data);
}

struct late_read {
    struct session *s;
    const uint8_t *data;
    bool done;
};

static void *read_all(void *arg)
{
    struct late_read *r = arg;

    for (size_t off = 0; off < LEN; off += 65536) {
        assert_reads(r->s, r->data, off, 65536);
    }
    __atomic_store_n(&r->done, true, __ATOMIC_RELEASE);
    return NULL;
}

/* A read waits while its server is gone, and goes on when it is there again. */
static void a_dead_server_is_latency_not_an_error(void **state)
{
    struct store_fixture *f = *state;
    struct session s = {.zmq = NULL};
    uint8_t *data = make_contents(LEN, 4);
    struct late_read r = {.s = &s, .data = data};
    struct plx_err err = {{0}};
    pthread_t t;

    must(push_bytes(f, "img", "1", data, LEN, NULL, &err), &err);
    open_session(f, &s, 1, false);
    assert_reads(&s, data, 0, 65536);
    stop_server(&s.servers[0]);
    assert_int_equal(pthread_create(&t, NULL, read_all, &r), 0);
    clock_sleep_ns(300000000);
    assert_false(__atomic_load_n(&r.done, __ATOMIC_ACQUIRE));
    start_server(&s.servers[0], f->s);
    (void)pthread_join(t, NULL);
    assert_true(r.done);
    close_session(&s);
    stop_server(&s.servers[0]);
    free(data);
}

static void another_server_takes_over(void **state)
{
    struct store_fixture *f = *state;
    struct session s = {.zmq = NULL};
    uint8_t *data = make_contents(LEN, 5);
    struct image_client_stats st;
    struct plx_err err = {{0}};

    must(push_bytes(f, "img", "1", data, LEN, NULL, &err), &err);
    open_session(f, &s, 2, false);
    assert_reads(&s, data, 0, 65536);
    stop_server(&s.servers[0]);
    assert_reads(&s, data, 0, LEN);
    image_client_stats(s.client, &st);
    assert_int_equal(st.server, 1);
    assert_true(st.switches >= 1);
    close_session(&s);
    stop_server(&s.servers[1]);
    free(data);
}

/* One that lacks a segment, or has it damaged, is passed over. */
static void a_server_without_a_segment_is_passed_over(void **state)
{
    struct store_fixture *f = *state;
    struct session s = {.zmq = NULL};
    struct store *whole = f->s, *poor;
    uint8_t *data = make_contents(LEN, 6);
    struct plx_err err = {{0}};

    must(push_bytes(f, "img", "1", data, LEN, NULL, &err), &err);
    open_session(f, &s, 2, false);
    stop_server(&s.servers[0]);
    must(store_open_memory(&poor, &err), &err);
    start_server(&s.servers[0], poor); /* in its place, with nothing */
    assert_reads(&s, data, 0, LEN);
    close_session(&s);
    stop_server(&s.servers[0]);
    stop_server(&s.servers[1]);
    store_close(poor);
    f->s = whole;
    free(data);
}

static void a_sweep_spares_what_a_client_has_open(void **state)
{
    struct store_fixture *f = *state;
    struct session s = {.zmq = NULL};
    uint8_t *data = make_contents(LEN, 7);
    struct seg_sweep swept;
    struct plx_err err = {{0}};

    must(push_bytes(f, "img", "1", data, LEN, NULL, &err), &err);
    fixture_reopen(f);
    open_session(f, &s, 1, false);
    must(image_remove(f->s, "img", "1", &err), &err);
    must(image_gc(f->s, &swept, &err), &err);
    assert_int_equal(swept.dropped, 0);
    assert_reads(&s, data, 0, LEN);
    close_session(&s);
    stop_server(&s.servers[0]);
    must(image_gc(f->s, &swept, &err), &err);
    assert_int_equal(swept.live, 0);
    free(data);
}

static void strangers_are_not_let_in(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct store *cache;
    struct image_client *c;
    struct image_ref ref;
    struct plx_err err = {{0}};
    void *zmq = zmq_ctx_new();

    must(curve_generate(&client_key, &err), &err);
    must(curve_generate(&r.key, &err), &err);
    start_server(&r, f->s);
    must(curve_generate(&client_key, &err), &err); /* another one than was allowed */
    must(store_open_memory(&cache, &err), &err);
    struct image_client_config cfg = client_of(zmq, cache, &r, 1);
    must(image_client_open(&cfg, &c, &err), &err);
    assert_int_equal(image_client_image(c, "img", "1", 400, &ref, &err), PLX_ETIMEDOUT);
    image_client_close(c);
    (void)zmq_ctx_term(zmq);
    store_close(cache);
    stop_server(&r);
}

static void unknown_images_are_said_to_be(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct store *cache;
    struct image_client *c;
    struct image_ref ref, *refs;
    struct plx_err err = {{0}};
    uint8_t *data = make_contents(1 << 20, 8);
    void *zmq = zmq_ctx_new();
    size_t n;

    must(push_bytes(f, "img", "1", data, 1 << 20, NULL, &err), &err);
    must(curve_generate(&client_key, &err), &err);
    must(curve_generate(&r.key, &err), &err);
    start_server(&r, f->s);
    must(store_open_memory(&cache, &err), &err);
    struct image_client_config cfg = client_of(zmq, cache, &r, 1);
    must(image_client_open(&cfg, &c, &err), &err);
    assert_int_equal(image_client_image(c, "other", "1", WAIT_MS, &ref, &err), PLX_ENOENT);
    assert_non_null(strstr(err.msg, "other:1"));
    must(image_client_list(c, "IM", "debian", "redis", WAIT_MS, &refs, &n, &err), &err);
    assert_int_equal(n, 1);
    assert_string_equal(refs[0].name, "img");
    image_ref_free(&refs[0]);
    free(refs);
    must(image_client_list(c, "", "fedora", "", WAIT_MS, &refs, &n, &err), &err);
    assert_int_equal(n, 0);
    free(refs);
    image_client_close(c);
    (void)zmq_ctx_term(zmq);
    store_close(cache);
    stop_server(&r);
    free(data);
}

/* --- what counts as what --------------------------------------------------------------------- */

static const uint8_t ahead_bytes[32] = "fetched ahead, and then needed";

struct ahead {
    struct image_client *client;
    struct seg_id id;
    bool given;
    enum client_urgency counted;
};

static bool give_once(void *ctx, struct seg_id *id, enum client_urgency *urgency)
{
    struct ahead *a = ctx;
    bool fresh = !a->given;

    a->given = true;
    *id = a->id;
    *urgency = CLIENT_SOON;
    return fresh;
}

static void count(void *ctx, const struct seg_id *id, uint32_t len, enum client_urgency urgency)
{
    struct ahead *a = ctx;

    assert_true(seg_id_eq(id, &a->id) && len == sizeof ahead_bytes);
    a->counted = urgency;
}

static void *fetch_it(void *arg)
{
    struct ahead *a = arg;
    uint8_t back[sizeof ahead_bytes];
    struct plx_err err = {{0}};

    must(image_client_fetch(a->client, &a->id, back, sizeof back, &err), &err);
    assert_memory_equal(back, ahead_bytes, sizeof back);
    return NULL;
}

/* A guest that comes for a segment while it is on its way did not cause it to be fetched. */
static void what_was_fetched_ahead_counts_so_although_it_is_needed(void **state)
{
    Img__FromServer m = IMG__FROM_SERVER__INIT;
    Img__Segment segment = IMG__SEGMENT__INIT;
    struct ahead a = {.counted = CLIENT_REST};
    struct image_client_stats st;
    struct store *cache;
    struct plx_err err = {{0}};
    uint8_t bytes[256];
    pthread_t t;
    bool joined = false;

    (void)state;
    sha256(ahead_bytes, sizeof ahead_bytes, a.id.sha);
    must(store_open_memory(&cache, &err), &err);
    assert_int_equal(image_client_open_detached(cache, &a.client), 0);
    a.client->cfg.next = give_once;
    a.client->cfg.arrived = count;
    a.client->cfg.ctx = &a;
    (void)pthread_mutex_lock(&a.client->lock);
    client_want_more_locked(a.client, clock_mono_ns());
    (void)pthread_mutex_unlock(&a.client->lock);
    assert_int_equal(pthread_create(&t, NULL, fetch_it, &a), 0);
    while (!joined) {
        clock_sleep_ns(1000000);
        (void)pthread_mutex_lock(&a.client->lock);
        joined = a.client->fetches != NULL && a.client->fetches->waiters == 1;
        (void)pthread_mutex_unlock(&a.client->lock);
    }
    segment.id = (ProtobufCBinaryData){.len = SHA256_LEN, .data = a.id.sha};
    segment.raw_len = sizeof ahead_bytes;
    segment.data =
        (ProtobufCBinaryData){.len = sizeof ahead_bytes, .data = (uint8_t *)(uintptr_t)ahead_bytes};
    m.version = CLIENT_PROTOCOL;
    m.msg_case = IMG__FROM_SERVER__MSG_SEGMENT;
    m.segment = &segment;
    image_client_message(a.client, bytes, img__from_server__pack(&m, bytes));
    (void)pthread_join(t, NULL);
    image_client_stats(a.client, &st);
    assert_int_equal(a.counted, CLIENT_SOON);
    assert_int_equal(st.got[CLIENT_SOON].segments, 1);
    assert_int_equal(st.got[CLIENT_NEEDED].segments, 0);
    assert_int_equal(st.fetches, 1);
    image_client_close(a.client);
    store_close(cache);
}

/* It sends more than the server takes in ahead, and goes before the server looks. The second
 * heartbeat of libzmq 4.3 would abort the process. */
static void who_leaves_a_busy_server_does_not_end_it(void **state)
{
    enum { MORE_THAN_TAKEN_IN = 3000, LINGER_MS = 2000 };
    struct store_fixture *f = *state;
    struct running r = {.endpoint = ""};
    struct image_server_stats st;
    struct image_client *client;
    struct store *cache;
    struct image_ref ref;
    struct plx_err err = {{0}};
    void *zmq = zmq_ctx_new(), *dealer = zmq_socket(zmq, ZMQ_DEALER);
    int linger = LINGER_MS, unbounded = 0;

    must(curve_generate(&client_key, &err), &err);
    must(curve_generate(&r.key, &err), &err);
    open_server(&r, f->s);
    (void)zmq_setsockopt(dealer, ZMQ_LINGER, &linger, sizeof linger);
    (void)zmq_setsockopt(dealer, ZMQ_SNDHWM, &unbounded, sizeof unbounded);
    must(curve_client(dealer, &client_key, r.key.public_key, &err), &err);
    assert_int_equal(zmq_connect(dealer, r.endpoint), 0);
    for (unsigned i = 0; i < MORE_THAN_TAKEN_IN; i++) {
        assert_int_equal(zmq_send(dealer, "?", 1, 0), 1);
    }
    (void)zmq_close(dealer);
    (void)zmq_ctx_term(zmq); /* all is written, or LINGER_MS */
    clock_sleep_ns(IMAGE_PING_MS * UINT64_C(11000000));
    run_server(&r);
    zmq = zmq_ctx_new();
    must(store_open_memory(&cache, &err), &err);
    struct image_client_config cfg = client_of(zmq, cache, &r, 1);
    must(image_client_open(&cfg, &client, &err), &err);
    assert_int_equal(image_client_image(client, "none", "1", WAIT_MS, &ref, &err), PLX_ENOENT);
    image_server_stats(r.server, &st);
    assert_true(st.malformed >= 1000);
    image_client_close(client);
    (void)zmq_ctx_term(zmq);
    store_close(cache);
    stop_server(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients_get_equal_shares_whatever_they_ask),
        cmocka_unit_test(a_client_that_takes_nothing_in_gets_one_window),
        cmocka_unit_test(what_is_urgent_goes_first_and_too_much_is_refused),
        cmocka_unit_test(what_was_fetched_ahead_counts_so_although_it_is_needed),
        BOTH(a_disk_reads_what_was_pushed_and_nothing_comes_twice),
        BOTH(the_background_fetches_the_rest),
        DIR_ONLY(a_dead_server_is_latency_not_an_error),
        DIR_ONLY(another_server_takes_over),
        DIR_ONLY(a_server_without_a_segment_is_passed_over),
        BOTH(a_sweep_spares_what_a_client_has_open),
        DIR_ONLY(strangers_are_not_let_in),
        DIR_ONLY(who_leaves_a_busy_server_does_not_end_it),
        DIR_ONLY(unknown_images_are_said_to_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
