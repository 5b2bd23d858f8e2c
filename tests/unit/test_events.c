/* SPDX-License-Identifier: Apache-2.0
 * Hunts: events that a node never hears of because one message was lost, that are shown twice or in
 * another order, that an earlier life of a daemon brings back; a table or an answer that grows with
 * what another node says.
 *
 * Three daemons; what they send waits in a queue and is lost where the way is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/prng.h"
#include "ops/polluxd/daemon.h"

enum { N = 3, QUEUE_MAX = 4096 };

static struct daemon node[N + 1]; /* by id */
static struct conf conf[N + 1];
static bool cut[N + 1][N + 1]; /* from, to */
static struct packet {
    uint32_t from, to;
    uint8_t *bytes;
    size_t len;
} queue[QUEUE_MAX];
static unsigned queued;
static unsigned sent[64]; /* by kind */
static uint64_t random_at;

/* --- stands for the rest of the daemon ------------------------------------------------------- */

void daemon_send(struct daemon *d, uint32_t to, Cl__NodeMessage *m)
{
    for (uint32_t id = 1; id <= N; id++) {
        if (id == d->conf->self || (to != 0 && to != id)) {
            continue;
        }
        sent[m->msg_case]++;
        if (!cut[d->conf->self][id]) {
            struct packet *p = &queue[queued++];
            assert_true(queued < QUEUE_MAX);
            p->from = d->conf->self;
            p->to = id;
            p->len = cl__node_message__get_packed_size(m);
            p->bytes = plx_calloc(1, p->len + 1);
            assert_int_equal(cl__node_message__pack(m, p->bytes), p->len);
        }
    }
}

const struct roles_vm *daemon_vm(struct daemon *d, const uint8_t *uuid)
{
    (void)d;
    (void)uuid;
    return NULL;
}

uint64_t daemon_random(void)
{
    return ++random_at;
}

void start_message(struct daemon *d, uint32_t from, const Cl__NodeMessage *msg)
{
    (void)d;
    (void)from;
    (void)msg;
}

void session_message(struct daemon *d, uint32_t from, const Cl__NodeMessage *msg)
{
    start_message(d, from, msg);
}

/* --- fixture --------------------------------------------------------------------------------- */

static void begin_life(uint32_t id)
{
    struct daemon *d = &node[id];

    memset(d, 0, sizeof *d);
    d->conf = &conf[id];
    d->cluster = (struct cluster *)(void *)&conf; /* not NULL */
    d->events.life = daemon_random();
}

static void drop_packets(void)
{
    for (unsigned i = 0; i < queued; i++) {
        plx_free(queue[i].bytes);
    }
    queued = 0;
}

static void settle(void);
static void second(void);

/* Each has heard of the others. */
static int setup(void **state)
{
    (void)state;
    log_init("test", LOG_ERROR);
    memset(cut, 0, sizeof cut);
    memset(sent, 0, sizeof sent);
    random_at = 1000;
    for (uint32_t id = 1; id <= N; id++) {
        conf[id].nmembers = N;
        for (uint32_t k = 1; k <= N; k++) {
            conf[id].members[k - 1].id = k;
            (void)snprintf(conf[id].members[k - 1].name, sizeof conf[id].members[0].name, "n%u", k);
        }
        conf[id].self = id;
        (void)snprintf(conf[id].name, sizeof conf[id].name, "n%u", id);
        begin_life(id);
    }
    second();
    memset(sent, 0, sizeof sent);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    drop_packets();
    return 0;
}

static void deliver(const struct packet *p)
{
    Cl__NodeMessage *m = cl__node_message__unpack(NULL, p->len, p->bytes);

    assert_non_null(m);
    peers_message(&node[p->to], p->from, m);
    cl__node_message__free_unpacked(m, NULL);
}

/* Until nobody has anything to say. */
static void settle(void)
{
    for (unsigned i = 0; i < queued; i++) {
        deliver(&queue[i]);
    }
    drop_packets();
}

static void say_status(uint32_t id)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;
    Cl__NodeStatus s = CL__NODE_STATUS__INIT;

    s.life = node[id].events.life;
    s.events = node[id].events.newest;
    m.msg_case = CL__NODE_MESSAGE__MSG_NODE_STATUS;
    m.node_status = &s;
    daemon_send(&node[id], 0, &m);
}

static void second(void)
{
    for (uint32_t id = 1; id <= N; id++) {
        say_status(id);
        event_tick(&node[id]);
    }
    settle();
}

