/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a saved state that does not come back whole; one that is altered, cut, of another machine
 * or from a newer program and is loaded, or changes anything before it is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"
#include "tests/unit/fake_pc.h"
#include "vmm/sched/state.h"

static const struct fake_event script[] = {{1000, FAKE_ARM, 12345678}, {5000, FAKE_SPEAK, 0}};

static struct vm_digest take(struct vm *vm)
{
    struct vm_digest d;

    vm_digest(vm, 0, &d, NULL, NULL);
    return d;
}

static void run(struct vm *vm, unsigned slices)
{
    struct output_list out;

    output_list_init(&out);
    for (unsigned i = 0; i < slices; i++) {
        struct record r = {.seq = vm_seq(vm) + 1,
                           .start_ns = vm_now(vm),
                           .span_ns = 100003,
                           .rate = RATE_ONE / 2 + 1};
        assert_int_equal(vm_slice(vm, &r, &out, NULL), 0);
    }
    output_list_free(&out);
}

static struct vm *some_vm(void)
{
    struct vm *vm;

    fake_play(script, 2);
    vm = fake_vm(0);
    run(vm, 7);
    return vm;
}

static void same(struct vm *a, struct vm *b)
{
    struct vm_digest da = take(a), db = take(b);

    assert_true(hash128_eq(da.all, db.all));
}

/* Through a file and through memory, into a fresh VM and over one that went elsewhere; and what
 * was loaded goes on as the original does. */
static void a_state_comes_back_whole(void **state)
{
    char path[] = "/tmp/pollux-test-state-XXXXXX";
    struct vm *vm = some_vm(), *fresh = fake_vm(0), *other = fake_vm(0);
    struct machine_config cfg;
    struct plx_err err;
    struct wbuf buf;

    (void)state;
    close(mkstemp(path));
    wbuf_init(&buf);
    run(other, 11);
    assert_int_equal(ram_write(vm_machine(other)->ram, 0x80000, "stale", 5), 0);
    assert_int_equal(vm_save(vm, path, &err), 0);
    assert_int_equal(vm_save_buf(vm, &buf, &err), 0);
    assert_int_equal(vm_load_config(path, &cfg, &err), 0);
    assert_int_equal(cfg.memory, 1 << 20);
    assert_int_equal(vm_load(fresh, path, &err), 0);
    assert_int_equal(vm_load_buf(other, buf.data, buf.len, &err), 0);
    same(vm, fresh);
    same(vm, other);
    assert_int_equal(vm_seq(fresh), 7);
    for (int i = 0; i < 20; i++) {
        run(vm, 10);
        run(fresh, 10);
        run(other, 10);
        same(vm, fresh);
        same(vm, other);
    }
    wbuf_free(&buf);
    unlink(path);
    vm_destroy(other);
    vm_destroy(fresh);
    vm_destroy(vm);
}

static void file_and_memory_hold_the_same_bytes(void **state)
{
    char path[] = "/tmp/pollux-test-state-XXXXXX";
    struct vm *vm = some_vm();
    struct wbuf buf, file;

    (void)state;
    close(mkstemp(path));
    wbuf_init(&buf);
    assert_int_equal(vm_save_buf(vm, &buf, NULL), 0);
    assert_int_equal(vm_save(vm, path, NULL), 0);
    assert_int_equal(io_read_file(path, 1 << 24, &file, NULL), 0);
    assert_int_equal(buf.len, file.len);
    assert_memory_equal(buf.data, file.data, buf.len);
    unlink(path);
    wbuf_free(&file);
    wbuf_free(&buf);
    vm_destroy(vm);
}

/* Saving leaves the pages it hashed to the next digest's report. */
static void saving_hides_no_page_from_the_digest(void **state)
{
    struct vm *vm = some_vm();
    const struct digest_page *pages;
    struct vm_digest d;
    struct wbuf buf;
    size_t n;

    (void)state;
    take(vm);
    assert_int_equal(ram_write(vm_machine(vm)->ram, 0x9000, "x", 1), 0);
    wbuf_init(&buf);
    assert_int_equal(vm_save_buf(vm, &buf, NULL), 0);
    vm_digest(vm, 0, &d, &pages, &n);
    assert_int_equal(n, 1);
    assert_int_equal(pages[0].gpa, 0x9000);
    wbuf_free(&buf);
    vm_destroy(vm);
}

/* One bit of every byte, and every length: refused with a message, and nothing is changed. */
static void any_altered_byte_and_any_cut_is_refused(void **state)
{
    struct vm *vm = some_vm(), *victim = fake_vm(0);
    struct vm_digest before, after;
    struct plx_err err;
    struct wbuf buf;
    size_t front;

    (void)state;
    wbuf_init(&buf);
    assert_int_equal(vm_save_buf(vm, &buf, NULL), 0);
    before = take(victim);
    front = buf.len % PAGE_SIZE == 0 ? 2 * PAGE_SIZE : 0;
    assert_true(front != 0 && front < buf.len);
    for (size_t i = 0; i < buf.len; i += i < front ? 1 : 997) {
        buf.data[i] ^= (uint8_t)(1U << (i % 8));
        err.msg[0] = '\0';
        if (vm_load_buf(victim, buf.data, buf.len, &err) >= 0 || err.msg[0] == '\0') {
            fail_msg("byte %zu may be altered", i);
        }
        buf.data[i] ^= (uint8_t)(1U << (i % 8));
    }
    for (size_t len = 0; len < buf.len; len += len < front ? 1 : 997) {
        assert_true(vm_load_buf(victim, buf.data, len, &err) < 0);
    }
    wbuf_u8(&buf, 0);
    assert_true(vm_load_buf(victim, buf.data, buf.len, &err) < 0);
    after = take(victim);
    assert_true(hash128_eq(before.all, after.all));
    assert_int_equal(vm_load_buf(victim, buf.data, buf.len - 1, &err), 0);
    wbuf_free(&buf);
    vm_destroy(victim);
    vm_destroy(vm);
}

