/* SPDX-License-Identifier: Apache-2.0
 * Hunts: preparations that another node makes polluxd keep without end; a node that says it is
 * ready for a definition it cannot read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "ops/polluxd/daemon.h"

enum { SELF = 1, PEER = 2, OTHER = 3, PORT = 21000, MORE = 40 };

static struct daemon d;
static struct conf conf;
static uint64_t random_at;
static char kernel[64], xml[256];
static const uint8_t vm[ROLES_UUID_LEN] = {7};
static unsigned ready, refused;
static uint64_t first, last; /* incarnations that are ready */
static char error[PLX_ERR_MSG_MAX];

uint64_t daemon_random(void)
{
    return ++random_at;
}

static void on_prepared(void *ctx, const struct prepared *p)
{
    (void)ctx;
    if (p->ok) {
        ready++;
        first = first == 0 ? p->replica.incarnation : first;
        last = p->replica.incarnation;
    } else {
        refused++;
        memcpy(error, p->error, sizeof error);
    }
}

static int setup(void **ctx)
{
    (void)ctx;
    log_init("test", LOG_ERROR);
    memset(&d, 0, sizeof d);
    d.conf = &conf;
    conf.self = SELF;
    conf.replica_port_first = PORT;
    conf.replica_port_last = PORT + 999;
    (void)snprintf(conf.replica_address, sizeof conf.replica_address, "127.0.0.1");
    (void)snprintf(kernel, sizeof kernel, "/tmp/pollux-test-prepare-%d", (int)getpid());
    (void)snprintf(
        xml, sizeof xml,
        "<domain><name>a</name><memory unit='MiB'>64</memory><os><kernel>%s</kernel></os>"
        "</domain>",
        kernel);
    FILE *f = fopen(kernel, "w");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    random_at = ready = refused = 0;
    first = last = 0;
    error[0] = '\0';
    assert_int_equal(uv_loop_init(&d.loop), 0);
    return 0;
}

static int teardown(void **ctx)
{
    (void)ctx;
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    prepared_expire(&d, true);
    assert_null(d.prepared);
    assert_null(d.preparing);
    assert_int_equal(uv_loop_close(&d.loop), 0);
    assert_int_equal(unlink(kernel), 0);
    return 0;
}

static int ask(uint32_t node, const char *definition)
{
    return prepare_here(&d, node, vm, definition, on_prepared, NULL);
}

static unsigned kept(uint32_t node)
{
    unsigned n = 0;

    for (const struct prepared *p = d.prepared; p != NULL; p = p->next) {
        n += p->asker == node;
    }
    return n;
}

/* What is under way for one node is bounded, and another's is done all the same. */
static void under_way(void **ctx)
{
    (void)ctx;
    for (unsigned i = 0; i < PREPARING_MAX; i++) {
        assert_int_equal(ask(PEER, xml), 0);
    }
    for (unsigned i = 0; i < MORE; i++) {
        assert_int_equal(ask(PEER, xml), PLX_EBUSY);
    }
    assert_int_equal(ask(OTHER, xml), 0);
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    assert_int_equal(ready, PREPARING_MAX + 1);
    assert_int_equal(ask(PEER, xml), 0);
}

/* Of what is ready the newest are kept. */
static void kept_ones(void **ctx)
{
    (void)ctx;
    assert_int_equal(ask(OTHER, xml), 0);
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    uint64_t others = last;
    first = 0;
    for (unsigned i = 0; i < PREPARED_MAX + MORE; i++) {
        assert_int_equal(ask(PEER, xml), 0);
        (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    }
    assert_int_equal(ready, 1 + PREPARED_MAX + MORE);
    assert_int_equal(kept(PEER), PREPARED_MAX);
    assert_null(prepared_take(&d, first));
    const uint64_t these[] = {last, others};
    for (unsigned i = 0; i < 2; i++) {
        struct prepared *p = prepared_take(&d, these[i]);
        assert_non_null(p);
        plx_free(p);
    }
}

/* A node cannot run what it cannot read, or whose files it has not. */
static void not_ready(void **ctx)
{
    (void)ctx;
    assert_int_equal(ask(PEER, "<domain><name>a</name></domain>"), 0);
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    assert_int_equal(refused, 1);
    assert_non_null(strstr(error, "has no <memory>"));
    assert_int_equal(ask(PEER, "<domain><name>a</name><memory>65536</memory><os>"
                               "<kernel>/nowhere</kernel></os></domain>"),
                     0);
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    assert_int_equal(refused, 2);
    assert_non_null(strstr(error, "/nowhere"));
    assert_null(d.prepared);
}

static void memory_runs_out(void **ctx)
{
    (void)ctx;
    for (int k = 0; k < 2; k++) {
        plx_heap_fail_at(k);
        assert_int_equal(ask(PEER, xml), PLX_ENOMEM);
        plx_heap_fail_never();
    }
    assert_int_equal(ask(PEER, xml), 0);
}

/* Those in line when the daemon stops are answered without reading anything. */
static void the_daemon_stops(void **ctx)
{
    (void)ctx;
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(ask(PEER, xml), 0);
    }
    d.stopping = true;
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    assert_int_equal(ready + refused, 10);
    assert_true(refused >= 8);
    assert_string_equal(error, "the daemon is stopping");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(kept_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(not_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_runs_out, setup, teardown),
        cmocka_unit_test_setup_teardown(the_daemon_stops, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
