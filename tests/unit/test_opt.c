/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_opt.c - option tables: values, and a clear line for each mistake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "ops/opt.h"
#include "ops/shadow_opt.h"

struct seen {
    uint64_t number;
    const char *first, *second;
    int flags;
};

static int set_number(void *ctx, char *const *v, struct plx_err *err)
{
    return opt_u64(v[0], "the number", 1, 99, &((struct seen *)ctx)->number, err);
}

static int set_pair(void *ctx, char *const *v, struct plx_err *err)
{
    struct seen *s = ctx;

    (void)err;
    s->first = v[0];
    s->second = v[1];
    return 0;
}

static int set_flag(void *ctx, char *const *v, struct plx_err *err)
{
    (void)err;
    assert_null(v[0]);
    ((struct seen *)ctx)->flags++;
    return 0;
}

static const struct opt options[] = {{"number", "N", "a number", set_number},
                                     {"pair", "A B", "two", set_pair},
                                     {"flag", NULL, "a flag", set_flag},
                                     {0}};
static const struct opt_command command = {"test", "DIR", "Tests.", options, 1, 1};

static int parse(struct seen *s, struct plx_err *err, const char *a, const char *b, const char *c,
                 const char *d)
{
    const char *all[] = {a, b, c, d};
    char *argv[6] = {(char *)(uintptr_t) "test"};
    int argc = 1, first;

    for (unsigned i = 0; i < 4 && all[i] != NULL; i++) {
        argv[argc++] = (char *)(uintptr_t)all[i];
    }
    err->msg[0] = 0;
    return opt_parse(&command, s, argc, argv, &first, err);
}

static void values_arrive(void **state)
{
    struct seen s = {0};
    struct plx_err err;

    (void)state;
    assert_int_equal(parse(&s, &err, "--number=7", "--flag", "dir", NULL), 0);
    assert_int_equal(s.number, 7);
    assert_int_equal(s.flags, 1);
    assert_int_equal(parse(&s, &err, "--pair", "x", "y", "dir"), 0);
    assert_string_equal(s.first, "x");
    assert_string_equal(s.second, "y");
}

static void mistakes_are_named(void **state)
{
    static const struct {
        const char *args[4], *says;
        int rc;
    } cases[] = {
        {{"--number", "100", "d"}, "--number: the number must be from 1 to 99", PLX_ERANGE},
        {{"--number", "-1", "d"}, "not '-1'", PLX_EINVAL},
        {{"--number", "7x", "d"}, "not '7x'", PLX_EINVAL},
        {{"--number", "99999999999999999999", "d"}, "from 1 to 99", PLX_ERANGE},
        {{"--number"}, "--number needs a value", PLX_EINVAL},
        {{"--pair", "x"}, "needs two values: A B", PLX_EINVAL},
        {{"--other", "d"}, "unknown option --other", PLX_EINVAL},
        {{"-x", "d"}, "unknown option -x", PLX_EINVAL},
        {{"-xy", "d"}, "unknown option -x", PLX_EINVAL},
        {{"d", "-xy"}, "unknown option -x", PLX_EINVAL},
        {{"--flag=1", "d"}, "--flag takes no value", PLX_EINVAL},
        {{"--help=1", "d"}, "--help takes no value", PLX_EINVAL},
        {{"--flag"}, "missing", PLX_EINVAL},
        {{"d", "e"}, "unexpected argument 'e'", PLX_EINVAL},
    };

    (void)state;
    for (unsigned i = 0; i < PLX_COUNT(cases); i++) {
        struct seen s = {0};
        struct plx_err err;
        const char *const *a = cases[i].args;

        assert_int_equal(parse(&s, &err, a[0], a[1], a[2], a[3]), cases[i].rc);
        if (strstr(err.msg, cases[i].says) == NULL) {
            fail_msg("'%s' does not say '%s'", err.msg, cases[i].says);
        }
    }
}

static void the_value_of_shadow(void **state)
{
    static const char *const wrong[] = {"",        "tagged",     "tagged=yes", "batch=0",
                                        "batch=3", "batch=9",    "batch=65",   "batch=128",
                                        "lazy=on", "tagged=on,,"};
    struct shadow_config c = SHADOW_DEFAULT;
    struct plx_err err;

    (void)state;
    assert_int_equal(shadow_opt("tagged=off,batch=64,batch-shootdown=off", &c, &err), 0);
    assert_true(!c.tagged && c.batch == 64 && c.lazy_ad && !c.batch_shootdown);
    assert_int_equal(shadow_opt("lazy-ad=off", &c, &err), 0);
    assert_true(!c.tagged && !c.lazy_ad);
    for (size_t i = 0; i < PLX_COUNT(wrong); i++) {
        err.msg[0] = '\0';
        assert_true(shadow_opt(wrong[i], &c, &err) < 0);
        assert_true(err.msg[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_value_of_shadow),
        cmocka_unit_test(values_arrive),
        cmocka_unit_test(mistakes_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
