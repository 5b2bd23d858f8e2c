/* SPDX-License-Identifier: Apache-2.0
 * Two replays side by side (replica/against.c): equal ones are found equal, and a fault planted in
 * one of them is found at its slice, vCPU and instruction.
 *
 * The faults: an engine whose k-th port read of a kind gives another value; translated code with a
 * wrong constant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "replica/against.h"
#include "replica/recording.h"
#include "tests/unit/sched_guest.h"
#include "tests/unit/smp_guest.h"
#include "vmm/engine/jit.h"

enum {
    SLICES = 200,
    DIGEST_AT = 70 /* and after the last */,
    SMP_SLICES = 2,
    FAULTY_READ = 1500,
    PM_TIMER = 0x608
};

struct fixture {
    char top[64], dir[96], kernel[96];
    struct plx_err err;
};

/* --- the faulty engine -------------------------------------------------------------------------
 */

static const struct vcpu_ops *true_ops;
static struct vcpu_ops false_ops;
static unsigned reads;
static uint64_t faulty_slice;

static uint64_t false_read(void *ctx, uint16_t port, unsigned size)
{
    uint64_t value = true_ops->pio_read(ctx, port, size);

    return port == PM_TIMER && ++reads == FAULTY_READ ? value ^ 0x10 : value;
}

static int false_create(const struct engine_config *cfg, struct vcpu **out, struct plx_err *err)
{
    struct engine_config wrong = *cfg;

    true_ops = cfg->ops;
    false_ops = *cfg->ops;
    false_ops.pio_read = false_read;
    wrong.ops = &false_ops;
    reads = 0;
    return engine_interp.create(&wrong, out, err);
}

/* --- faulty translated code
 * -----------------------------------------------------------------------
 */

enum { ADDEND = 12345, FAULTY_VCPU = 1, FAULTY_PROGRESS = 150000 };

/* Translations add another constant from that progress on; the interpreter does not. */
static void false_run(struct vcpu *v, struct engine_run *run)
{
    static const uint32_t is = ADDEND, shall = ADDEND + 2;
    struct jit_code *c = &v->own.jit->code;

    for (uint32_t i = 0; v->id == FAULTY_VCPU && v->c.progress > FAULTY_PROGRESS && i + 4 < c->at;
         i++) {
        if (memcmp(c->rw + i, &is, 4) == 0) {
            memcpy(c->rw + i, &shall, 4);
        }
    }
    engine_jit.run(v, run);
}

/* --- recordings ----------------------------------------------------------------------------------
 */

static int setup(void **state)
{
    struct fixture *t = calloc(1, sizeof *t);

    (void)snprintf(t->top, sizeof t->top, "/tmp/pollux-test-against-XXXXXX");
    assert_non_null(mkdtemp(t->top));
    (void)snprintf(t->dir, sizeof t->dir, "%s/rec", t->top);
    (void)snprintf(t->kernel, sizeof t->kernel, "%s/image", t->top);
    assert_int_equal(io_write_file(t->kernel, guest_image, guest_image_len(), NULL), 0);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *t = *state;
    char command[128];

    (void)snprintf(command, sizeof command, "rm -rf %s", t->top);
    assert_int_equal(system(command), 0);
    free(t);
    return 0;
}

static void make_recording(struct fixture *t, const char *dir, unsigned other_from)
{
    struct recording_config rc = {.dir = dir, .kernel = t->kernel, .cmdline = "quiet"};
    struct vm_config vc = {.engine = &engine_interp, .machine = {.memory = GUEST_RAM, .vcpus = 1}};
    struct boot_config boot = {.kernel = {guest_image, guest_image_len()}, .cmdline = "quiet"};
    struct output_list out;
    struct recording *rec;
    struct vm *vm;

    output_list_init(&out);
    assert_int_equal(vm_create(&vc, &vm, &t->err), 0);
    assert_int_equal(boot_load(vm_machine(vm), &vm_vcpu(vm, 0)->c, &boot, &t->err), 0);
    engine_interp.state_changed(vm_vcpu(vm, 0));
    assert_int_equal(recording_create(&rc, &rec, &t->err), 0);
    assert_int_equal(recording_begin(rec, vm, &vc, &t->err), 0);
    for (unsigned i = 1; i <= SLICES; i++) {
        struct input inputs[2];
        struct record r = guest_record(vm, inputs);
        r.rate += other_from != 0 && i >= other_from;
        assert_int_equal(recording_append(rec, &r, &t->err), 0);
        assert_int_equal(vm_slice(vm, &r, &out, &t->err), 0);
        if (i == DIGEST_AT) {
            assert_int_equal(recording_digest_now(rec, vm, &t->err), 0);
        }
    }
    assert_int_equal(recording_digest_now(rec, vm, &t->err), 0);
    assert_int_equal(recording_close(rec, &t->err), 0);
    output_list_free(&out);
    vm_destroy(vm);
}

