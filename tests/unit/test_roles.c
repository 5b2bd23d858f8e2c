/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a command that is applied in a state, by an incarnation or in an epoch where it must not
 * be; a duplicate that is applied twice; a snapshot that loses a field or accepts garbage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/prng.h"
#include "consensus/roles.h"

enum { P = 101, B = 102, X = 103 }; /* incarnations: primary, backup, a stranger */

static uint64_t next_request = 1;

static struct roles_cmd cmd(enum roles_op op)
{
    struct roles_cmd c = {.op = op,
                          .request = next_request++,
                          .name = "vm",
                          .xml = "<domain/>",
                          .stop = ROLES_STOP_POWER_OFF,
                          .code = 5,
                          .protect = true};

    memset(c.uuid, 7, sizeof c.uuid);
    c.primary = (struct role_replica){.node = 1, .incarnation = P, .endpoint = "tcp://a:1"};
    c.backup = (struct role_replica){.node = 2, .incarnation = B, .endpoint = "tcp://b:1"};
    return c;
}

/* The situations a command can meet. */
enum { NONE, STOPPED, START1, START2, ALONE, PAIR, SYNC, HALF, SITUATIONS };
static const char *const situation_names[] = {"undefined",     "stopped",       "starting alone",
                                              "starting pair", "running alone", "pair not in sync",
                                              "pair in sync",  "primary lost"};

static void build(struct roles_state *s, int situation)
{
    struct roles_cmd c;

    roles_init(s);
    if (situation == NONE) {
        return;
    }
    c = cmd(ROLES_DEFINE);
    assert_int_equal(roles_apply(s, &c, NULL), ROLES_RES_DONE);
    if (situation == STOPPED) {
        return;
    }
    c = cmd(ROLES_START);
    if (situation == START1 || situation == ALONE) {
        c.backup.node = 0;
    }
    assert_int_equal(roles_apply(s, &c, NULL), ROLES_RES_DONE);
    if (situation == START1 || situation == START2) {
        return;
    }
    c = cmd(ROLES_READY);
    c.epoch = 1;
    c.incarnation = P;
    assert_int_equal(roles_apply(s, &c, NULL), ROLES_RES_DONE);
    if (situation == PAIR) { /* what a later release may name: a backup that is catching up */
        s->vms[0].in_sync = false;
    }
    if (situation == HALF) {
        c = cmd(ROLES_LOST);
        c.incarnation = P;
        assert_int_equal(roles_apply(s, &c, NULL), ROLES_RES_DONE);
    }
}

#define OK     ROLES_RES_DONE
#define RES(x) ROLES_RES_##x

