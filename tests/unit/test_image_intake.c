/* SPDX-License-Identifier: Apache-2.0
 * Hunts: clients of an image server that keep others from pushing by what they have under way, ask
 * for or have promised; a name that is set although a sweep took what it leads to.
 */
#include "storage/server_priv.h"
#include "storage/server_wire.h"
#include "tests/unit/push_fixture.h"

/* A sweep takes the manifest between two looks at it: the client is asked for it again. */
static void what_is_swept_while_a_name_is_set_is_missing(void **state)
{
    struct store_fixture *f = *state;
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Post post;
    struct intake_client c = {NULL};
    struct intake_done d;
    struct intake *in;
    struct image_ref ref;
    struct wbuf text, packed;
    struct seg_ops ops;
    struct plx_err err = {{0}};
    uint8_t *data = make_contents(LEN, 5);

    must(push_bytes(f, "img", "1", data, LEN, NULL, &err), &err);
    must(image_find(f->s, "img", "1", &ref, &err), &err);
    struct store *s = open_odd(f, &ops);
    must(intake_open(s, -1, &in, &err), &err);
    wbuf_init(&text);
    wbuf_init(&packed);
    img__post__init(&post);
    assert_int_equal(image_ref_put(&ref, &text), 0);
    post.what_case = IMG__POST__WHAT_NAME;
    post.name = (ProtobufCBinaryData){.len = text.len, .data = text.data};
    m.msg_case = IMG__TO_SERVER__MSG_POST;
    m.post = &post;
    size_t len = img__to_server__get_packed_size(&m);
    (void)img__to_server__pack(&m, wbuf_grow(&packed, len));
    assert_int_equal(intake_add(in, &c, 1, img__to_server__unpack(NULL, len, packed.data)), 0);
    assert_true(intake_take(in, &d));
    assert_true(odd.swept);
    assert_int_equal(d.rc, 0);
    assert_true(d.lacks);
    assert_false(d.named);
    assert_memory_equal(&d.missing, &ref.manifest.parts[0], sizeof d.missing);
    intake_close(in);
    store_close(s);
    wbuf_free(&text);
    wbuf_free(&packed);
    image_ref_free(&ref);
    free(data);
}

/* --- turns ---------------------------------------------------------------------------------- */

static void add_sync(struct intake *in, struct intake_client *c, uint64_t serial, uint64_t number)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Sync sync = IMG__SYNC__INIT;
    Img__Post post;
    uint8_t bytes[64];

    img__post__init(&post);
    post.number = number;
    post.what_case = IMG__POST__WHAT_SYNC;
    post.sync = &sync;
    m.msg_case = IMG__TO_SERVER__MSG_POST;
    m.post = &post;
    size_t len = img__to_server__pack(&m, bytes);
    assert_int_equal(intake_add(in, c, serial, img__to_server__unpack(NULL, len, bytes)), 0);
}

static void clients_take_turns_whatever_waits(void **state)
{
    struct store_fixture *f = *state;
    struct intake_client c[3] = {{NULL}};
    struct intake_done d;
    struct intake *in;
    struct plx_err err = {{0}};
    uint64_t next[3] = {0};

    must(intake_open(f->s, -1, &in, &err), &err);
    for (uint64_t n = 0; n < 90; n++) {
        add_sync(in, &c[0], 0, n);
    }
    for (uint64_t n = 0; n < 30; n++) {
        add_sync(in, &c[1], 1, n);
        add_sync(in, &c[2], 2, n);
    }
    for (int i = 0; i < 45; i++) { /* 15 of each, in their order */
        assert_true(intake_take(in, &d));
        assert_int_equal(d.number, next[d.client]++);
    }
    assert_int_equal(next[0] + 100 * next[1] + 10000 * next[2], 151515);
    intake_forget(in, &c[1]);
    for (int i = 0; i < 75 + 15; i++) {
        assert_true(intake_take(in, &d));
        assert_int_not_equal(d.client, 1);
    }
    assert_false(intake_take(in, &d));
    intake_close(in);
}

/* --- looks ---------------------------------------------------------------------------------- */

static struct client *hello_again(struct image_server *s, uint8_t who, uint64_t instance,
                                  uint64_t connection)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Hello part = IMG__HELLO__INIT;
    uint8_t bytes[64];

    m.version = SERVER_PROTOCOL;
    m.msg_case = IMG__TO_SERVER__MSG_HELLO;
    m.hello = &part;
    part.instance = instance;
    part.connection = connection;
    size_t len = img__to_server__pack(&m, bytes);
    image_server_message(s, &who, 1, bytes, len);
    return s->clients;
}

