/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a definition read wrongly or accepted although it cannot work, an unknown element that
 * vanishes without a word, an external entity that is followed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "ops/polluxd/domain.h"

static const char full[] =
    "<domain type='pollux'>\n"
    "  <name>redis-1</name>\n"
    "  <uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>\n"
    "  <memory unit='MiB'>256</memory>\n"
    "  <vcpu>1</vcpu>\n"
    "  <os><type arch='x86_64'>hvm</type><kernel>/g/vmlinuz</kernel><initrd>/g/initrd</initrd>\n"
    "    <cmdline>console=ttyS0 quiet</cmdline></os>\n"
    "  <features><acpi/><hyperv/></features>\n"
    "  <devices>\n"
    "    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/g/a.img'/>\n"
    "      <target dev='vda' bus='virtio'/></disk>\n"
    "    <disk type='file'><source file='/g/b.img'/><readonly/></disk>\n"
    "    <interface type='bridge'><source bridge='br7'/><mac address='52:54:00:01:02:03'/></interface>\n"
    "    <interface type='bridge'/>\n"
    "    <rng model='virtio'/>\n"
    "    <sound model='ich6'/>\n"
    "    <console type='pty'/>\n"
    "  </devices>\n"
    "  <metadata>\n"
    "    <other:thing xmlns:other='urn:x'><other:a/></other:thing>\n"
    "    <p:vm xmlns:p='urn:pollux:domain:1'><p:protect>yes</p:protect><p:primary>a</p:primary>\n"
    "      <p:shade>blue</p:shade></p:vm>\n"
    "  </metadata>\n"
    "</domain>\n";