/* Its text says which it is. */
static void raise_one(uint32_t id)
{
    event_raise(&node[id], NULL, "test", "%u.%llu.%llu", id,
                (unsigned long long)node[id].events.life,
                (unsigned long long)node[id].events.newest + 1);
}

static void raise_many(uint32_t id, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        raise_one(id);
    }
}

static unsigned shown(uint32_t at, const char *kind)
{
    const struct event *e;
    unsigned n = 0;

    for (unsigned i = 0; (e = event_at(&node[at], i)) != NULL; i++) {
        n += strcmp(e->kind, kind) == 0;
    }
    return n;
}

/* What node @at shows of the present life of node @of: in order, each once, and the newest, if
 * any. Returns how many. */
static uint64_t shows_of(uint32_t at, uint32_t of)
{
    uint64_t last = node[of].events.newest + 1, n = 0;
    const struct event *e;

    for (unsigned i = 0; (e = event_at(&node[at], i)) != NULL; i++) {
        unsigned long long life, number;
        unsigned id;
        if (strcmp(e->kind, "test") == 0 &&
            sscanf(e->text, "%u.%llu.%llu", &id, &life, &number) == 3 && id == of &&
            life == node[of].events.life) {
            assert_string_equal(e->node, conf[of].name);
            assert_true(n++ == 0 ? number + 1 == last : number < last);
            last = number;
        }
    }
    return n;
}

/* A message as if from another node, made by hand. */
static void hear(uint32_t at, uint32_t from, Cl__NodeMessage__MsgCase kind, void *body)
{
    Cl__NodeMessage m = CL__NODE_MESSAGE__INIT;

    m.msg_case = kind;
    m.vm_event = body; /* a union of pointers */
    peers_message(&node[at], from, &m);
}

static Cl__VmEvent made(uint64_t life, uint64_t number)
{
    static char node_name[] = "n9", kind[] = "test", text[] = "by hand";
    Cl__VmEvent w = CL__VM_EVENT__INIT;

    w.wall_ns = clock_wall_ns();
    w.node = node_name;
    w.kind = kind;
    w.text = text;
    w.life = life;
    w.number = number;
    return w;
}

static void hear_event(uint32_t at, uint32_t from, uint64_t life, uint64_t number)
{
    Cl__VmEvent w = made(life, number);

    hear(at, from, CL__NODE_MESSAGE__MSG_VM_EVENT, &w);
}

static void hear_status(uint32_t at, uint32_t from, uint64_t life, uint64_t newest)
{
    Cl__NodeStatus w = CL__NODE_STATUS__INIT;

    w.life = life;
    w.events = newest;
    hear(at, from, CL__NODE_MESSAGE__MSG_NODE_STATUS, &w);
}

static void hear_wanted(uint32_t at, uint32_t from, uint64_t life, uint64_t number)
{
    Cl__EventsWanted w = CL__EVENTS_WANTED__INIT;

    w.life = life;
    w.from = number;
    hear(at, from, CL__NODE_MESSAGE__MSG_EVENTS_WANTED, &w);
}

/* The question of node 2 to node @to that is open. */
static uint64_t open_call(uint32_t to)
{
    for (unsigned i = 0; i < N; i++) {
        if (node[2].events.sources[i].node == to) {
            return node[2].events.sources[i].call;
        }
    }
    return 0;
}

/* --- what is lost ---------------------------------------------------------------------------- */

static void a_lost_event_comes_with_the_next_status(void **state)
{
    (void)state;
    cut[1][2] = true;
    raise_one(1);
    settle();
    assert_int_equal(shows_of(3, 1), 1);
    assert_int_equal(shows_of(2, 1), 0);
    cut[1][2] = false;
    second();
    second();
    for (uint32_t at = 1; at <= N; at++) {
        assert_int_equal(shows_of(at, 1), 1);
        assert_int_equal(node[at].count.events, 1);
        assert_int_equal(node[at].count.events_stale, 0);
    }
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS_WANTED], 1);
}

static void a_lost_event_comes_when_a_later_one_does(void **state)
{
    (void)state;
    raise_one(1);
    settle();
    cut[1][2] = true;
    raise_many(1, 2);
    settle();
    cut[1][2] = false;
    raise_many(1, 2);
    settle();
    assert_int_equal(shows_of(2, 1), 5);
    assert_int_equal(shows_of(3, 1), 5);
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS_WANTED], 1);
}

