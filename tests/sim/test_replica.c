/* SPDX-License-Identifier: Apache-2.0
 * Hunts: two replicas releasing at once, an output of a record the survivor does not hold, an
 * output lost or out of order after a takeover, a backup that takes over though it knows that its
 * state is wrong, a pair made of two states that were never the same, a pair that never comes to
 * rest.
 *
 * In the simulation of replica_sim.h every step checks safety; every run ends with the network
 * whole and must reach a state in which the VM makes progress. A run prints its seed; SEED=n
 * replays it, RUNS=n sets how many. */
#include <stdlib.h>

#include "tests/sim/replica_sim.h"

static void no_fault_runs_paired(void **state)
{
    (void)state;
    sim_open(1);
    run_until(S->now + 500 * MS);
    assert_true(S->emitted_through > 100);
    assert_int_equal(rep_phase(S->n[0].rep), REP_PAIRED);
    assert_int_equal(rep_phase(S->n[1].rep), REP_PAIRED);
    assert_goes_on();
    sim_close();
}

/* Joins a pair as its control plane does: it is declared in sync once either says that the other
 * has the same state. */
static void join(const struct start *at)
{
    sim_open_at(9, at);
    S->wrong = at->wrong_seq != 0 || at->wrong_digest.lo != 0 || at->wrong_digest.hi != 0;
    S->roles.in_sync = false;
    deliver_roles(MS);
    for (uint64_t end = S->now + 500 * MS; S->now < end && S->ready == 0;) {
        step();
    }
    if (S->ready != 0) {
        S->roles.in_sync = true;
        S->roles.epoch++;
    }
    deliver_roles(MS);
    run_until(S->now + 500 * MS);
}

/* From the same state: the very first, and one with a digest. */
static void equal_states_pair(void **state)
{
    static const struct start starts[] = {{0}, {.digest = {.lo = 1, .hi = 2}}};

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(starts); i++) {
        join(&starts[i]);
        assert_true(S->ready >= 1);
        assert_int_equal(S->divergences, 0);
        assert_int_equal(rep_phase(S->n[0].rep), REP_PAIRED);
        assert_int_equal(rep_phase(S->n[1].rep), REP_PAIRED);
        assert_true(S->emitted_through > 100);
        sim_close();
    }
}

/* Round 0: two that loaded different states never run a slice together, whichever bit differs. */
static void different_states_never_pair(void **state)
{
    static const struct start starts[] = {
        {.wrong_seq = 1},
        {.seq = 1000, .wrong_seq = UINT64_C(1) << 63},
        {.wrong_digest = {.lo = 1}},
        {.wrong_digest = {.lo = UINT64_C(1) << 63}},
        {.digest = {.lo = 5, .hi = 7}, .wrong_digest = {.hi = 1}},
        {.digest = {.lo = 5, .hi = 7}, .wrong_digest = {.hi = UINT64_C(1) << 63}},
    };

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(starts); i++) {
        join(&starts[i]);
        assert_int_equal(S->ready, 0);
        assert_int_equal(S->divergences, 1); /* one, however many know of it */
        assert_int_equal(S->told, 1);
        assert_int_equal(S->emitted_through, 0);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(rep_phase(S->n[k].rep), REP_OUT);
            assert_int_equal(differing(&S->n[k]), 1);
            assert_int_equal(S->n[k].vm_seq, 0);
            assert_false(rep_may_seal(S->n[k].rep));
        }
        sim_close();
    }
}

/* One message for each record, and what has run is told with it; beside them only pings. */
static void a_record_costs_one_acknowledgement(void **state)
{
    struct rep_stats s;

    (void)state;
    sim_open(8);
    run_until(S->now + 1000 * MS);
    rep_stats(S->n[0].rep, &s);
    assert_true(s.sealed > 400);
    assert_in_range(S->acks, s.sealed - 1, s.sealed + s.sealed / 4);
    assert_true(s.lag_ns < 25 * MS);
    sim_close();
}

/* The bound on the lag holds whether a slice is told of alone or with a receipt; and the last
 * acknowledgement before a pause, lost with the link, is said again while the pair still stands. */
static void a_lagging_backup_is_waited_for(void **state)
{
    struct rep_stats s;

    (void)state;
    for (unsigned seed = 1; seed <= 40; seed++) {
        sim_open(seed);
        S->slow_backup = true;
        run_until(S->now + 700 * MS);
        rep_stats(S->n[0].rep, &s);
        assert_in_range(s.lag_ns, 0, (REP_LAG_MS + 1) * MS);
        uint64_t ran = s.peer_ran;
        S->link_cut = true;
        run_until(S->now + 1 * MS + prng_below(&S->g, 20 * MS));
        S->link_cut = false;
        run_until(S->now + 100 * MS);
        rep_stats(S->n[0].rep, &s);
        assert_true(s.peer_ran > ran + 10);
        assert_int_equal(rep_phase(S->n[0].rep), REP_PAIRED);
        assert_int_equal(S->resumes, 0);
        sim_close();
    }
}