static void everything_is_read(void **state)
{
    struct domain d;
    struct plx_err err = {""};
    char text[UUID_TEXT];
    uint8_t mac[6], again[6];

    (void)state;
    if (domain_parse(full, strlen(full), &d, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    assert_string_equal(d.name, "redis-1");
    assert_true(d.has_uuid);
    assert_string_equal(uuid_text(d.uuid, text), "6695eb01-f6a4-8304-79aa-97f2502e193f");
    assert_true(d.memory == 256 << 20);
    assert_int_equal(d.vcpus, 1);
    assert_string_equal(d.kernel, "/g/vmlinuz");
    assert_string_equal(d.initrd, "/g/initrd");
    assert_string_equal(d.cmdline, "console=ttyS0 quiet");
    assert_int_equal(d.ndisks, 2);
    assert_string_equal(d.disks[0].path, "/g/a.img");
    assert_false(d.disks[0].readonly);
    assert_true(d.disks[1].readonly);
    assert_int_equal(d.nnics, 2);
    assert_string_equal(d.nics[0].bridge, "br7");
    assert_string_equal(d.nics[1].bridge, "");
    domain_mac(&d, d.uuid, 0, mac);
    assert_memory_equal(mac, "\x52\x54\x00\x01\x02\x03", 6);
    domain_mac(&d, d.uuid, 1, mac);
    domain_mac(&d, d.uuid, 1, again);
    assert_memory_equal(mac, again, 6);
    assert_int_equal(mac[0], 0x52);
    assert_true(d.rng);
    assert_true(d.protect);
    assert_string_equal(d.primary, "a");
    assert_int_equal(d.nwarnings, 3);
    assert_string_equal(d.warnings[0], "line 8: unknown element <hyperv> in <features> is ignored");
    assert_string_equal(d.warnings[1], "line 16: unknown element <sound> in <devices> is ignored");
    assert_non_null(strstr(d.warnings[2], "shade> in <vm>"));
}

#define OS   "<os><kernel>/k</kernel></os>"
#define HEAD "<domain><name>a</name><memory>65536</memory>"

static void the_least_is_enough(void **state)
{
    static const char xml[] = HEAD OS "</domain>";
    struct domain d;

    (void)state;
    assert_int_equal(domain_parse(xml, strlen(xml), &d, NULL), 0);
    assert_true(d.memory == 64 << 20);
    assert_false(d.has_uuid);
    assert_false(d.protect);
    assert_int_equal(d.nwarnings, 0);
}

static void a_cpu_model_is_taken_by_name(void **state)
{
    static const struct {
        const char *xml;
        enum cpu_model model;
        unsigned warnings;
    } t[] = {
        {HEAD OS "</domain>", CPU_POLLUX_V2, 0},
        {HEAD OS "<cpu mode='custom'><model>pollux-v3</model></cpu></domain>", CPU_POLLUX_V3, 0},
        {HEAD OS "<cpu><model fallback='forbid'> pollux-v2 </model></cpu></domain>", CPU_POLLUX_V2,
         0},
        {HEAD OS "<cpu><topology sockets='1'/></cpu></domain>", CPU_POLLUX_V2, 0},
        {HEAD OS "<cpu mode='host-passthrough'/></domain>", CPU_POLLUX_V2, 1},
    };
    struct domain d;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        assert_int_equal(domain_parse(t[i].xml, strlen(t[i].xml), &d, NULL), 0);
        assert_int_equal(d.cpu, t[i].model);
        assert_int_equal(d.nwarnings, t[i].warnings);
    }
}

static void what_is_ignored_is_reported(void **state)
{
#define DISK "<disk type='file'><source file='/a'/>"
    static const struct {
        const char *inside, *says; /* says NULL: nothing to report */
    } t[] = {
        {"<devices>" DISK
         "<target dev='vda' bus='virtio'/><driver name='qemu' type='raw'/><readonly/>"
         "<address type='pci'/><alias name='d'/><boot order='1'/></disk></devices>",
         NULL},
        {"<devices>" DISK "<encryption/></disk></devices>", "<encryption> in <disk> is ignored"},
        {"<devices>" DISK "<iotune/></disk></devices>", "<iotune> in <disk>"},
        {"<devices>" DISK "<target dev='sda' bus='scsi'/></disk></devices>",
         "bus='scsi' of <target> in <disk> is ignored: it is virtio"},
        {"<devices><disk type='file'><source file='/a'><seclabel/></source></disk></devices>",
         "<seclabel> in <source>"},
        {"<devices><interface type='bridge'><source bridge='b'/><model type='virtio'/>"
         "<target dev='t'/><alias name='n'/><address type='pci'/></interface></devices>",
         NULL},
        {"<devices><interface type='bridge'><bandwidth/></interface></devices>",
         "<bandwidth> in <interface>"},
        {"<devices><interface type='bridge'><model type='e1000'/></interface></devices>",
         "type='e1000' of <model> in <interface>"},
        {"<devices><console type='pty'><target type='serial' port='0'/></console></devices>", NULL},
        {"<devices><serial type='pty'><target type='isa-serial'><model name='isa-serial'/></target>"
         "</serial></devices>",
         NULL},
        {"<devices><console type='pty'><log file='/l'/></console></devices>", "<log> in <console>"},
        {"<devices><serial type='tcp'/></devices>", "type='tcp' of <serial> in <devices>"},
        {"<devices><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices>",
         NULL},
        {"<devices><rng model='virtio'><rate bytes='1'/></rng></devices>", "<rate> in <rng>"},
        {"<cpu><feature policy='require' name='avx512f'/></cpu>", "<feature> in <cpu>"},
        {"<currentMemory>1<frob/></currentMemory>", "<frob> in <currentMemory>"},
        {"<vcpu current='1'>2</vcpu>", "current='1' of <vcpu> in <domain> is ignored"},
        {"<metadata><vm xmlns='urn:pollux:domain:1'><protect>no<frob/></protect></vm></metadata>",
         "<frob> in <protect>"},
        /* The same names in another namespace are other elements. */
        {"<x:memory xmlns:x='urn:x'>1</x:memory>",
         "unknown element <x:memory> of another namespace in <domain> is ignored"},
        {"<x:name xmlns:x='urn:x'>other</x:name>", "<x:name> of another namespace"},
        {"<memory xmlns='urn:x'>1</memory>", "<memory> of another namespace in <domain>"},
        {"<p:vcpu xmlns:p='urn:pollux:domain:1'>2</p:vcpu>", "<p:vcpu> in <domain>"},
        {"<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>"
         "<q:arg value='-s'/></q:commandline>",
         "<q:commandline> of another namespace"},
        {"<devices><disk type='file'><x:source xmlns:x='urn:x' file='/b'/><source file='/a'/>"
         "</disk></devices>",
         "<x:source> of another namespace in <disk>"},
        {"<metadata><x:vm xmlns:x='urn:x'><x:protect>yes</x:protect></x:vm></metadata>", NULL},
        {"<metadata><vm><protect>yes</protect></vm></metadata>",
         "<vm> without a namespace in <metadata> is ignored"},
        {"<metadata><p:vm xmlns:p='urn:pollux:domain:1'><protect>yes</protect></p:vm></metadata>",
         "<protect> in <vm>"},
    };

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(t); i++) {
        char xml[1024];
        struct domain d;
        struct plx_err err = {""};
        (void)snprintf(xml, sizeof xml, HEAD OS "%s</domain>", t[i].inside);
        int rc = domain_parse(xml, strlen(xml), &d, &err);
        if (rc != 0 || d.nwarnings != (t[i].says != NULL ? 1U : 0U) ||
            (t[i].says != NULL && strstr(d.warnings[0], t[i].says) == NULL)) {
            fail_msg("%s: rc %d, '%s', %u warnings, '%s'", t[i].inside, rc, err.msg, d.nwarnings,
                     d.warnings[0]);
        }
        assert_string_equal(d.name, "a");
        assert_int_equal(d.protect, false);
        assert_true(d.ndisks == 0 || strcmp(d.disks[0].path, "/a") == 0);
    }
}