static void a_lost_question_or_answer_is_asked_again(void **state)
{
    (void)state;
    cut[1][2] = true;
    raise_many(1, 3);
    settle();
    cut[1][2] = false;
    cut[2][1] = true; /* the question */
    say_status(1);
    settle();
    say_status(1); /* is no reason to ask before the tick */
    settle();
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS_WANTED], 1);
    cut[2][1] = false;
    event_tick(&node[2]);
    cut[1][2] = true; /* the answer */
    settle();
    assert_int_equal(shows_of(2, 1), 0);
    cut[1][2] = false;
    second();
    assert_int_equal(shows_of(2, 1), 3);
}

static void what_is_said_twice_is_shown_once(void **state)
{
    (void)state;
    raise_many(1, 3);
    for (unsigned round = 0; round < 3; round++) {
        unsigned n = queued;
        for (unsigned i = 0; i < n; i++) {
            deliver(&queue[(i + round) % n]);
        }
    }
    settle();
    hear_wanted(1, 2, node[1].events.life, 1); /* and a batch that nobody needs */
    settle();
    assert_int_equal(shows_of(2, 1), 3);
    assert_int_equal(shows_of(3, 1), 3);
    assert_int_equal(node[2].count.events, 3);
}

/* --- what is no longer kept ------------------------------------------------------------------ */

static void a_gap_beyond_what_is_kept_is_one_line(void **state)
{
    (void)state;
    raise_one(1);
    settle();
    cut[1][2] = true;
    raise_many(1, EVENTS_KEPT + 7);
    settle();
    cut[1][2] = false;
    second();
    second();
    assert_int_equal(shows_of(2, 1), 1 + EVENTS_KEPT);
    assert_int_equal(shown(2, "events-lost"), 1);
    const struct event *line = event_at(&node[2], EVENTS_KEPT);
    assert_string_equal(line->kind, "events-lost");
    assert_string_equal(line->node, "n2");
    assert_string_equal(line->text, "7 of node n1 (number 2 to 8): they are no longer kept there");
    assert_int_equal(node[2].count.events_lost, 7);
    assert_int_equal(shown(1, "events-lost") + shown(3, "events-lost"), 0);
    assert_int_equal(shows_of(3, 1), EVENTS_KEPT + 8);
}

/* The list begins with what is kept: what was before is no loss of a node that was not there. */
static void a_node_that_starts_hears_what_is_kept(void **state)
{
    (void)state;
    raise_many(1, EVENTS_KEPT + 50);
    raise_one(3);
    settle();
    begin_life(2);
    second();
    second();
    assert_int_equal(shows_of(2, 1), EVENTS_KEPT);
    assert_int_equal(shows_of(2, 3), 1);
    assert_int_equal(shown(2, "events-lost"), 0);
    cut[1][2] = true; /* from here on it is */
    raise_many(1, EVENTS_KEPT + 1);
    settle();
    cut[1][2] = false;
    second();
    assert_int_equal(shown(2, "events-lost"), 1);
    assert_int_equal(node[2].count.events_lost, 1);
}

/* --- lives ----------------------------------------------------------------------------------- */

/* What the earlier life said may come late: it is asked, and cannot answer. */
static void a_daemon_started_again_is_told_apart(void **state)
{
    uint64_t old = node[1].events.life;

    (void)state;
    raise_many(1, 3);
    settle();
    begin_life(1);
    second();
    raise_many(1, 2);
    settle();
    for (unsigned i = 0; i < 2; i++) {
        hear_event(2, 1, old, 3);
        hear_event(2, 1, old, 4);
        hear_status(2, 1, old, 9);
        settle();
        assert_int_equal(node[1].count.events_stale, 1 + 2 * i); /* also asked at the tick */
        second();
        second();
    }
    assert_int_equal(shows_of(2, 1), 2);
    assert_int_equal(shown(2, "test"), 5);
    raise_one(1);
    settle();
    assert_int_equal(shows_of(2, 1), 3);
    assert_int_equal(shown(2, "events-lost"), 0);
}