/* Every command, from whom it matters, in every situation, in the right epoch. */
static const struct transition {
    enum roles_op op;
    int by;
    enum roles_result res[SITUATIONS];
} table[] = {
    /*                     undefined    stopped           starting alone   starting pair    running
       alone    pair             in sync          primary lost */
    {ROLES_DEFINE,
     0,
     {OK, OK, RES(IS_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING),
      RES(IS_RUNNING)}},
    {ROLES_UNDEFINE,
     0,
     {RES(NO_VM), OK, RES(IS_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING),
      RES(IS_RUNNING), RES(IS_RUNNING)}},
    {ROLES_START,
     0,
     {RES(NO_VM), OK, RES(IS_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING),
      RES(IS_RUNNING), RES(IS_RUNNING)}},
    {ROLES_READY,
     P,
     {RES(NO_VM), RES(NOT_RUNNING), OK, OK, RES(IS_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING),
      RES(IS_RUNNING)}},
    {ROLES_READY,
     B,
     {RES(NO_VM), RES(NOT_RUNNING), RES(NOT_YOURS), RES(NOT_YOURS), RES(IS_RUNNING),
      RES(IS_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING)}},
    {ROLES_DROP_BACKUP,
     P,
     {RES(NO_VM), RES(NOT_RUNNING), RES(NO_BACKUP), OK, RES(NO_BACKUP), OK, OK, OK}},
    {ROLES_DROP_BACKUP,
     B,
     {RES(NO_VM), RES(NOT_RUNNING), RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS),
      RES(NOT_YOURS), RES(NOT_YOURS)}},
    {ROLES_DROP_BACKUP,
     X,
     {RES(NO_VM), RES(NOT_RUNNING), RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS),
      RES(NOT_YOURS), RES(NOT_YOURS)}},
    {ROLES_TAKEOVER,
     P,
     {RES(NO_VM), RES(NOT_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING), RES(NOT_YOURS),
      RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS)}},
    {ROLES_TAKEOVER,
     B,
     {RES(NO_VM), RES(NOT_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING), RES(NOT_YOURS),
      RES(NOT_IN_SYNC), OK, OK}},
    {ROLES_TAKEOVER,
     X,
     {RES(NO_VM), RES(NOT_RUNNING), RES(IS_RUNNING), RES(IS_RUNNING), RES(NOT_YOURS),
      RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS)}},
    {ROLES_RESUME,
     P,
     {RES(NO_VM), RES(NOT_RUNNING), RES(NO_BACKUP), OK, RES(NO_BACKUP), OK, OK, OK}},
    {ROLES_RESUME,
     B,
     {RES(NO_VM), RES(NOT_RUNNING), RES(NOT_YOURS), OK, RES(NOT_YOURS), OK, OK, OK}},
    {ROLES_RESUME,
     X,
     {RES(NO_VM), RES(NOT_RUNNING), RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS),
      RES(NOT_YOURS), RES(NOT_YOURS)}},
    {ROLES_STOP, P, {RES(NO_VM), RES(NOT_RUNNING), OK, OK, OK, OK, OK, OK}},
    {ROLES_STOP,
     B,
     {RES(NO_VM), RES(NOT_RUNNING), RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS),
      RES(NOT_YOURS), RES(NOT_YOURS)}},
    {ROLES_LOST, P, {RES(NO_VM), RES(NOT_RUNNING), OK, OK, OK, OK, OK, OK}},
    {ROLES_LOST, B, {RES(NO_VM), RES(NOT_RUNNING), RES(NOT_YOURS), OK, RES(NOT_YOURS), OK, OK, OK}},
    {ROLES_LOST,
     X,
     {RES(NO_VM), RES(NOT_RUNNING), RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS), RES(NOT_YOURS),
      RES(NOT_YOURS), RES(NOT_YOURS)}},
    {ROLES_DESTROY, 0, {RES(NO_VM), RES(NOT_RUNNING), OK, OK, OK, OK, OK, OK}},
    {ROLES_PROTECT, 0, {RES(NO_VM), OK, RES(NO_REPROTECT), OK, RES(NO_REPROTECT), OK, OK, OK}},
    {ROLES_UNPROTECT, 0, {RES(NO_VM), OK, OK, OK, OK, OK, OK, RES(WRONG_EPOCH)}},
};

static void every_command_in_every_situation(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLX_COUNT(table); i++) {
        for (int sit = 0; sit < SITUATIONS; sit++) {
            struct roles_state s;
            struct wbuf before, after;
            struct roles_cmd c = cmd(table[i].op);
            build(&s, sit);
            c.epoch = s.n != 0 ? s.vms[0].epoch : 0;
            c.incarnation = (uint64_t)table[i].by;
            wbuf_init(&before);
            wbuf_init(&after);
            s.applied = 0;
            roles_encode(&s, &before);
            enum roles_result res = roles_apply(&s, &c, NULL);
            if (res != table[i].res[sit]) {
                fail_msg("%s by %d when %s: %s", roles_op_name(table[i].op), table[i].by,
                         situation_names[sit], roles_result_text(res));
            }
            s.applied = 0;
            roles_encode(&s, &after);
            if (res != ROLES_RES_DONE) { /* a refusal changes nothing */
                assert_int_equal(before.len, after.len);
                assert_memory_equal(before.data, after.data, after.len);
            } else { /* and the same request again changes nothing either */
                wbuf_clear(&before);
                assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_DONE);
                s.applied = 0;
                s.recent_next--;
                s.recent[s.recent_next] = 0;
                roles_encode(&s, &before);
                assert_int_equal(before.len, after.len);
                assert_memory_equal(before.data, after.data, after.len);
            }
            wbuf_free(&before);
            wbuf_free(&after);
            roles_free(&s);
        }
    }
}