static void dead_primary_is_taken_over(void **state)
{
    (void)state;
    sim_open(2);
    run_until(S->now + 100 * MS);
    S->n[0].dead = true;
    run_until(S->now + 150 * MS);
    assert_int_equal(S->takeovers, 1);
    assert_int_equal(rep_phase(S->n[1].rep), REP_ALONE);
    assert_goes_on();
    sim_close();
}

static void dead_backup_is_dropped(void **state)
{
    (void)state;
    sim_open(3);
    run_until(S->now + 100 * MS);
    S->n[1].dead = true;
    run_until(S->now + 150 * MS);
    assert_int_equal(S->drops, 1);
    assert_int_equal(rep_phase(S->n[0].rep), REP_ALONE);
    assert_goes_on();
    sim_close();
}

/* Alone from the start is no event if that is what was asked for; it is one if a peer was meant. */
static void alone_from_the_start_is_news_only_with_a_peer(void **state)
{
    (void)state;
    for (unsigned meant = 0; meant < 2; meant++) {
        sim_open(9);
        struct rep_ops ops = {.send = op_send,
                              .emit = op_emit,
                              .ask = op_ask,
                              .reread = op_reread,
                              .event = op_event,
                              .wake = op_wake,
                              .ctx = &S->n[0]};
        struct rep_config cfg = {
            .role = REP_PRIMARY, .epoch = 1, .incarnation = 11, .peer = meant ? 22 : 0};
        struct rep_roles roles = {.epoch = 1, .primary = 11};
        struct rep *r;
        assert_int_equal(rep_create(&cfg, &ops, S->now, &r), 0);
        rep_roles(r, &roles, S->now);
        assert_int_equal(rep_phase(r), REP_ALONE);
        assert_true(rep_may_seal(r));
        assert_int_equal(S->drops, meant);
        rep_destroy(r);
        sim_close();
    }
}

/* Without a majority both wait and release nothing; when the link heals the pair resumes. */
static void no_majority_waits_and_resumes(void **state)
{
    (void)state;
    sim_open(4);
    run_until(S->now + 100 * MS);
    S->link_cut = true;
    S->n[0].cut = S->n[1].cut = true;
    run_until(S->now + 100 * MS);
    uint64_t seen = S->emitted_through;
    run_until(S->now + 1000 * MS);
    assert_int_equal(S->emitted_through, seen);
    assert_int_equal(rep_phase(S->n[0].rep), REP_ASKED);
    assert_int_equal(rep_phase(S->n[1].rep), REP_ASKED);
    S->link_cut = false;
    run_until(S->now + 40 * MS);
    S->n[0].cut = S->n[1].cut = false;
    run_until(S->now + 300 * MS);
    assert_int_equal(rep_phase(S->n[0].rep), REP_PAIRED);
    assert_int_equal(rep_phase(S->n[1].rep), REP_PAIRED);
    assert_goes_on();
    sim_close();
}

static void stopped_primary_is_superseded(void **state)
{
    (void)state;
    sim_open(5);
    run_until(S->now + 100 * MS);
    S->n[0].paused_until = S->now + 3000 * MS;
    run_until(S->now + 3500 * MS);
    assert_int_equal(S->takeovers, 1);
    assert_int_equal(rep_phase(S->n[0].rep), REP_OUT);
    assert_goes_on();
    sim_close();
}

/* The primary dies the moment the backup has found that it differs: before it could name pages. */
static void a_backup_that_differs_does_not_take_over(void **state)
{
    (void)state;
    sim_open(6);
    run_until(S->now + 100 * MS);
    S->wrong = true;
    S->n[1].vm_state ^= 1;
    while (differing(&S->n[1]) == 0) {
        step();
    }
    S->n[0].dead = true;
    uint64_t seen = S->emitted_through;
    run_until(S->now + 2000 * MS);
    assert_int_equal(S->takeovers, 0);
    assert_int_equal(S->divergences, 1);
    assert_int_equal(rep_phase(S->n[1].rep), REP_OUT);
    assert_int_equal(S->emitted_through, seen);
    sim_close();
}

/* The backup has found it, the primary was told: one divergence. */
static void a_difference_is_found_once(void **state)
{
    (void)state;
    sim_open(6);
    run_until(S->now + 100 * MS);
    S->wrong = true;
    S->n[1].vm_state ^= 1;
    run_until(S->now + 2000 * MS);
    assert_int_equal(S->divergences, 1);
    assert_int_equal(S->told, 1);
    assert_int_equal(rep_phase(S->n[0].rep), REP_ALONE);
    assert_int_equal(rep_phase(S->n[1].rep), REP_OUT);
    sim_close();
}

/* It has asked to take over, or may already, when the records it still has to run show that it is
 * wrong. */
