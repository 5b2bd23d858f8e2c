/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a push over the network that loses or doubles segments; one that a server's death, or a
 * sweep of what it had put, ends or spoils; bytes that are kept under a name that is not theirs;
 * names that lead out of the store; clients that push without leave; pushes that fail without a
 * word, or are denied and begun anew without end.
 */
#include <stdatomic.h>

#include "proto/image.pb-c.h"
#include "storage/server_wire.h"
#include "tests/unit/push_fixture.h"

struct pushing {
    struct store_fixture *f;
    struct pusher *to;
    const char *tag;
    const uint8_t *data;
    struct image_progress totals;
    void (*midway)(struct pushing *p); /* called once, when a third has been taken */
    struct running *server;
    pthread_t thread;
    int rc;
    struct plx_err err;
};

static int on_progress(void *ctx, const struct image_progress *totals)
{
    struct pushing *p = ctx;

    if (p->midway != NULL && totals->bytes > 0) {
        void (*midway)(struct pushing *) = p->midway;
        p->midway = NULL;
        midway(p);
    }
    return 0;
}

static void *push_it(void *arg)
{
    struct pushing *p = arg;
    struct image_push cfg = push_config("img", p->tag);
    struct disk *d = make_disk(p->f, p->tag, p->data, LEN);

    cfg.progress = on_progress;
    cfg.ctx = p;
    p->rc = image_push(p->to->remote, &cfg, d, NULL, &p->totals, &p->err);
    assert_int_equal(disk_close(d, NULL), 0);
    return NULL;
}

static void arrives_as_it_was(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct image_server_stats st;
    struct pusher to;
    uint8_t *data = make_contents(LEN, 1);
    struct pushing p = {.f = f, .to = &to, .tag = "1", .data = data};

    start(&r, f);
    open_pusher(&to, &r);
    (void)push_it(&p);
    must(p.rc, &p.err);
    assert_image(f, "img", "1", data, LEN);
    image_server_stats(r.server, &st);
    assert_int_equal(st.names, 1);
    assert_int_equal(st.put_segments, p.totals.segments - p.totals.shared + 1 /* manifest */);
    p.tag = "2";
    (void)push_it(&p);
    must(p.rc, &p.err);
    assert_int_equal(p.totals.shared, p.totals.segments);
    image_server_stats(r.server, &st);
    assert_int_equal(st.names, 2);
    close_pusher(&to);
    stop_server(&r);
    fixture_reopen(f);
    assert_image(f, "img", "2", data, LEN);
    free(data);
}

/* Two clients with the same disk: each segment is sent by one of them, and kept once. */
static void two_at_once_send_each_segment_once(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct image_server_stats st;
    struct pusher to[2];
    struct image_client_stats cs[2];
    uint8_t *data = make_contents(LEN, 2);
    struct pushing p[2] = {{.f = f, .to = &to[0], .tag = "1", .data = data},
                           {.f = f, .to = &to[1], .tag = "2", .data = data}};

    start(&r, f);
    for (int i = 0; i < 2; i++) {
        open_pusher(&to[i], &r);
    }
    assert_int_equal(pthread_create(&p[0].thread, NULL, push_it, &p[0]), 0);
    (void)push_it(&p[1]);
    (void)pthread_join(p[0].thread, NULL);
    image_server_stats(r.server, &st);
    for (int i = 0; i < 2; i++) {
        must(p[i].rc, &p[i].err);
        image_client_stats(to[i].client, &cs[i]);
        assert_image(f, "img", p[i].tag, data, LEN);
        close_pusher(&to[i]);
    }
    if (cs[0].switches + cs[1].switches == 0) { /* a slow host's server was never silent */
        assert_int_equal(st.shared_segments, 0);
        assert_int_equal(cs[0].pushed_bytes + cs[1].pushed_bytes, st.put_bytes);
    }
    assert_int_equal(p[0].totals.shared + p[1].totals.shared,
                     p[0].totals.segments + p[1].totals.segments - (st.put_segments - 2));
    stop_server(&r);
    free(data);
}

/* The server goes, and what it had taken in is swept away: the push waits, goes on, and puts again.
 */