/* A compare-and-swap made in any other epoch is refused, an older or a newer one. */
static void compare_and_swap_needs_its_epoch(void **state)
{
    static const struct {
        enum roles_op op;
        int by, situation;
    } ops[] = {{ROLES_START, 0, STOPPED}, {ROLES_READY, P, START2}, {ROLES_DROP_BACKUP, P, SYNC},
               {ROLES_TAKEOVER, B, SYNC}, {ROLES_RESUME, P, SYNC},  {ROLES_RESUME, B, SYNC}};

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(ops); i++) {
        for (int d = -1; d <= 1; d += 2) {
            struct roles_state s;
            build(&s, ops[i].situation);
            s.vms[0].epoch += 4;
            struct roles_cmd c = cmd(ops[i].op);
            c.epoch = s.vms[0].epoch + (uint64_t)d;
            c.incarnation = (uint64_t)ops[i].by;
            assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_WRONG_EPOCH);
            roles_free(&s);
        }
    }
}

/* What each change leaves in the record. */
static void records_after_changes(void **state)
{
    static const struct {
        int situation;
        enum roles_op op;
        int by;
        uint64_t epoch, primary, backup;
        bool in_sync, primary_lost;
        enum roles_phase phase;
        enum roles_stop stop;
    } t[] = {
        {STOPPED, ROLES_START, 0, 1, P, B, false, false, ROLES_STARTING, ROLES_STOP_NEVER_RAN},
        {START2, ROLES_READY, P, 1, P, B, true, false, ROLES_RUNNING, ROLES_STOP_NEVER_RAN},
        {START1, ROLES_READY, P, 1, P, 0, false, false, ROLES_RUNNING, ROLES_STOP_NEVER_RAN},
        {SYNC, ROLES_DROP_BACKUP, P, 2, P, 0, false, false, ROLES_RUNNING, ROLES_STOP_NEVER_RAN},
        {HALF, ROLES_DROP_BACKUP, P, 2, P, 0, false, false, ROLES_RUNNING, ROLES_STOP_NEVER_RAN},
        {START2, ROLES_DROP_BACKUP, P, 2, P, 0, false, false, ROLES_STARTING, ROLES_STOP_NEVER_RAN},
        {SYNC, ROLES_TAKEOVER, B, 2, B, 0, false, false, ROLES_RUNNING, ROLES_STOP_NEVER_RAN},
        {SYNC, ROLES_RESUME, B, 2, P, B, true, false, ROLES_RUNNING, ROLES_STOP_NEVER_RAN},
        {PAIR, ROLES_RESUME, P, 2, P, B, false, false, ROLES_RUNNING, ROLES_STOP_NEVER_RAN},
        {SYNC, ROLES_STOP, P, 2, 0, 0, false, false, ROLES_STOPPED, ROLES_STOP_POWER_OFF},
        {SYNC, ROLES_LOST, P, 1, P, B, true, true, ROLES_RUNNING, ROLES_STOP_NEVER_RAN},
        {SYNC, ROLES_LOST, B, 2, P, 0, false, false, ROLES_RUNNING, ROLES_STOP_NEVER_RAN},
        {PAIR, ROLES_LOST, P, 2, 0, 0, false, false, ROLES_STOPPED, ROLES_STOP_LOST},
        {HALF, ROLES_LOST, B, 2, 0, 0, false, false, ROLES_STOPPED, ROLES_STOP_LOST},
        {ALONE, ROLES_LOST, P, 2, 0, 0, false, false, ROLES_STOPPED, ROLES_STOP_LOST},
        {SYNC, ROLES_DESTROY, 0, 2, 0, 0, false, false, ROLES_STOPPED, ROLES_STOP_DESTROYED},
        {SYNC, ROLES_UNPROTECT, 0, 2, P, 0, false, false, ROLES_RUNNING, ROLES_STOP_NEVER_RAN},
    };

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(t); i++) {
        struct roles_state s;
        build(&s, t[i].situation);
        struct roles_cmd c = cmd(t[i].op);
        c.epoch = s.vms[0].epoch;
        c.incarnation = (uint64_t)t[i].by;
        const struct roles_vm *vm;
        assert_int_equal(roles_apply(&s, &c, &vm), ROLES_RES_DONE);
        assert_non_null(vm);
        assert_int_equal(vm->epoch, t[i].epoch);
        assert_int_equal(vm->primary.incarnation, t[i].primary);
        assert_int_equal(vm->backup.incarnation, t[i].backup);
        assert_int_equal(vm->in_sync, t[i].in_sync);
        assert_int_equal(vm->primary_lost, t[i].primary_lost);
        assert_int_equal(vm->phase, t[i].phase);
        assert_int_equal(vm->stop, t[i].stop);
        roles_free(&s);
    }
}

