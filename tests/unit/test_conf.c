/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a mistake in a configuration file that is taken silently, or reported without its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/io.h"
#include "ops/polluxd/conf.h"

#define KEY "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
#define MEMBERS                                                                 \
    "[member a]\nid = 1\naddress = tcp://10.0.0.1:7300\npublic_key = " KEY "\n" \
    "[member b]\nid = 2\naddress = tcp://10.0.0.2:7300\npublic_key = " KEY "\n"

#define TEN     "0123456789"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

static void the_example_is_valid(void **state)
{
    struct conf c;
    struct plx_err err;
    struct wbuf w;

    (void)state;
    assert_int_equal(io_read_file("ops/pollux.conf", 1 << 16, &w, &err), 0);
    wbuf_u8(&w, 0);
    assert_int_equal(conf_parse((char *)w.data, "x", &c, &err), 0);
    assert_int_equal(c.nmembers, 3);
    assert_int_equal(c.self, 1);
    assert_int_equal(c.election_ms, 150);
    assert_int_equal(c.replica_port_last, 7499);
    assert_string_equal(c.replica_address, "192.0.2.1");
    assert_string_equal(c.bind, "tcp://192.0.2.1:7300");
    assert_string_equal(conf_node_name(&c, 2), "beta");
    wbuf_free(&w);
}

static void values_are_read(void **state)
{
    struct conf c;
    struct plx_err err;

    (void)state;
    assert_int_equal(conf_parse("# c\n; d\n\n [node] \n name=b\r\nkey =\t/k\n[replica]\nports=5-9\n"
                                "peer_lost_ms = 75\n" MEMBERS,
                                "f", &c, &err),
                     0);
    assert_int_equal(c.self, 2);
    assert_string_equal(c.key_file, "/k");
    assert_int_equal(c.replica_port_first, 5);
    assert_int_equal(c.replica_port_last, 9);
    assert_int_equal(c.peer_lost_ms, 75);
    assert_int_equal(c.peers[1].key[1], 0x11);
}

static void mistakes_are_named(void **state)
{
    static const struct {
        const char *text, *says;
    } t[] = {
        {MEMBERS, "section [node] has no name"},
        {"[node]\nname = z\n" MEMBERS, "no [member z]"},
        {"[node]\nname a\n" MEMBERS, "f:2: expected 'key = value'"},
        {"[node]\nname = a\ncolour = red\n" MEMBERS, "f:3: unknown key 'colour' in section [node]"},
        {"[nodes]\n", "f:1: unknown section [nodes]"},
        {"[node\n", "f:1: malformed section"},
        {"name = a\n", "f:1: unknown key 'name'"},
        {"[node]\nname = a\nkey = node.key\n", "f:3: key must be an absolute path"},
        {"[cluster]\nelection_ms = x\n", "f:2: election_ms must be a number from 20 to 60000"},
        {"[cluster]\nelection_ms = 19\n", "number from 20"},
        {"[cluster]\nelection_ms = 50ms\n", "number from 20"},
        {"[cluster]\nelection_ms = 50\nheartbeat_ms = 40\n[node]\nname = a\n" MEMBERS, "twice"},
        {"[replica]\nports = 9-5\n", "f:2: ports must be FIRST-LAST"},
        {"[replica]\ndivergence = hope\n[node]\nname = a\n" MEMBERS, "trust-primary or stop"},
        {"[node]\nname = a\n" MEMBERS "[member a]\n", "member a is given twice"},
        {"[node]\nname = a\n" MEMBERS "[member c]\nid = 1\naddress = tcp://h:1\npublic_key = " KEY,
         "same id 1"},
        {"[node]\nname = a\n" MEMBERS "[member c]\nid = 3\n", "[member c] has no address"},
        {"[node]\nname = a\n" MEMBERS "[member c]\nid = 3\naddress = h:1\npublic_key = " KEY,
         "must be tcp://"},
        {"[node]\nname = a\n" MEMBERS "[member c]\nid = 3\naddress = tcp://h:1\npublic_key = 12",
         "64 hex digits"},
        {"[node]\nname = a\nname = b\n" MEMBERS, "f:3: name is given twice"},
        {"[node]\nname = a\n" MEMBERS "id = 3\n", "id is given twice"},
        {"[node]\nname = a\n[replica]\nengine = warp\n" MEMBERS, "there is no engine 'warp'"},
        {"[node]\nname = a\nsocket = /" HUNDRED "1234567\n" MEMBERS,
         "socket is longer than 107 characters"},
        {"[node]\nname = a\nrun_dir = /" HUNDRED "\n" MEMBERS, "is longer than 85 characters"},
    };

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(t); i++) {
        struct conf c;
        struct plx_err err = {""};
        int rc = conf_parse(t[i].text, "f", &c, &err);
        if (rc == 0 || strstr(err.msg, t[i].says) == NULL) {
            fail_msg("case %zu: rc %d, '%s', expected '%s'", i, rc, err.msg, t[i].says);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_is_valid),
        cmocka_unit_test(values_are_read),
        cmocka_unit_test(mistakes_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