static void lose_all(struct pushing *p)
{
    struct seg_sweep swept;
    struct plx_err err = {{0}};

    stop_server(p->server);
    fixture_reopen(p->f);
    must(image_gc(p->f->s, &swept, &err), &err);
    start_server(p->server, p->f->s);
}

static void a_server_that_loses_all_is_given_it_again(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct pusher to;
    uint8_t *data = make_contents(LEN, 3);
    struct pushing p = {
        .f = f, .to = &to, .tag = "1", .data = data, .midway = lose_all, .server = &r};

    start(&r, f);
    open_pusher(&to, &r);
    (void)push_it(&p);
    must(p.rc, &p.err);
    assert_image(f, "img", "1", data, LEN);
    close_pusher(&to);
    stop_server(&r);
    free(data);
}

/* One who was told that a segment is coming gets its turn when the one who promised it is gone. */
static void promises_end_with_those_who_made_them(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct pusher to[2];
    struct seg_id id[2] = {{{1}}, {{2}}};
    struct plx_err err = {{0}};
    uint8_t s[2];
    uint64_t end = clock_mono_ns() + WAIT_MS * UINT64_C(1000000);

    start(&r, f);
    for (int i = 0; i < 2; i++) {
        open_pusher(&to[i], &r);
    }
    must(image_client_look(to[0].client, id, 2, s, &err), &err);
    assert_int_equal(s[0] + s[1], 2 * SEG_ABSENT);
    must(image_client_look(to[1].client, id, 2, s, &err), &err);
    assert_int_equal(s[0] + s[1], 2 * SEG_COMING);
    close_pusher(&to[0]);
    while (s[0] == SEG_COMING && clock_mono_ns() < end) {
        clock_sleep_ns(5000000);
        must(image_client_look(to[1].client, id, 1, s, &err), &err);
    }
    assert_int_equal(s[0], SEG_ABSENT);
    close_pusher(&to[1]);
    stop_server(&r);
}

/* What is not its name is not kept, and who sent it hears of it. */
static void bytes_of_another_name_are_refused(void **state)
{
    static const uint8_t bytes[64] = "these are not the bytes of that name";
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct pusher to;
    struct seg_form form = {.codec = SEG_PLAIN, .raw_len = 64, .stored_len = 64, .data = bytes};
    struct seg_id id = {{9}}, real;
    struct plx_err err = {{0}};

    start(&r, f);
    open_pusher(&to, &r);
    must(image_client_put(to.client, &id, &form, &err), &err);
    assert_int_equal(image_client_sync(to.client, &err), PLX_EIO);
    assert_non_null(strstr(err.msg, "other contents than its name"));
    assert_int_equal(store_has(f->s, &id, &err), 0);
    assert_int_equal(image_client_put(to.client, &id, &form, &err), PLX_EIO);
    close_pusher(&to);
    open_pusher(&to, &r);
    sha256(bytes, sizeof bytes, real.sha);
    must(image_client_put(to.client, &real, &form, &err), &err);
    must(image_client_sync(to.client, &err), &err);
    assert_int_equal(store_has(f->s, &real, &err), 1);
    close_pusher(&to);
    stop_server(&r);
}

static int set_name(struct pusher *to, const struct image_ref *ref, struct seg_id *missing,
                    struct plx_err *err)
{
    struct wbuf text;

    wbuf_init(&text);
    assert_int_equal(image_ref_put(ref, &text), 0);
    int rc = image_client_name(to->client, text.data, text.len, missing, err);
    wbuf_free(&text);
    return rc;
}