static void mistakes_are_named(void **state)
{
    static const struct {
        const char *xml, *says;
    } t[] = {
        {"", "not XML"},
        {"<domain><name>a</name>", "not XML"},
        {"<network/>", "root element is <network>"},
        {"<domain xmlns='urn:x'/>", "in the namespace 'urn:x'"},
        {"<domain xmlns:x='urn:x'><x:name>a</x:name></domain>", "no <name>"},
        {"<domain>" OS "<memory>65536</memory></domain>", "no <name>"},
        {"<domain><name>a</name>" OS "</domain>", "no <memory>"},
        {HEAD "</domain>", "no <os><kernel>"},
        {"<domain><name>a b</name></domain>", "line 1, <name>: may hold letters"},
        {"<domain><name>-a</name></domain>", "not a usable name"},
        {"<domain><memory>lots</memory></domain>", "not an amount"},
        {"<domain><memory unit='TB'>1</memory></domain>", "unknown unit 'TB'"},
        {"<domain><memory unit='GiB'>65</memory></domain>", "not between"},
        {"<domain><memory unit='GiB'>99999999999999999999</memory></domain>", "not between"},
        {"<domain><memory unit='KB'>2001</memory></domain>", "whole number of pages"},
        {"<domain><memory>1</memory></domain>", "not between"},
        {"<domain><vcpu>0</vcpu></domain>", "from 1 to 16"},
        {"<domain><vcpu>1x</vcpu></domain>", "from 1 to 16"},
        {"<domain><cpu mode='custom'><model>Haswell</model></cpu></domain>",
         "there is no 'Haswell': use pollux-v2 or pollux-v3"},
        {"<domain><uuid>12</uuid></domain>", "not a UUID"},
        {"<domain><name>a</name>\n<name>b</name></domain>",
         "line 2, <name>: stands twice in <domain>"},
        {"<domain><devices/><devices/></domain>", "<devices>: stands twice"},
        {"<domain><devices><interface type='bridge'><mac address='52:54:00:01:02:03'/>"
         "<mac address='52:54:00:01:02:04'/></interface></devices></domain>",
         "<mac>: stands twice in <interface>"},
        {"<domain>\n<os><kernel>vmlinuz</kernel></os></domain>",
         "line 2, <kernel>: needs an absolute"},
        {"<domain><os><type>xen</type></os></domain>", "must be hvm"},
        {"<domain><os><type arch='i686'>hvm</type></os></domain>", "arch must be"},
        {"<domain><devices><disk type='block'/></devices></domain>", "type='file'"},
        {"<domain><devices><disk type='file'/></devices></domain>", "has no <source"},
        {"<domain><devices><disk type='file'><source/></disk></devices></domain>",
         "no attribute 'file'"},
        {"<domain><devices><disk type='file'><source file='/a'/><driver type='qcow2'/></disk>"
         "</devices></domain>",
         "only type='raw'"},
        {"<domain><devices><interface type='network'/></devices></domain>", "type='bridge'"},
        {"<domain><devices><interface type='bridge'><mac address='1:2'/></interface></devices>"
         "</domain>",
         "not a MAC"},
        {"<domain><devices><interface type='bridge'><mac address='01:00:00:00:00:00'/></interface>"
         "</devices></domain>",
         "group address"},
        {"<domain><metadata><vm xmlns='urn:pollux:domain:1'><protect>maybe</protect></vm></metadata>"
         "</domain>",
         "must be yes or no"},
        {"<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>" HEAD "<title>&x;</title>" OS
         "</domain>",
         "DOCTYPE"},
    };

    (void)state;
    for (size_t i = 0; i < PLX_COUNT(t); i++) {
        struct domain d;
        struct plx_err err = {""};
        int rc = domain_parse(t[i].xml, strlen(t[i].xml), &d, &err);
        if (rc == 0 || strstr(err.msg, t[i].says) == NULL) {
            fail_msg("%s: rc %d, '%s', expected '%s'", t[i].xml, rc, err.msg, t[i].says);
        }
    }
}

/* Cut anywhere, the definition is refused, and nothing crashes. */
static void truncations_are_refused(void **state)
{
    (void)state;
    for (size_t n = 0; n < strlen(full) - 1; n++) {
        struct domain d;
        assert_int_equal(domain_parse(full, n, &d, NULL), PLX_EINVAL);
    }
}

static void uuids(void **state)
{
    uint8_t u[16];

    (void)state;
    assert_true(uuid_parse("6695eb01f6a4830479aa97f2502e193f", u));
    assert_false(uuid_parse("6695eb01-f6a4-8304-79aa-97f2502e193", u));
    assert_false(uuid_parse("6695eb01-f6a4-8304-79aa-97f2502e193f0", u));
    assert_false(uuid_parse("redis", u));
    assert_false(uuid_parse("", u));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),
        cmocka_unit_test(the_least_is_enough),
        cmocka_unit_test(a_cpu_model_is_taken_by_name),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(what_is_ignored_is_reported),
        cmocka_unit_test(truncations_are_refused),
        cmocka_unit_test(uuids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