static struct client *hello(struct image_server *s, uint8_t who)
{
    return hello_again(s, who, 0, 0);
}

/* What the server says of a look: 0 as long as it may wait. */
static int look(struct image_server *s, struct client *c, struct seg_id *id)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Post post;
    uint8_t bytes[128];

    img__post__init(&post);
    post.what_case = IMG__POST__WHAT_LOOK;
    post.look = (ProtobufCBinaryData){.len = sizeof *id, .data = id->sha};
    m.msg_case = IMG__TO_SERVER__MSG_POST;
    m.post = &post;
    size_t len = img__to_server__pack(&m, bytes);
    Img__ToServer *got = img__to_server__unpack(NULL, len, bytes);
    int rc = server_on_post(s, c, &got);
    if (got != NULL) {
        img__to_server__free_unpacked(got, NULL);
    }
    return rc;
}

/* One that asks for as much as it likes has one look answered where another has one. */
static void looks_take_turns(void **state)
{
    struct store_fixture *f = *state;
    struct image_server *s;
    struct client *c[3];
    struct seg_id id = {{7}};

    assert_int_equal(image_server_open_detached(f->s, &s), 0);
    for (uint8_t i = 0; i < 3; i++) {
        c[i] = hello(s, i);
    }
    assert_false(server_push_look(s));
    for (int i = 0; i < SERVER_LOOKS; i++) {
        assert_int_equal(look(s, c[1], &id), 0);
    }
    assert_int_equal(look(s, c[1], &id), PLX_EINVAL); /* it never reads its answers */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(look(s, c[0], &id) + look(s, c[2], &id), 0);
    }
    for (unsigned n = 1; n <= 2; n++) { /* none is answered before it is its turn */
        for (int i = 0; i < 3; i++) {
            assert_true(server_push_look(s));
        }
        assert_int_equal(c[0]->nlooks, 2 - n);
        assert_int_equal(c[1]->nlooks, SERVER_LOOKS - n);
        assert_int_equal(c[2]->nlooks, 2 - n);
    }
    image_server_close(s);
}

/* One that comes again need not wait for what it promised on the connection that it lost. */
static void a_new_connection_ends_the_former(void **state)
{
    struct store_fixture *f = *state;
    struct image_server *s;
    struct seg_id id = {{7}};

    assert_int_equal(image_server_open_detached(f->s, &s), 0);
    struct client *c = hello_again(s, 1, 77, 1);
    assert_int_equal(look(s, c, &id), 0);
    assert_true(server_push_look(s));
    assert_int_equal(s->npromises, 1);
    uint64_t other = hello_again(s, 2, 78, 9)->serial; /* another client */
    assert_int_equal(s->npromises, 1);
    c = hello_again(s, 3, 77, 2);
    assert_int_equal(s->npromises, 0);
    assert_int_equal(s->nclients, 2);
    assert_int_equal(c->next->serial, other);
    (void)hello_again(s, 4, 77, 1); /* said before, and late */
    assert_int_equal(s->nclients, 2);
    assert_ptr_equal(s->clients, c);
    strcpy(c->user, "pother"); /* another key cannot end it */
    (void)hello_again(s, 5, 77, 3);
    assert_int_equal(s->nclients, 3);
    image_server_close(s);
}

/* A look that the store cannot answer promises nothing: another client is told to put it. */
static void a_look_that_fails_promises_nothing(void **state)
{
    struct store_fixture *f = *state;
    struct running r = {.server = NULL};
    struct pusher to[2];
    struct seg_ops ops;
    struct store *s = open_odd(f, &ops);
    struct seg_id id = {{8}};
    struct plx_err err = {{0}};
    uint8_t seen;

    start_over(&r, s);
    for (int i = 0; i < 2; i++) {
        open_pusher(&to[i], &r);
    }
    odd.broken = true;
    assert_int_equal(image_client_look(to[0].client, &id, 1, &seen, &err), PLX_EIO);
    assert_non_null(strstr(err.msg, "the index cannot be read"));
    odd.broken = false;
    must(image_client_look(to[1].client, &id, 1, &seen, &err), &err);
    assert_int_equal(seen, SEG_ABSENT);
    for (int i = 0; i < 2; i++) {
        close_pusher(&to[i]);
    }
    stop_server(&r);
    store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(what_is_swept_while_a_name_is_set_is_missing),
        DIR_ONLY(clients_take_turns_whatever_waits),
        DIR_ONLY(looks_take_turns),
        DIR_ONLY(a_new_connection_ends_the_former),
        DIR_ONLY(a_look_that_fails_promises_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