/* A name leads to a whole image, and stays in the store's folder of names. */
static void names_are_looked_at(void **state)
{
    static const char *const names[] = {"../x", ".x", "x.tmp.1", "", "x:y", "x/y"};
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct pusher to;
    struct image_ref ref, other;
    struct seg_id missing, part;
    struct plx_err err = {{0}};
    uint8_t *data = make_contents(LEN, 4);

    must(push_bytes(f, "img", "1", data, LEN, NULL, &err), &err);
    must(image_find(f->s, "img", "1", &ref, &err), &err);
    start(&r, f);
    open_pusher(&to, &r);
    for (size_t i = 0; i < PLX_COUNT(names); i++) {
        other = ref;
        (void)strcpy(other.name, names[i]);
        assert_int_equal(set_name(&to, &other, &missing, &err), PLX_EIO);
        assert_non_null(strstr(err.msg, "damaged"));
    }
    other = ref;
    other.bytes += 512;
    assert_int_equal(set_name(&to, &other, &missing, &err), PLX_EIO);
    other = ref;
    other.sha[0] ^= 1;
    assert_int_equal(set_name(&to, &other, &missing, &err), PLX_EIO);
    part = ref.manifest.parts[0];
    ref.manifest.parts[0].sha[0] ^= 1;
    assert_int_equal(set_name(&to, &ref, &missing, &err), 1);
    assert_memory_equal(&missing, &ref.manifest.parts[0], sizeof missing);
    ref.manifest.parts[0] = part;
    (void)strcpy(ref.tag, "2");
    assert_int_equal(set_name(&to, &ref, &missing, &err), 0);
    assert_image(f, "img", "2", data, LEN);
    assert_int_equal(image_client_name(to.client, "rubbish", 7, &missing, &err), PLX_EIO);
    close_pusher(&to);
    stop_server(&r);
    image_ref_free(&ref);
    free(data);
}

static void who_may_only_read_is_told_so(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct image_client *c;
    struct image_server_stats st;
    struct store *none;
    struct seg_id id = {{3}};
    struct plx_err err = {{0}};
    uint8_t seen;
    void *zmq = zmq_ctx_new();
    int stop = 0;

    start(&r, f);
    stop_server(&r);
    client_may = IMAGE_USER_READS;
    start_server(&r, f->s);
    must(store_open_memory(&none, &err), &err);
    struct image_client_config cfg = client_of(zmq, none, &r, 1);
    cfg.interrupted = &stop;
    must(image_client_open(&cfg, &c, &err), &err);
    assert_int_equal(image_client_may_push(c, WAIT_MS, &err), PLX_EACCES);
    assert_non_null(strstr(err.msg, "may not push"));
    /* One that asks nevertheless does not even reach the server. */
    assert_int_equal(image_client_look(c, &id, 1, &seen, &err), PLX_EACCES);
    assert_non_null(strstr(err.msg, "may not push"));
    stop = 1;
    assert_int_equal(image_client_look(c, &id, 1, &seen, &err), PLX_ECANCELED);
    image_client_close(c);
    image_server_stats(r.server, &st);
    assert_int_equal(st.put_segments + st.malformed, 0);
    (void)zmq_ctx_term(zmq);
    stop_server(&r);
    store_close(none);
}

/* --- what goes wrong ---------------------------------------------------------------------------
 */

/* Bytes like no others, and their name. */
static struct seg_form make_segment(uint32_t n, uint8_t bytes[64], struct seg_id *id)
{
    memset(bytes, 0x5a, 64);
    memcpy(bytes, &n, sizeof n);
    sha256(bytes, 64, id->sha);
    return (struct seg_form){.codec = SEG_PLAIN, .raw_len = 64, .stored_len = 64, .data = bytes};
}

/* A push that failed is committed too, by one who does not ask how that went. */
static void a_failure_may_be_ignored(void **state)
{
    static const uint8_t bytes[64] = "these are not the bytes of that name";
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct pusher to;
    struct seg_form form = {.codec = SEG_PLAIN, .raw_len = 64, .stored_len = 64, .data = bytes};
    struct seg_id id = {{9}}, missing;
    struct plx_err err = {{0}};

    start(&r, f);
    open_pusher(&to, &r);
    assert_int_equal(image_client_name(to.client, "rubbish", 7, &missing, NULL), PLX_EIO);
    must(image_client_put(to.client, &id, &form, &err), &err);
    assert_int_equal(store_commit(to.remote, NULL), PLX_EIO);
    assert_int_equal(image_client_put(to.client, &id, &form, NULL), PLX_EIO);
    close_pusher(&to);
    stop_server(&r);
}