/* Two vCPUs that compute in 64-bit mode. */
static void make_smp_recording(struct fixture *t)
{
    struct smp_config cfg = {
        .program = smp_compute64, .vcpus = 2, .times = 1U << 30, .threads = 1, .long_mode = true};
    struct vm_config vc = {.engine = &engine_interp,
                           .machine = {.memory = SMP_RAM, .vcpus = cfg.vcpus}};
    char state[112];
    struct recording_config rc = {.dir = t->dir, .state = state};
    struct vm *vm = smp_vm(&cfg);
    struct output_list out;
    struct recording *rec;

    output_list_init(&out);
    (void)snprintf(state, sizeof state, "%s/state", t->top);
    assert_int_equal(vm_save(vm, state, &t->err), 0);
    assert_int_equal(recording_create(&rc, &rec, &t->err), 0);
    assert_int_equal(recording_begin(rec, vm, &vc, &t->err), 0);
    for (unsigned i = 1; i <= SMP_SLICES; i++) {
        struct record r = {.seq = vm_seq(vm) + 1,
                           .start_ns = vm_now(vm),
                           .span_ns = SLICE_SPAN_NS,
                           .rate = RATE_DEFAULT};
        assert_int_equal(recording_append(rec, &r, &t->err), 0);
        assert_int_equal(vm_slice(vm, &r, &out, &t->err), 0);
    }
    assert_true(vm_vcpu(vm, FAULTY_VCPU)->c.progress > FAULTY_PROGRESS);
    assert_int_equal(recording_digest_now(rec, vm, &t->err), 0);
    assert_int_equal(recording_close(rec, &t->err), 0);
    output_list_free(&out);
    vm_destroy(vm);
}

static int against(struct fixture *t, struct against_config *cfg, struct against_result *res,
                   char **report)
{
    size_t len;
    int rc;

    t->err.msg[0] = '\0';
    cfg->every = 16;
    cfg->name[0] = "this";
    cfg->name[1] = "that";
    cfg->report = open_memstream(report, &len);
    rc = against_run(cfg, res, &t->err);
    (void)fclose(cfg->report);
    return rc;
}

/* --- tests
 * ----------------------------------------------------------------------------------------- */

static void what_must_not_matter_does_not(void **state)
{
    struct fixture *t = *state;
    struct against_config cfg = {
        .side = {{.dir = t->dir, .engine = &engine_interp},
                 {.dir = t->dir, .engine = &engine_interp, .cache_entries = 16, .chaos = 5}}};
    struct against_result res;
    char *report;

    make_recording(t, t->dir, 0);
    assert_int_equal(against(t, &cfg, &res, &report), 0);
    assert_false(res.differ);
    assert_int_equal(res.slices, SLICES);
    assert_true(res.compared > SLICES / 16);
    assert_string_equal(report, "");
    free(report);
}

/* Where the faulty read is, found by counting reads in a sound run. */
static int note_read(void *ctx, struct vm *vm, const struct output_list *out, struct plx_err *err)
{
    (void)ctx;
    (void)out;
    (void)err;
    if (faulty_slice == 0 && reads >= FAULTY_READ) {
        faulty_slice = vm_seq(vm);
    }
    return 0;
}

static void a_fault_is_found_at_its_instruction(void **state)
{
    struct fixture *t = *state;
    struct engine_ops faulty = engine_interp;
    struct replay_config sound = {.dir = t->dir, .slice = note_read};
    struct against_config cfg = {
        .side = {{.dir = t->dir, .engine = &engine_interp}, {.dir = t->dir, .engine = &faulty}}};
    struct against_result res;
    struct replay_result whole;
    char *report, where[32];

    make_recording(t, t->dir, 0);
    faulty.create = false_create;
    sound.engine = &faulty;
    faulty_slice = 0;
    assert_int_equal(replay_run(&sound, &whole, &t->err), 0);
    assert_int_not_equal(faulty_slice, 0);
    assert_int_equal(against(t, &cfg, &res, &report), 0);
    assert_true(res.differ);
    assert_int_equal(res.slice, faulty_slice);
    assert_true(res.instruction);
    assert_int_equal(res.vcpu, 0);
    (void)snprintf(where, sizeof where, "%#llx: in eax, dx", (unsigned long long)res.rip);
    assert_non_null(strstr(report, where));
    assert_non_null(strstr(report, "page 0x310000"));
    assert_non_null(strstr(report, "rax "));
    free(report);
}

/* The translator's fault is still there when what is executed is noted, and so are the vCPU, where
 * the translation begins, and the instruction in it. */