/* Of two lives that a node hears of for the first time, the one that is over came last. */
static void a_node_that_starts_is_not_misled(void **state)
{
    uint64_t old = node[1].events.life;

    (void)state;
    begin_life(1);
    raise_many(1, 2);
    drop_packets();
    begin_life(2);
    hear_status(2, 1, node[1].events.life, 2);
    hear_status(2, 1, old, 9);
    hear_event(2, 1, old, 1);
    second();
    second();
    assert_int_equal(shows_of(2, 1), 2);
    assert_int_equal(shown(2, "test"), 2);
    assert_int_equal(shown(2, "events-lost"), 0);
}

static void what_a_daemon_took_with_it_is_one_line(void **state)
{
    (void)state;
    raise_one(1);
    settle();
    cut[2][1] = true; /* it is told, but cannot ask */
    hear_status(2, 1, node[1].events.life, 4);
    begin_life(1);
    cut[2][1] = false;
    second();
    second();
    const struct event *line = event_at(&node[2], 0);
    assert_non_null(line);
    assert_string_equal(line->kind, "events-lost");
    assert_string_equal(line->text, "3 of node n1 (number 2 to 4): its polluxd was started again "
                                    "before it told them");
    assert_int_equal(node[2].count.events_lost, 3);
    assert_int_equal(shown(2, "events-lost"), 1);
}

/* An older polluxd numbers nothing: its events are shown as they come, and it is asked nothing. */
static void a_node_without_numbers_is_heard(void **state)
{
    (void)state;
    hear_status(2, 1, 0, 0);
    hear_event(2, 1, 0, 0);
    hear_event(2, 1, 0, 0);
    event_tick(&node[2]);
    assert_int_equal(shown(2, "test"), 2);
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS_WANTED], 0);
    assert_int_equal(node[2].count.events_stale, 0);
}

/* --- what makes no sense --------------------------------------------------------------------- */

/* To node 2, from node 1, as the answer to the question that is open. */
static void batch(uint64_t life, uint64_t oldest, uint64_t newest, uint64_t first, unsigned n)
{
    static Cl__VmEvent events[2 * EVENTS_BATCH];
    static Cl__VmEvent *list[2 * EVENTS_BATCH];
    Cl__Events w = CL__EVENTS__INIT;

    for (unsigned i = 0; i < n; i++) {
        events[i] = made(life, first + i);
        list[i] = &events[i];
    }
    w.call = open_call(1);
    w.life = life;
    w.oldest = oldest;
    w.newest = newest;
    w.events = list;
    w.n_events = n;
    hear(2, 1, CL__NODE_MESSAGE__MSG_EVENTS, &w);
}

static void what_makes_no_sense_is_dropped_and_counted(void **state)
{
    struct daemon *d = &node[2];
    uint64_t stale = 0, life = node[1].events.life;

    (void)state;
    batch(life, 1, 1, 1, 1); /* that nobody asked for */
    assert_int_equal(d->count.events_stale, ++stale);
    hear_event(2, 1, life, 0);
    hear_event(2, 1, life, UINT64_MAX);
    hear_status(2, 1, life, UINT64_MAX);
    assert_int_equal(d->count.events_stale, stale += 3);
    assert_int_equal(queued, 0);
    hear_status(2, 1, life, 2);
    batch(life + 1, 1, 2, 1, 1); /* who was not asked */
    batch(life, 1, UINT64_MAX, 1, 1);
    batch(life, 3, 1, 1, 1);
    assert_int_equal(d->count.events_stale, stale += 3);
    assert_int_equal(shown(2, "test"), 0);
    batch(life, 1, 2, 1, 2);
    batch(life, 1, 2, 1, 2); /* a second answer */
    assert_int_equal(d->count.events_stale, ++stale);
    assert_int_equal(shown(2, "test"), 2);

    hear_wanted(2, 1, d->events.life + 1, 1);
    hear_wanted(2, 1, d->events.life, 0);
    assert_int_equal(d->count.events_stale, stale += 2);
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS], 0);
    hear_wanted(2, 1, d->events.life, UINT64_MAX); /* there are none, which is an answer */
    assert_int_equal(d->count.events_stale, stale);
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS], 1);

    uint8_t odd[3] = {0};
    Cl__VmEvent w = made(life, 3); /* takes its number, or it would be asked for again and again */
    w.vm = (ProtobufCBinaryData){.len = sizeof odd, .data = odd};
    hear(2, 1, CL__NODE_MESSAGE__MSG_VM_EVENT, &w);
    assert_int_equal(d->count.events_stale, ++stale);
    hear_event(2, 1, life, 4);
    assert_int_equal(shown(2, "test"), 3);
    assert_int_equal(d->count.events_stale, stale);
}

