/* SPDX-License-Identifier: Apache-2.0
 * tests/unit/test_monitor.c - the monitor's line editor: commands, editing, what it leaves unread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ops/monitor.h"

static char screen[4096];

static void print(void *ctx, const char *text)
{
    (void)ctx;
    assert_true(strlen(screen) + strlen(text) < sizeof screen);
    strcat(screen, text);
}

static enum monitor_action feed(struct monitor *m, const char *text, size_t *used)
{
    return monitor_feed(m, (const uint8_t *)text, strlen(text), used);
}

static void commands_act_and_leave_the_rest(void **state)
{
    struct monitor m = {.print = print};
    size_t used;

    (void)state;
    screen[0] = 0;
    monitor_open(&m);
    assert_int_equal(feed(&m, "info\rquit\r", &used), MONITOR_INFO);
    assert_int_equal(used, 5);
    assert_int_equal(feed(&m, "save a file\r", &used), MONITOR_SAVE);
    assert_string_equal(m.argument, "a file");
    assert_int_equal(feed(&m, "cont\n", &used), MONITOR_CONTINUE);
    assert_int_equal(feed(&m, "\004", &used), MONITOR_CONTINUE);
    assert_int_equal(feed(&m, "qux\b\bxx\b\buit\r", &used), MONITOR_QUIT);
}

static void mistakes_get_help(void **state)
{
    struct monitor m = {.print = print};
    size_t used;

    (void)state;
    screen[0] = 0;
    assert_int_equal(feed(&m, "save\r", &used), MONITOR_MORE);
    assert_non_null(strstr(screen, "needs a file name"));
    assert_int_equal(feed(&m, "what\r", &used), MONITOR_MORE);
    assert_non_null(strstr(screen, "save FILE"));
    assert_int_equal(feed(&m, "\b\b\b\r", &used), MONITOR_MORE);
    assert_int_equal(used, 4);
    for (int i = 0; i < 3000; i++) { /* longer than any line */
        screen[0] = 0;
        assert_int_equal(feed(&m, "x", &used), MONITOR_MORE);
    }
    assert_int_equal(feed(&m, "\r", &used), MONITOR_MORE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_act_and_leave_the_rest),
        cmocka_unit_test(mistakes_get_help),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
