/* SPDX-License-Identifier: Apache-2.0
 * Hunts: two replicas that both go on alone, or one that goes on in an epoch that the record gave
 * to another, however requests and replies are delayed, doubled, lost or overtaken by a resumption.
 *
 * The log is one agreed sequence (that is Raft's promise); the three nodes have applied different
 * prefixes of it. A replica reads the record of its own node only, sees the peer silent or not at
 * random, asks, repeats itself, dies; at times there is no majority and everything waits. Every
 * step the invariants are checked. A failure prints its seed; SEED=n runs that one alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/prng.h"
#include "consensus/roles.h"

enum { NODES = 3, STEPS = 400, RUNS = 3000, QUEUE_MAX = 512, LOG_MAX = 1024 };

enum belief { PAIRED, ASKED, ALONE, OUT, DEAD };
static const char *const belief_names[] = {"paired", "asked", "alone", "out", "dead"};

struct replica {
    unsigned node;
    uint64_t incarnation;
    enum belief belief;
    uint64_t epoch;   /* that it lives in */
    uint64_t request; /* asked */
    enum roles_op op;
};

struct world {
    uint64_t seed;
    struct prng g;
    struct roles_cmd log[LOG_MAX]; /* agreed */
    unsigned nlog;
    struct roles_state node[NODES]; /* each after its prefix */
    unsigned applied[NODES];
    struct roles_state truth;           /* after all of it */
    struct roles_cmd flight[QUEUE_MAX]; /* proposals on their way */
    unsigned nflight;
    struct replica r[2]; /* the first primary, the first backup */
    uint64_t next_request;
    bool cut;                   /* no majority: nothing is agreed, what was asked waits */
    uint64_t alone_in[LOG_MAX]; /* by epoch: incarnation that went on alone */
};

static unsigned applied[ROLES_OP_END]; /* changes of roles in all runs, by command */

static bool chance(struct world *w, unsigned percent)
{
    return prng_below(&w->g, 100) < percent;
}

static void broken(const struct world *w, const char *what)
{
    fail_msg("SEED=%llu: %s (replicas %s in epoch %llu, %s in epoch %llu; record at epoch %llu)",
             (unsigned long long)w->seed, what, belief_names[w->r[0].belief],
             (unsigned long long)w->r[0].epoch, belief_names[w->r[1].belief],
             (unsigned long long)w->r[1].epoch, (unsigned long long)w->truth.vms[0].epoch);
}

static void commit(struct world *w, const struct roles_cmd *c)
{
    const struct roles_vm *vm = roles_find(&w->truth, c->uuid);
    uint64_t before = vm != NULL ? vm->epoch : 0;

    if (w->nlog == LOG_MAX) {
        return;
    }
    w->log[w->nlog++] = *c;
    (void)roles_apply(&w->truth, c, &vm);
    if (vm->epoch == before) {
        return;
    }
    applied[c->op]++;
    if ((c->op == ROLES_DROP_BACKUP || c->op == ROLES_TAKEOVER || c->op == ROLES_RESUME) &&
        c->epoch != before) {
        broken(w, "a request of an earlier epoch was applied");
    }
}

static void send(struct world *w, const struct roles_cmd *c)
{
    unsigned copies = chance(w, 25) ? 0 : chance(w, 25) ? 2 : 1; /* lost, doubled */

    while (copies-- > 0 && w->nflight < QUEUE_MAX) {
        w->flight[w->nflight++] = *c;
    }
}

static struct roles_cmd command(struct world *w, enum roles_op op)
{
    struct roles_cmd c = {.op = op, .request = ++w->next_request, .name = "vm", .xml = "<x/>"};

    c.uuid[0] = 1;
    return c;
}

static void ask(struct world *w, struct replica *r, enum roles_op op)
{
    struct roles_cmd c = command(w, op);

    r->belief = ASKED;
    r->op = op;
    r->request = c.request;
    c.epoch = r->epoch;
    c.incarnation = r->incarnation;
    send(w, &c);
}

static void ask_again(struct world *w, const struct replica *r)
{
    struct roles_cmd c = command(w, r->op);

    c.request = r->request; /* the same question */
    c.epoch = r->epoch;
    c.incarnation = r->incarnation;
    send(w, &c);
}

/* A replica reads what its own node has applied. */
static void read_record(struct world *w, struct replica *r)
{
    const struct roles_vm *vm = &w->node[r->node].vms[0];

    if (vm->epoch < r->epoch || vm->epoch == 0) {
        return; /* its node is behind */
    }
    if (r->belief == ASKED || vm->epoch > r->epoch) {
        switch (roles_judge(vm, r->incarnation, r->epoch)) {
        case ROLES_UNDECIDED:
            return;
        case ROLES_ALONE:
            r->belief = ALONE;
            break;
        case ROLES_PAIR:
            r->belief = PAIRED;
            break;
        case ROLES_OUT:
            r->belief = OUT;
            break;
        }
        r->epoch = vm->epoch;
        if (r->belief == ALONE) {
            uint64_t *who = &w->alone_in[r->epoch];
            if (*who != 0 && *who != r->incarnation) {
                broken(w, "two replicas alone in one epoch");
            }
            *who = r->incarnation;
        }
    }
}