/* Only the nodes that ran it last, in sync, have its newest disks; a start that never began changes
 * nothing. */
static void the_newest_disks(void **state)
{
    static const struct {
        int situation;
        enum roles_op op;
        int by;
        uint32_t newest[2];
    } t[] = {
        {ALONE, ROLES_STOP, P, {1, 0}},   {SYNC, ROLES_STOP, P, {1, 2}},
        {SYNC, ROLES_DESTROY, 0, {1, 2}}, {PAIR, ROLES_DESTROY, 0, {1, 0}},
        {HALF, ROLES_LOST, B, {1, 2}},    {START1, ROLES_STOP, P, {0, 0}},
        {START2, ROLES_LOST, P, {0, 0}},
    };

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(t); i++) {
        struct roles_state s;
        build(&s, t[i].situation);
        struct roles_cmd c = cmd(t[i].op);
        c.incarnation = (uint64_t)t[i].by;
        assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_DONE);
        assert_int_equal(s.vms[0].phase, ROLES_STOPPED);
        assert_int_equal(s.vms[0].newest[0], t[i].newest[0]);
        assert_int_equal(s.vms[0].newest[1], t[i].newest[1]);
        c = cmd(ROLES_DEFINE);
        assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_DONE);
        assert_int_equal(s.vms[0].newest[0], t[i].newest[0]);
        roles_free(&s);
    }
}

static void a_name_belongs_to_one_vm(void **state)
{
    struct roles_state s;
    struct roles_cmd c = cmd(ROLES_DEFINE);

    (void)state;
    build(&s, STOPPED);
    c.uuid[0] = 9;
    assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_NAME_TAKEN);
    c.name = "other";
    assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_DONE);
    assert_non_null(roles_find_name(&s, "vm"));
    assert_int_equal(roles_find_name(&s, "other")->uuid[0], 9);
    for (unsigned i = 2; i < ROLES_VMS_MAX; i++) {
        char name[16];
        c = cmd(ROLES_DEFINE);
        c.uuid[1] = (uint8_t)i;
        c.uuid[2] = (uint8_t)(i >> 8);
        (void)snprintf(name, sizeof name, "n%u", i);
        c.name = name;
        assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_DONE);
    }
    c = cmd(ROLES_DEFINE);
    c.uuid[3] = 1;
    c.name = "one-too-many";
    assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_TOO_MANY);
    roles_free(&s);
}

static void malformed_commands_are_refused(void **state)
{
    struct roles_state s;
    struct roles_cmd c;

    (void)state;
    build(&s, STOPPED);
    c = cmd(ROLES_START);
    c.backup.node = c.primary.node;
    assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_MALFORMED);
    c = cmd(ROLES_START);
    c.primary.incarnation = 0;
    assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_MALFORMED);
    c = cmd(ROLES_START);
    c.request = 0;
    assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_MALFORMED);
    c = cmd((enum roles_op)99);
    assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_MALFORMED);
    c = cmd(ROLES_DEFINE);
    c.name = "";
    assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_MALFORMED);
    roles_free(&s);
}