static void nop_reset(void *dev)
{
    (void)dev;
}

static void nop_save(const void *dev, struct wbuf *out)
{
    wbuf_u8(out, *(const uint8_t *)dev);
}

static int nop_load(void *dev, struct rbuf *in, uint32_t version, struct plx_err *err)
{
    (void)version;
    *(uint8_t *)dev = rbuf_u8(in) & 0x7f; /* forgets a bit: a device that does not load exactly */
    return in->failed ? plx_fail(err, PLX_ETRUNCATED, "short") : 0;
}

static const struct device_ops nop_ops = {nop_reset, nop_save, nop_load};

static void sections_are_refused_by_name(void **state)
{
    struct vm *plain = some_vm(), *more = fake_vm(0), *newer = fake_vm(0);
    uint8_t a = 1, b = 2;
    struct plx_err err;
    struct wbuf buf;

    (void)state;
    machine_add_device(vm_machine(more), "gadget", 1, &nop_ops, &a);
    machine_add_device(vm_machine(newer), "gadget", 2, &nop_ops, &b);
    wbuf_init(&buf);
    assert_int_equal(vm_save_buf(plain, &buf, &err), 0);
    assert_int_equal(vm_load_buf(more, buf.data, buf.len, &err), PLX_ETRUNCATED);
    assert_string_equal(err.msg, "section 'gadget' is missing");
    wbuf_clear(&buf);
    assert_int_equal(vm_save_buf(more, &buf, &err), 0);
    assert_int_equal(vm_load_buf(plain, buf.data, buf.len, &err), PLX_ENOTSUP);
    assert_non_null(strstr(err.msg, "'gadget'"));
    wbuf_clear(&buf);
    assert_int_equal(vm_save_buf(newer, &buf, &err), 0);
    assert_int_equal(vm_load_buf(more, buf.data, buf.len, &err), PLX_EVERSION);
    assert_non_null(strstr(err.msg, "'gadget'"));
    /* A device that loads something else than it was given is found out. */
    a = 0x81;
    wbuf_clear(&buf);
    assert_int_equal(vm_save_buf(more, &buf, &err), 0);
    assert_int_equal(vm_load_buf(more, buf.data, buf.len, &err), PLX_ECORRUPT);
    assert_non_null(strstr(err.msg, "'gadget'"));
    wbuf_free(&buf);
    vm_destroy(newer);
    vm_destroy(more);
    vm_destroy(plain);
}

static void a_state_of_another_machine_is_refused(void **state)
{
    struct vm_config cfg = {.machine = {.memory = 2 << 20, .vcpus = 1}, .engine = &fake_engine};
    struct vm *vm = some_vm(), *other;
    struct plx_err err;
    struct wbuf buf;

    (void)state;
    wbuf_init(&buf);
    assert_int_equal(vm_create(&cfg, &other, NULL), 0);
    assert_int_equal(vm_save_buf(vm, &buf, &err), 0);
    assert_int_equal(vm_load_buf(other, buf.data, buf.len, &err), PLX_EINVAL);
    assert_non_null(strstr(err.msg, "1 MiB"));
    vm_destroy(other);
    cfg.machine = vm_machine(vm)->cfg;
    cfg.machine.cpu = CPU_POLLUX_V3;
    assert_int_equal(vm_create(&cfg, &other, NULL), 0);
    assert_int_equal(vm_load_buf(other, buf.data, buf.len, &err), PLX_EINVAL);
    assert_non_null(strstr(err.msg, "CPU model pollux-v2, not pollux-v3"));
    wbuf_free(&buf);
    wbuf_init(&buf);
    assert_int_equal(vm_save_buf(other, &buf, &err), 0);
    assert_int_equal(vm_load_buf(vm, buf.data, buf.len, &err), PLX_EINVAL);
    assert_non_null(strstr(err.msg, "CPU model pollux-v3, not pollux-v2"));
    wbuf_free(&buf);
    vm_destroy(other);
    vm_destroy(vm);
}

static void missing_and_foreign_files_are_named(void **state)
{
    struct vm *vm = some_vm();
    struct machine_config cfg;
    struct plx_err err;

    (void)state;
    assert_int_equal(vm_load(vm, "/nonexistent/state", &err), PLX_ENOENT);
    assert_non_null(strstr(err.msg, "/nonexistent/state"));
    assert_int_equal(vm_load_config("/proc/self/cmdline", &cfg, &err), PLX_ETRUNCATED);
    assert_int_equal(vm_save(vm, "/nonexistent/state", &err), PLX_ENOENT);
    vm_destroy(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_state_comes_back_whole),
        cmocka_unit_test(file_and_memory_hold_the_same_bytes),
        cmocka_unit_test(saving_hides_no_page_from_the_digest),
        cmocka_unit_test(any_altered_byte_and_any_cut_is_refused),
        cmocka_unit_test(sections_are_refused_by_name),
        cmocka_unit_test(a_state_of_another_machine_is_refused),
        cmocka_unit_test(missing_and_foreign_files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