static void step_replica(struct world *w, struct replica *r)
{
    struct replica *peer = r == &w->r[0] ? &w->r[1] : &w->r[0];

    if (r->belief == DEAD || r->belief == OUT) {
        return;
    }
    if (chance(w, 2)) {
        struct roles_cmd c = command(w, ROLES_LOST);
        r->belief = DEAD;
        c.incarnation = r->incarnation;
        send(w, &c);
        return;
    }
    read_record(w, r);
    if (r->belief == PAIRED && chance(w, 10)) { /* silence: the peer is dead, or the link is */
        const struct roles_vm *vm = &w->node[r->node].vms[0];
        ask(w, r, vm->primary.incarnation == r->incarnation ? ROLES_DROP_BACKUP : ROLES_TAKEOVER);
    } else if (r->belief == ASKED && chance(w, 4)) {
        ask_again(w, r);
    } else if (r->belief == ASKED && peer->belief == ASKED && peer->epoch == r->epoch &&
               chance(w, 40)) { /* the link healed; both wait */
        struct roles_cmd c = command(w, ROLES_RESUME);
        c.epoch = r->epoch;
        c.incarnation = r->incarnation;
        send(w, &c);
    }
}

static void check_world(struct world *w)
{
    const struct roles_vm *vm = &w->truth.vms[0];
    unsigned alone = 0;

    for (unsigned i = 0; i < 2; i++) {
        const struct replica *r = &w->r[i];
        if (r->belief == ALONE) {
            alone++;
            if (vm->phase != ROLES_STOPPED && vm->primary.incarnation != r->incarnation) {
                broken(w, "alone, but the record names another");
            }
        }
        if (r->epoch > vm->epoch) {
            broken(w, "a replica is ahead of the record");
        }
    }
    if (alone > 1) {
        broken(w, "both go on alone");
    }
}

static void deliver(struct world *w)
{
    unsigned i = (unsigned)prng_below(&w->g, w->nflight); /* in any order */
    struct roles_cmd c = w->flight[i];

    w->flight[i] = w->flight[--w->nflight];
    commit(w, &c);
}

static void catch_up(struct world *w, unsigned node)
{
    if (w->applied[node] < w->nlog) {
        (void)roles_apply(&w->node[node], &w->log[w->applied[node]++], NULL);
    }
}

static void run(uint64_t seed)
{
    static struct world the_world;
    struct world *w = &the_world;
    struct roles_cmd c;

    memset(w, 0, sizeof *w);
    w->seed = seed;
    prng_seed(&w->g, seed);
    c = command(w, ROLES_DEFINE);
    commit(w, &c);
    c = command(w, ROLES_START);
    c.primary = (struct role_replica){.node = 1, .incarnation = 11, .endpoint = "a"};
    c.backup = (struct role_replica){.node = 2, .incarnation = 12, .endpoint = "b"};
    commit(w, &c);
    c = command(w, ROLES_READY);
    c.epoch = 1;
    c.incarnation = 11;
    commit(w, &c);
    for (unsigned n = 0; n < NODES; n++) {
        while (w->applied[n] < w->nlog) {
            catch_up(w, n);
        }
    }
    w->r[0] = (struct replica){.node = 0, .incarnation = 11, .epoch = 1};
    w->r[1] = (struct replica){.node = 1, .incarnation = 12, .epoch = 1};
    for (unsigned s = 0; s < STEPS; s++) {
        w->cut = chance(w, 4) ? !w->cut : w->cut;
        if (w->nflight > 0 && !w->cut && chance(w, 30)) {
            deliver(w);
        }
        catch_up(w, (unsigned)prng_below(&w->g, NODES));
        step_replica(w, &w->r[prng_below(&w->g, 2)]);
        check_world(w);
    }
    /* At rest: all is delivered and applied everywhere; whoever lives and asks gets an answer. */
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned i = 0; i < 2; i++) {
            if (w->r[i].belief == ASKED) {
                c = command(w, w->r[i].op);
                c.request = w->r[i].request;
                c.epoch = w->r[i].epoch;
                c.incarnation = w->r[i].incarnation;
                commit(w, &c);
            }
        }
        while (w->nflight > 0) {
            deliver(w);
        }
        for (unsigned n = 0; n < NODES; n++) {
            while (w->applied[n] < w->nlog) {
                catch_up(w, n);
            }
        }
        for (unsigned i = 0; i < 2; i++) {
            if (w->r[i].belief != DEAD && w->r[i].belief != OUT) {
                read_record(w, &w->r[i]);
            }
        }
        check_world(w);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (w->r[i].belief == ASKED) {
            broken(w, "a question is never answered");
        }
        if (w->r[i].belief == OUT && w->r[1 - i].belief == OUT) {
            broken(w, "both gave up");
        }
    }
    for (unsigned n = 0; n < NODES; n++) {
        struct wbuf a, b;
        wbuf_init(&a);
        wbuf_init(&b);
        roles_encode(&w->node[n], &a);
        roles_encode(&w->truth, &b);
        if (a.len != b.len || memcmp(a.data, b.data, a.len) != 0) {
            broken(w, "nodes differ");
        }
        wbuf_free(&a);
        wbuf_free(&b);
        roles_free(&w->node[n]);
    }
    roles_free(&w->truth);
}

static void at_most_one_goes_on_alone(void **state)
{
    const char *one = getenv("SEED");

    (void)state;
    if (one != NULL) {
        run(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= RUNS; seed++) {
        run(seed);
    }
    /* The runs were of the interesting kinds. */
    assert_true(applied[ROLES_DROP_BACKUP] > RUNS / 20);
    assert_true(applied[ROLES_TAKEOVER] > RUNS / 20);
    assert_true(applied[ROLES_RESUME] > RUNS / 50);
    assert_true(applied[ROLES_LOST] > RUNS / 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(at_most_one_goes_on_alone)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