/* A node that promises more than it gives, is another every time, or asks on and on. */
static void questions_and_answers_are_bounded(void **state)
{
    uint64_t life = node[1].events.life;

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        hear_status(2, 1, life, 1000 + i);
        hear_status(2, 1, life + 1 + i, 1000);
        hear_status(2, 1, life, 1000 + i);
        hear_event(2, 1, life, 7);
    }
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS_WANTED], 1);
    batch(life, 1, 2000, 5, EVENTS_BATCH); /* not those that were asked for */
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS_WANTED], 1);
    assert_int_equal(shown(2, "test"), 0);
    event_tick(&node[2]);
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS_WANTED], 2);
    batch(life, 1, 2000, 1, 2 * EVENTS_BATCH); /* more than fit: the rest is asked for */
    assert_int_equal(shown(2, "test"), EVENTS_BATCH);
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS_WANTED], 3);
    batch(life, 1, 2000, EVENTS_BATCH + 2, 9); /* the first is missing */
    assert_int_equal(shown(2, "test"), EVENTS_BATCH);

    raise_many(2, EVENTS_MAX);
    for (unsigned i = 0; i < 100; i++) {
        hear_wanted(2, 1, node[2].events.life, 1);
    }
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS], EVENT_BATCHES);
    event_tick(&node[2]);
    hear_wanted(2, 1, node[2].events.life, 1);
    assert_int_equal(sent[CL__NODE_MESSAGE__MSG_EVENTS], EVENT_BATCHES + 1);
}

/* --- the list -------------------------------------------------------------------------------- */

/* Node 2 missed the next event of @from, which happened at @wall_ns, and gets it now. */
static void recover(uint32_t from, uint64_t number, uint64_t wall_ns)
{
    uint64_t life = node[from].events.life;
    Cl__Events b = CL__EVENTS__INIT;
    Cl__VmEvent w = made(life, number), *list[] = {&w};

    hear_status(2, from, life, number);
    w.wall_ns = wall_ns;
    b.call = open_call(from);
    b.life = life;
    b.oldest = 1;
    b.newest = number;
    b.events = list;
    b.n_events = 1;
    hear(2, from, CL__NODE_MESSAGE__MSG_EVENTS, &b);
}

/* What came late stands where it happened; a clock that is ahead or behind moves nothing that came
 * when it happened. */
static void the_list_is_in_order(void **state)
{
    uint64_t now = clock_wall_ns(), hour = UINT64_C(3600) * 1000000000;

    (void)state;
    raise_one(2);
    recover(1, 1, now - hour);
    assert_string_equal(event_at(&node[2], 0)->node, "n2");
    assert_string_equal(event_at(&node[2], 1)->node, "n1");
    Cl__VmEvent w = made(node[1].events.life, 2); /* now, whatever its clock says */
    w.wall_ns = now - hour;
    hear(2, 1, CL__NODE_MESSAGE__MSG_VM_EVENT, &w);
    assert_string_equal(event_at(&node[2], 0)->node, "n1");
    assert_int_equal(event_at(&node[2], 0)->wall_ns, now - hour);
    recover(1, 3, now + hour); /* no later than now */
    recover(3, 1, clock_wall_ns());
    assert_string_equal(event_at(&node[2], 0)->node, "n3");
    recover(1, 4, now - hour); /* behind the one before it */
    assert_string_equal(event_at(&node[2], 0)->node, "n3");
    assert_int_equal(event_at(&node[2], 1)->wall_ns, now - hour);
    assert_int_equal(event_at(&node[2], 2)->wall_ns, now + hour);
    raise_one(2);
    assert_string_equal(event_at(&node[2], 0)->node, "n2");
    assert_int_equal(node[2].count.events_stale, 0);
}

static void the_list_keeps_the_latest(void **state)
{
    (void)state;
    raise_many(1, EVENTS_MAX + 9);
    settle();
    assert_int_equal(shows_of(1, 1), EVENTS_MAX);
    assert_int_equal(shows_of(2, 1), EVENTS_MAX);
    begin_life(3); /* what it hears first must not push out what is later */
    raise_many(3, EVENTS_MAX);
    second();
    assert_int_equal(shows_of(3, 3), EVENTS_MAX);
    assert_int_equal(shows_of(3, 1), 0);
}