static void verdicts(void **state)
{
    struct roles_state s;

    (void)state;
    build(&s, SYNC);
    assert_int_equal(roles_judge(&s.vms[0], P, 1), ROLES_UNDECIDED);
    assert_int_equal(roles_judge(&s.vms[0], B, 1), ROLES_UNDECIDED);
    assert_int_equal(roles_judge(&s.vms[0], P, 0), ROLES_PAIR);
    assert_int_equal(roles_judge(&s.vms[0], X, 0), ROLES_OUT);
    assert_int_equal(roles_judge(NULL, P, 0), ROLES_OUT);
    struct roles_cmd c = cmd(ROLES_TAKEOVER);
    c.epoch = 1;
    c.incarnation = B;
    assert_int_equal(roles_apply(&s, &c, NULL), ROLES_RES_DONE);
    assert_int_equal(roles_judge(&s.vms[0], B, 1), ROLES_ALONE);
    assert_int_equal(roles_judge(&s.vms[0], P, 1), ROLES_OUT);
    roles_free(&s);
}

static void commands_round_trip_and_truncations_fail(void **state)
{
    (void)state;
    for (int op = ROLES_OP_NONE + 1; op < ROLES_OP_END; op++) {
        struct roles_cmd c = cmd((enum roles_op)op), d;
        struct wbuf w, w2, scratch;
        struct plx_err err;
        c.epoch = 77;
        c.incarnation = 88;
        memset(c.primary.key, 3, sizeof c.primary.key);
        wbuf_init(&w);
        wbuf_init(&w2);
        wbuf_init(&scratch);
        roles_cmd_encode(&c, &w);
        assert_int_equal(roles_cmd_decode(w.data, w.len, &d, &scratch, &err), 0);
        roles_cmd_encode(&d, &w2);
        assert_int_equal(w.len, w2.len);
        assert_memory_equal(w.data, w2.data, w.len);
        for (size_t n = 0; n < w.len; n++) {
            assert_int_equal(roles_cmd_decode(w.data, n, &d, &scratch, &err), PLX_ECORRUPT);
        }
        w.data[0]++;
        assert_int_equal(roles_cmd_decode(w.data, w.len, &d, &scratch, &err), PLX_EVERSION);
        wbuf_free(&w);
        wbuf_free(&w2);
        wbuf_free(&scratch);
    }
}

/* A snapshot holds everything; cut anywhere it is refused; a byte changed anywhere is refused or
 * is another valid state, never half-applied and never a crash. */
static void snapshots_round_trip(void **state)
{
    struct prng g;

    (void)state;
    prng_seed(&g, 11);
    for (int sit = 0; sit < SITUATIONS; sit++) {
        struct roles_state s, t;
        struct wbuf w, w2;
        struct plx_err err;
        build(&s, sit);
        roles_init(&t);
        wbuf_init(&w);
        wbuf_init(&w2);
        roles_encode(&s, &w);
        assert_int_equal(roles_decode(w.data, w.len, &t, &err), 0);
        roles_encode(&t, &w2);
        assert_int_equal(w.len, w2.len);
        assert_memory_equal(w.data, w2.data, w.len);
        for (size_t n = 0; n < w.len; n++) {
            assert_int_equal(roles_decode(w.data, n, &t, &err), PLX_ECORRUPT);
        }
        for (int i = 0; i < 2000; i++) {
            size_t at = prng_below(&g, w.len);
            uint8_t old = w.data[at];
            w.data[at] = (uint8_t)prng_u64(&g);
            (void)roles_decode(w.data, w.len, &t, &err);
            w.data[at] = old;
        }
        roles_free(&t);
        roles_free(&s);
        wbuf_free(&w);
        wbuf_free(&w2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_in_every_situation),
        cmocka_unit_test(compare_and_swap_needs_its_epoch),
        cmocka_unit_test(records_after_changes),
        cmocka_unit_test(the_newest_disks),
        cmocka_unit_test(a_name_belongs_to_one_vm),
        cmocka_unit_test(malformed_commands_are_refused),
        cmocka_unit_test(verdicts),
        cmocka_unit_test(commands_round_trip_and_truncations_fail),
        cmocka_unit_test(snapshots_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