/* Who promised them is gone: they are put after all, and were not shared. */
static void what_does_not_come_is_put_and_counted(void **state)
{
    struct store_fixture *f = *state;
    uint8_t *data = make_contents(LEN, 6);
    struct disk *d = make_disk(f, "1", data, LEN);
    struct image_push cfg = push_config("img", "1");
    struct image_progress totals;
    struct plx_err err = {{0}};
    struct seg_ops ops;
    struct store *s = open_odd(f, &ops);

    cfg.threads = 1;
    odd.coming = true;
    must(image_push(s, &cfg, d, NULL, &totals, &err), &err);
    assert_false(odd.coming);
    assert_int_equal(odd.news, totals.segments - totals.shared + 1 /* manifest */);
    assert_image(f, "img", "1", data, LEN);
    assert_int_equal(disk_close(d, NULL), 0);
    store_close(s);
    free(data);
}

enum { MANY = IMAGE_PUSH_POSTS + 1000 };

static void *put_many(void *arg)
{
    struct pusher *to = arg;
    struct plx_err err = {{0}};
    struct seg_id id;
    uint8_t bytes[64];

    for (uint32_t n = 0; n < MANY; n++) {
        struct seg_form form = make_segment(n, bytes, &id);
        must(image_client_put(to->client, &id, &form, &err), &err);
    }
    must(image_client_sync(to->client, &err), &err);
    return NULL;
}

/* Small segments reach the limit of posts long before that of bytes. */
static void many_small_segments_wait_their_turn(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct image_server_stats st;
    struct image_client_stats cs;
    struct seg_ops ops;
    struct store *slow = open_odd(f, &ops);
    struct pusher to;
    pthread_t thread;
    uint64_t end = clock_mono_ns() + WAIT_MS * UINT64_C(1000000);

    start_over(&r, slow);
    open_pusher(&to, &r);
    (void)pthread_mutex_lock(&odd.gate);
    assert_int_equal(pthread_create(&thread, NULL, put_many, &to), 0);
    do {
        clock_sleep_ns(50000000);
        image_client_stats(to.client, &cs);
    } while (cs.pushed_bytes < IMAGE_PUSH_POSTS * UINT64_C(64) && clock_mono_ns() < end);
    (void)pthread_mutex_unlock(&odd.gate);
    (void)pthread_join(thread, NULL);
    image_server_stats(r.server, &st);
    image_client_stats(to.client, &cs);
    assert_int_equal(st.malformed, 0);
    assert_int_equal(st.put_segments, MANY);
    assert_true(cs.switches > 0 || cs.pushed_bytes == MANY * 64);
    close_pusher(&to);
    stop_server(&r);
    store_close(slow);
}

struct putting {
    struct image_client *client;
    atomic_int done;
};

static void *put_one(void *arg)
{
    struct putting *p = arg;
    struct plx_err err = {{0}};
    struct seg_id id;
    uint8_t bytes[64];
    struct seg_form form = make_segment(2, bytes, &id);

    must(image_client_put(p->client, &id, &form, &err), &err);
    p->done = 1;
    return NULL;
}

static void say(struct image_client *c, Img__FromServer *m)
{
    uint8_t bytes[64];

    m->version = 1;
    image_client_message(c, bytes, img__from_server__pack(m, bytes));
}

/* The window is the server's, whatever ours would be. */
static void the_server_says_how_much_may_be_on_its_way(void **state)
{
    struct store_fixture *f = *state;
    Img__FromServer hello = IMG__FROM_SERVER__INIT, answer = IMG__FROM_SERVER__INIT;
    Img__Welcome welcome = IMG__WELCOME__INIT;
    Img__Done done = IMG__DONE__INIT;
    struct putting p = {.done = 0};
    struct plx_err err = {{0}};
    struct seg_id id;
    pthread_t thread;
    uint8_t bytes[64];
    struct seg_form form = make_segment(1, bytes, &id);

    /* It has posted a put and a name of 64 bytes each. */
    assert_int_equal(image_client_open_detached(f->s, &p.client), 0);
    welcome.push_window = 3 * 64;
    hello.msg_case = IMG__FROM_SERVER__MSG_WELCOME;
    hello.welcome = &welcome;
    say(p.client, &hello);
    must(image_client_put(p.client, &id, &form, &err), &err);
    assert_int_equal(pthread_create(&thread, NULL, put_one, &p), 0);
    clock_sleep_ns(50000000);
    assert_int_equal(p.done, 0);
    done.number = 2; /* the put */
    answer.msg_case = IMG__FROM_SERVER__MSG_DONE;
    answer.done = &done;
    say(p.client, &answer);
    (void)pthread_join(thread, NULL);
    assert_int_equal(p.done, 1);
    image_client_close(p.client);
}