/* Counted where it happened, however many hear of it, and not again by one that starts. */
static void what_happened_is_counted_once(void **state)
{
    (void)state;
    event_raise(&node[1], NULL, "divergence", "x");
    event_raise(&node[2], NULL, "backup-differs", "x");
    event_raise(&node[2], NULL, "takeover", "x");
    event_raise(&node[3], NULL, "host-error", "x");
    settle();
    begin_life(3);
    second();
    assert_int_equal(shown(3, "divergence"), 1);
    for (uint32_t id = 1; id <= N; id++) {
        assert_int_equal(node[id].count.divergences, id == 1);
        assert_int_equal(node[id].count.takeovers, id == 2);
        assert_int_equal(node[id].count.host_errors, 0); /* that daemon was started again */
    }
}

/* --- anything may happen --------------------------------------------------------------------- */

static void hop(struct prng *g)
{
    uint32_t a = 1 + (uint32_t)prng_below(g, N), b = 1 + (uint32_t)prng_below(g, N);

    switch (prng_below(g, 8)) {
    case 0:
        cut[a][b] = !cut[a][b];
        break;
    case 1:
        begin_life(a);
        break;
    case 2:
        raise_many(a, (unsigned)prng_below(g, 60));
        break;
    case 3:
        say_status(a);
        event_tick(&node[a]);
        break;
    case 4:
    case 5:
        raise_many(a, (unsigned)prng_below(g, 3));
        break;
    default: /* any that is on its way comes; it may come again, or be lost */
        for (uint64_t n = prng_below(g, 20); n > 0 && queued > 0; n--) {
            struct packet *p = &queue[prng_below(g, queued)];
            if (prng_below(g, 8) != 0) {
                deliver(p);
            }
            if (prng_below(g, 8) != 0) {
                plx_free(p->bytes);
                *p = queue[--queued];
            }
        }
    }
}

/* However messages are lost, come late or twice, and daemons start again: each event is shown at
 * most once, and in the end all nodes show what is kept of each. */
static void in_the_end_all_know_the_same(void **state)
{
    enum { ROUNDS = 60, HOPS = 300 };
    const char *seed_text = getenv("SEED");
    uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 0) : clock_mono_ns();
    struct prng g;

    print_message("SEED=%llu\n", (unsigned long long)seed);
    prng_seed(&g, seed);
    for (unsigned round = 0; round < ROUNDS; round++) {
        (void)teardown(state);
        (void)setup(state);
        for (unsigned i = 0; i < HOPS; i++) {
            hop(&g);
            if (queued > QUEUE_MAX / 2) {
                drop_packets();
            }
        }
        memset(cut, 0, sizeof cut);
        settle();
        for (unsigned i = 0; i < 3; i++) {
            second();
        }
        for (uint32_t at = 1; at <= N; at++) {
            static char seen[EVENTS_MAX][EVENT_TEXT_MAX];
            unsigned n = 0;
            const struct event *e;
            for (unsigned i = 0; (e = event_at(&node[at], i)) != NULL; i++) {
                if (strcmp(e->kind, "test") == 0) {
                    for (unsigned k = 0; k < n; k++) {
                        assert_string_not_equal(seen[k], e->text);
                    }
                    memcpy(seen[n++], e->text, EVENT_TEXT_MAX);
                }
            }
            for (uint32_t of = 1; of <= N; of++) {
                assert_true(shows_of(at, of) > 0 || node[of].events.newest == 0 ||
                            node[at].events.n == EVENTS_MAX);
            }
            for (unsigned i = 0; i < N - 1; i++) {
                const struct event_source *s = &node[at].events.sources[i];
                assert_int_equal(s->next, node[s->node].events.newest + 1);
            }
        }
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_lost_event_comes_with_the_next_status),
        T(a_lost_event_comes_when_a_later_one_does),
        T(a_lost_question_or_answer_is_asked_again),
        T(what_is_said_twice_is_shown_once),
        T(a_gap_beyond_what_is_kept_is_one_line),
        T(a_node_that_starts_hears_what_is_kept),
        T(a_daemon_started_again_is_told_apart),
        T(a_node_that_starts_is_not_misled),
        T(what_a_daemon_took_with_it_is_one_line),
        T(a_node_without_numbers_is_heard),
        T(what_makes_no_sense_is_dropped_and_counted),
        T(questions_and_answers_are_bounded),
        T(the_list_is_in_order),
        T(the_list_keeps_the_latest),
        T(what_happened_is_counted_once),
        T(in_the_end_all_know_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