static void a_successor_that_turns_out_wrong_ends(void **state)
{
    (void)state;
    for (unsigned late = 0; late < 2; late++) {
        sim_open(7);
        S->slow_backup = true;
        run_until(S->now + 500 * MS);
        S->n[0].dead = true;
        uint64_t seen = S->emitted_through;
        while (rep_phase(S->n[1].rep) != (late ? REP_TAKEOVER : REP_ASKED)) {
            step();
        }
        S->wrong = true;
        S->n[1].vm_state ^= 1;
        run_until(S->now + 2000 * MS);
        assert_int_equal(S->takeovers, 0);
        assert_int_equal(S->divergences, 1);
        assert_int_equal(rep_phase(S->n[1].rep), REP_OUT);
        assert_int_equal(S->emitted_through, seen);
        sim_close();
    }
}

/* Whenever the primary dies: the backup goes on alone or it has found a difference, never both. */
static void knowing_and_taking_over_exclude_each_other(void **state)
{
    const char *seed_text = getenv("SEED");
    uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 0) : 1;
    unsigned knew = 0, took = 0;

    (void)state;
    for (uint64_t i = 0; i < (seed_text != NULL ? 1 : 60); i++) {
        sim_open(seed + i);
        print_message("\rseed %llu ", (unsigned long long)(seed + i));
        S->slow_backup = prng_below(&S->g, 2) == 0;
        run_until(S->now + prng_below(&S->g, 300 * MS));
        S->wrong = true;
        S->n[1].vm_state ^= 1;
        run_until(S->now + prng_below(&S->g, 20 * MS));
        S->n[0].dead = true;
        run_until(S->now + 2000 * MS);
        bool knows = differing(&S->n[1]) != 0;
        assert_int_equal(S->takeovers, knows ? 0 : 1);
        assert_int_equal(rep_phase(S->n[1].rep), knows ? REP_OUT : REP_ALONE);
        knew += knows;
        took += !knows;
        sim_close();
    }
    print_message("\n%u knew, %u took over\n", knew, took);
    assert_true(seed_text != NULL || (knew > 0 && took > 0));
}

static void random_fault(void)
{
    struct node *n = &S->n[prng_below(&S->g, 2)];

    switch (prng_below(&S->g, 7)) {
    case 0:
        S->link_cut = true;
        break;
    case 1:
        S->link_cut = false;
        break;
    case 2:
        n->cut = true;
        break;
    case 3:
        n->cut = false;
        deliver_roles(5 * MS);
        break;
    case 4:
        n->paused_until = S->now + prng_below(&S->g, 400 * MS);
        break;
    case 5:
        if (prng_below(&S->g, 6) == 0 && !S->n[0].dead && !S->n[1].dead &&
            rep_phase(S->n[0].rep) == REP_PAIRED && rep_phase(S->n[1].rep) == REP_PAIRED) {
            n->dead = true;
        }
        break;
    default:
        break;
    }
}

static void random_faults_never_break_safety(void **state)
{
    const char *seed_text = getenv("SEED"), *runs_text = getenv("RUNS");
    uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 0) : 1;
    uint64_t runs = seed_text != NULL ? 1 : runs_text != NULL ? strtoull(runs_text, NULL, 0) : 200;
    unsigned takeovers = 0, drops = 0, resumes = 0;

    (void)state;
    for (uint64_t i = 0; i < runs; i++) {
        sim_open(seed + i);
        print_message("\rseed %llu ", (unsigned long long)(seed + i));
        for (int fault = 0; fault < 12; fault++) {
            run_until(S->now + prng_below(&S->g, 150 * MS));
            random_fault();
        }
        assert_goes_on();
        takeovers += S->takeovers;
        drops += S->drops;
        resumes += S->resumes;
        sim_close();
    }
    print_message("\n%u takeovers, %u drops, %u resumptions\n", takeovers, drops, resumes);
    if (runs >= 100) { /* the faults did reach what they are for */
        assert_true(takeovers > 0);
        assert_true(drops > 0);
        assert_true(resumes > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_fault_runs_paired),
        cmocka_unit_test(equal_states_pair),
        cmocka_unit_test(different_states_never_pair),
        cmocka_unit_test(a_record_costs_one_acknowledgement),
        cmocka_unit_test(a_lagging_backup_is_waited_for),
        cmocka_unit_test(dead_primary_is_taken_over),
        cmocka_unit_test(dead_backup_is_dropped),
        cmocka_unit_test(alone_from_the_start_is_news_only_with_a_peer),
        cmocka_unit_test(no_majority_waits_and_resumes),
        cmocka_unit_test(stopped_primary_is_superseded),
        cmocka_unit_test(a_backup_that_differs_does_not_take_over),
        cmocka_unit_test(a_difference_is_found_once),
        cmocka_unit_test(a_successor_that_turns_out_wrong_ends),
        cmocka_unit_test(knowing_and_taking_over_exclude_each_other),
        cmocka_unit_test(random_faults_never_break_safety),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
