/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a change of the file of clients that is never seen, because the first look at it failed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/io.h"
#include "ops/image_clients.h"

#define KEY "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

struct fixture {
    char path[64];
    struct image_clients clients;
    struct stat seen;
    struct plx_err err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    strcpy(f->path, "/tmp/pollux-test-clients-XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    (void)close(fd);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int rc = unlink(f->path);

    free(f);
    return rc;
}

static void says(struct fixture *f, const char *text)
{
    assert_int_equal(io_write_file(f->path, text, strlen(text), &f->err), 0);
}

static int look(struct fixture *f)
{
    return image_clients_read(f->path, &f->clients, &f->seen, &f->err);
}

static bool has_seen(const struct fixture *f)
{
    struct stat now;

    assert_int_equal(stat(f->path, &now), 0);
    return now.st_ino == f->seen.st_ino && now.st_size == f->seen.st_size;
}

static void a_look_without_memory_has_seen_nothing(void **state)
{
    struct fixture *f = *state;
    int k = 0;

    says(f, KEY " name\n");
    for (plx_heap_fail_at(k); look(f) != 0; plx_heap_fail_at(++k)) {
        assert_false(has_seen(f));
    }
    plx_heap_fail_never();
    assert_true(k > 0);
    assert_true(has_seen(f));
    assert_int_equal(f->clients.n, 1);
}

static void a_look_without_descriptors_has_seen_nothing(void **state)
{
    struct fixture *f = *state;
    struct rlimit had, none;

    says(f, KEY " name push\n");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &had), 0);
    none = had;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int rc = look(f);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &had), 0);
    assert_true(rc < 0);
    assert_false(has_seen(f));
    assert_int_equal(look(f), 0);
    assert_true(has_seen(f));
    assert_true(f->clients.pushes);
}

static void what_is_wrong_in_the_file_is_seen_once(void **state)
{
    struct fixture *f = *state;
    static char large[(1 << 20) + 2];

    says(f, "no key\n");
    assert_int_equal(look(f), PLX_EINVAL);
    assert_true(has_seen(f));
    memset(large, '#', sizeof large - 1);
    says(f, large);
    assert_int_equal(look(f), PLX_ERANGE);
    assert_true(has_seen(f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_look_without_memory_has_seen_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_look_without_descriptors_has_seen_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_wrong_in_the_file_is_seen_once, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