/* The key may only read when the server is back: who has put something hears why it is not kept. */
static void a_right_lost_meanwhile_is_reported(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct pusher to;
    struct plx_err err = {{0}};
    struct seg_id id;
    uint8_t bytes[64];
    struct seg_form form = make_segment(1, bytes, &id);

    start(&r, f);
    open_pusher(&to, &r);
    stop_server(&r);
    must(image_client_put(to.client, &id, &form, &err), &err);
    client_may = IMAGE_USER_READS;
    start_server(&r, f->s);
    assert_int_equal(image_client_sync(to.client, &err), PLX_EACCES);
    assert_non_null(strstr(err.msg, "may not push"));
    assert_int_equal(image_client_put(to.client, &id, &form, &err), PLX_EACCES);
    assert_int_equal(store_has(f->s, &id, &err), 0);
    close_pusher(&to);
    stop_server(&r);
}

/* A key that is taken out is let go, although it is connected and its connection was let in. */
static void a_key_that_is_taken_out_is_let_go(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct image_server_stats st;
    struct pusher to;
    uint64_t end = clock_mono_ns() + WAIT_MS * UINT64_C(1000000);

    start(&r, f);
    open_pusher(&to, &r);
    assert_int_equal(authoriser_refused(r.auth), 0);
    authoriser_set(r.auth, NULL, 0);
    do { /* it says something from time to time; then it begins anew */
        clock_sleep_ns(10000000);
        image_server_stats(r.server, &st);
    } while ((st.clients > 0 || authoriser_refused(r.auth) == 0) && clock_mono_ns() < end);
    assert_int_equal(st.clients, 0);
    assert_int_not_equal(authoriser_refused(r.auth), 0);
    close_pusher(&to);
    stop_server(&r);
}

/* A post that the server denies whenever it comes: the client is not at it all the time. */
static void one_that_is_denied_takes_its_time(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct image_server_stats st;
    struct pusher to;
    struct plx_err err = {{0}};
    struct seg_id id;
    uint8_t bytes[64];
    struct seg_form form = make_segment(1, bytes, &id);
    uint64_t begun = clock_mono_ns(), end = begun + WAIT_MS * UINT64_C(1000000);

    start(&r, f);
    open_pusher(&to, &r);
    form.raw_len = 1; /* shorter than its stored form */
    must(image_client_put(to.client, &id, &form, &err), &err);
    do {
        clock_sleep_ns(10000000);
        image_server_stats(r.server, &st);
    } while (st.malformed < 3 && clock_mono_ns() < end);
    assert_in_range(st.malformed, 3, 2 + (clock_mono_ns() - begun) / 500000000);
    close_pusher(&to);
    stop_server(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(arrives_as_it_was),
        BOTH(two_at_once_send_each_segment_once),
        BOTH(a_server_that_loses_all_is_given_it_again),
        DIR_ONLY(promises_end_with_those_who_made_them),
        BOTH(bytes_of_another_name_are_refused),
        BOTH(names_are_looked_at),
        DIR_ONLY(who_may_only_read_is_told_so),
        BOTH(a_failure_may_be_ignored),
        DIR_ONLY(many_small_segments_wait_their_turn),
        BOTH(what_does_not_come_is_put_and_counted),
        DIR_ONLY(the_server_says_how_much_may_be_on_its_way),
        DIR_ONLY(a_right_lost_meanwhile_is_reported),
        DIR_ONLY(a_key_that_is_taken_out_is_let_go),
        DIR_ONLY(one_that_is_denied_takes_its_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