static void a_fault_of_the_translator_is_found(void **state)
{
    struct fixture *t = *state;
    struct engine_ops faulty = engine_jit;
    struct against_config cfg = {.side = {{.dir = t->dir, .engine = &engine_interp, .threads = 1},
                                          {.dir = t->dir, .engine = &faulty, .threads = 2}}};
    uint64_t begin = 0x200000 + (uint64_t)(smp_compute64 - smp_image);
    struct against_result res;
    char *report;

    make_smp_recording(t);
    cfg.side[1].engine = &engine_jit;
    assert_int_equal(against(t, &cfg, &res, &report), 0);
    assert_false(res.differ);
    free(report);
    cfg.side[1].engine = &faulty;
    faulty.run = false_run;
    assert_int_equal(against(t, &cfg, &res, &report), 0);
    assert_true(res.differ);
    assert_true(res.slice > 1);
    assert_true(res.instruction);
    assert_int_equal(res.vcpu, FAULTY_VCPU);
    assert_true(res.rip >= begin && res.rip < begin + 64);
    assert_non_null(strstr(report, "instructions executed in one piece"));
    assert_non_null(strstr(report, "add eax, 0x3039  <-"));
    free(report);
}

/* Memory that is wrong for a while: the slice is named though no compared one differs. */
static int wrong_from_69_to_71(void *ctx, struct vm *vm, const struct output_list *out,
                               struct plx_err *err)
{
    (void)ctx;
    (void)out;
    (void)err;
    if (vm_seq(vm) == 69 || vm_seq(vm) == 72) {
        vm_machine(vm)->ram->hva[0x500010] ^= 1;
        vm_machine(vm)->ram->flags[0x500000 >> PAGE_SHIFT] |= RAM_DIRTY;
    }
    return 0;
}

static void what_heals_is_found_by_recorded_digests(void **state)
{
    struct fixture *t = *state;
    struct against_config cfg = {
        .side = {{.dir = t->dir, .engine = &engine_interp},
                 {.dir = t->dir, .engine = &engine_interp, .slice = wrong_from_69_to_71}}};
    struct against_result res;
    char *report;

    make_recording(t, t->dir, 0);
    assert_int_equal(against(t, &cfg, &res, &report), 0);
    assert_true(res.differ);
    assert_int_equal(res.slice, 69);
    assert_non_null(strstr(report, "page 0x500000, first at 0x500010"));
    free(report);
    cfg.side[0].slice = wrong_from_69_to_71;
    assert_int_equal(against(t, &cfg, &res, &report), 0);
    assert_false(res.differ);
    assert_int_equal(res.recorded, DIGEST_AT);
    assert_non_null(strstr(report, "differs from what was recorded, after slice 70: "));
    free(report);
}

/* RAM that changed by itself: a page is named, and no instruction. */
static int flip_at_100(void *ctx, struct vm *vm, const struct output_list *out, struct plx_err *err)
{
    (void)ctx;
    (void)out;
    (void)err;
    if (vm_seq(vm) == 100) {
        uint64_t page = 0x500000 >> PAGE_SHIFT;
        vm_machine(vm)->ram->hva[0x500010] ^= 1;
        vm_machine(vm)->ram->flags[page] |= RAM_DIRTY;
    }
    return 0;
}

static void changed_memory_is_named(void **state)
{
    struct fixture *t = *state;
    struct against_config cfg = {
        .side = {{.dir = t->dir, .engine = &engine_interp},
                 {.dir = t->dir, .engine = &engine_interp, .slice = flip_at_100}}};
    struct against_result res;
    char *report;

    make_recording(t, t->dir, 0);
    assert_int_equal(against(t, &cfg, &res, &report), 0);
    assert_true(res.differ);
    assert_int_equal(res.slice, 100);
    assert_false(res.instruction);
    assert_non_null(strstr(report, "page 0x500000, first at 0x500010"));
    free(report);
}

static void two_recordings(void **state)
{
    struct fixture *t = *state;
    char other[112];
    struct against_config cfg = {.side = {{.dir = t->dir, .engine = &engine_interp},
                                          {.dir = other, .engine = &engine_interp}}};
    struct against_result res;
    char *report;

    (void)snprintf(other, sizeof other, "%s/other", t->top);
    make_recording(t, t->dir, 0);
    make_recording(t, other, 0);
    assert_int_equal(against(t, &cfg, &res, &report), 0);
    assert_false(res.differ);
    free(report);
    (void)snprintf(other, sizeof other, "%s/third", t->top);
    make_recording(t, other, 120);
    assert_int_equal(against(t, &cfg, &res, &report), 0);
    assert_true(res.differ);
    assert_int_equal(res.slice, 120);
    assert_true(res.instruction);
    assert_non_null(strstr(report, "Record 120 is not the same in both recordings:\n  rate: "));
    assert_non_null(strstr(report, "The first slice that differs is 120."));
    assert_non_null(strstr(report, "rax "));
    free(report);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_must_not_matter_does_not),
        TEST(a_fault_is_found_at_its_instruction),
        TEST(a_fault_of_the_translator_is_found),
        TEST(what_heals_is_found_by_recorded_digests),
        TEST(changed_memory_is_named),
        TEST(two_recordings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
