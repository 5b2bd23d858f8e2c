/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a recording that does not replay to the same digests, on any cache size and with
 * everything droppable dropped; a changed input, file or disk under a recording that is not found;
 * a comparison of nothing that passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "replica/log.h"
#include "replica/recording.h"
#include "replica/replay.h"
#include "tests/unit/amount.h"
#include "tests/unit/sched_guest.h"

enum { SLICES = AMOUNT(400, 3), EVERY = 32 };

struct fixture {
    char top[64], dir[96], kernel[96], disk[96], state[96];
    struct plx_err err;
};

static void remove_all(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL) {
        char path[512];
        (void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_type == DT_REG) {
            (void)unlink(path);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    (void)rmdir(dir);
}

static int setup(void **state)
{
    struct fixture *t = calloc(1, sizeof *t);
    uint8_t sectors[8192] = {1, 2, 3};

    (void)snprintf(t->top, sizeof t->top, "/tmp/pollux-test-replay-XXXXXX");
    assert_non_null(mkdtemp(t->top));
    (void)snprintf(t->dir, sizeof t->dir, "%s/rec", t->top);
    (void)snprintf(t->kernel, sizeof t->kernel, "%s/image", t->top);
    (void)snprintf(t->disk, sizeof t->disk, "%s/disk", t->top);
    (void)snprintf(t->state, sizeof t->state, "%s/state", t->top);
    assert_int_equal(io_write_file(t->kernel, guest_image, guest_image_len(), NULL), 0);
    assert_int_equal(io_write_file(t->disk, sectors, sizeof sectors, NULL), 0);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *t = *state;

    remove_all(t->dir);
    remove_all(t->top);
    free(t);
    return 0;
}

/* Runs @slices slices from @vm's state into a recording, with digests unless @every is 0. */
static void record_vm(struct fixture *t, struct vm *vm, const struct vm_config *vc,
                      const struct recording_config *rc, unsigned slices, unsigned every)
{
    struct output_list out;
    struct recording *rec;

    output_list_init(&out);
    assert_int_equal(recording_create(rc, &rec, &t->err), 0);
    assert_int_equal(recording_begin(rec, vm, vc, &t->err), 0);
    for (unsigned i = 1; i <= slices; i++) {
        struct input inputs[2];
        struct record r = guest_record(vm, inputs);
        assert_int_equal(recording_append(rec, &r, &t->err), 0);
        assert_int_equal(vm_slice(vm, &r, &out, &t->err), 0);
        if (every != 0 && (i % every == 0 || i == slices)) {
            assert_int_equal(recording_digest_now(rec, vm, &t->err), 0);
        }
    }
    assert_true(recording_log_bytes(rec) > 0);
    assert_int_equal(recording_close(rec, &t->err), 0);
    output_list_free(&out);
}

static void make_recording(struct fixture *t, unsigned every)
{
    struct recording_config rc = {.dir = t->dir, .kernel = t->kernel, .cmdline = "quiet"};
    struct vm_config vc = {.engine = &engine_interp};
    struct boot_config boot = {.kernel = {guest_image, guest_image_len()}, .cmdline = "quiet"};
    struct vm *vm;

    vc.machine = (struct machine_config){.memory = GUEST_RAM, .vcpus = 1};
    assert_int_equal(vm_create(&vc, &vm, &t->err), 0);
    assert_int_equal(boot_load(vm_machine(vm), &vm_vcpu(vm, 0)->c, &boot, &t->err), 0);
    engine_interp.state_changed(vm_vcpu(vm, 0));
    record_vm(t, vm, &vc, &rc, SLICES, every);
    vm_destroy(vm);
}

static int replay(struct fixture *t, struct replay_result *res)
{
    struct replay_config cfg = {.dir = t->dir, .engine = &engine_interp};

    t->err.msg[0] = '\0';
    return replay_run(&cfg, res, &t->err);
}

static void a_recording_replays_to_the_same_digests(void **state)
{
    struct fixture *t = *state;
    struct replay_result res;

    make_recording(t, EVERY);
    assert_int_equal(replay(t, &res), 0);
    assert_int_equal(res.slices, SLICES);
    assert_int_equal(res.compared, (SLICES + EVERY - 1) / EVERY);
    assert_int_equal(res.differ, 0);
    assert_true(res.sealed);
    assert_int_equal(replay_verdict(&res, &t->err), 0);
}

static void caches_and_chaos_change_nothing(void **state)
{
    struct fixture *t = *state;
    struct replay_result res;

    make_recording(t, EVERY);
    for (uint64_t seed = 1; seed <= AMOUNT(5, 2); seed++) {
        struct replay_config cfg = {.dir = t->dir,
                                    .engine = &engine_interp,
                                    .chaos = seed,
                                    .cache_entries = seed == 1 ? 4096 : 0};
        assert_int_equal(replay_run(&cfg, &res, &t->err), 0);
        if (replay_verdict(&res, &t->err) != 0) {
            fail_msg("seed %d: %s", (int)seed, t->err.msg);
        }
        assert_int_equal(res.slices, SLICES);
    }
}

static void until_stops_there(void **state)
{
    struct fixture *t = *state;
    struct replay_result res;
    char path[160];
    struct wbuf lines;
    unsigned n = 0;

    (void)snprintf(path, sizeof path, "%s/digests", t->top);
    struct replay_config cfg = {.dir = t->dir,
                                .engine = &engine_interp,
                                .until = 100,
                                .digest_log = path,
                                .digest_every = 10};
    make_recording(t, EVERY);
    assert_int_equal(replay_run(&cfg, &res, &t->err), 0);
    assert_int_equal(res.slices, 100);
    assert_int_equal(res.compared, 3);
    assert_int_equal(io_read_file(path, 1 << 20, &lines, NULL), 0);
    for (size_t i = 0; i < lines.len; i++) {
        n += lines.data[i] == '\n';
    }
    assert_int_equal(n, 1 + 10 + 3); /* the start, every tenth, the logged ones */
    wbuf_free(&lines);
}

static void comparing_nothing_fails(void **state)
{
    struct fixture *t = *state;
    struct replay_result res;

    make_recording(t, 0);
    assert_int_equal(replay(t, &res), 0);
    assert_int_equal(res.slices, SLICES);
    assert_int_equal(res.compared, 0);
    assert_int_equal(replay_verdict(&res, &t->err), PLX_ESTATE);
}

/* From a saved state: the copy in the recording is what is loaded. */
static void a_recording_may_begin_with_a_state(void **state)
{
    struct fixture *t = *state;
    struct recording_config rc = {.dir = t->dir, .state = t->state};
    struct vm_config vc = {.engine = &engine_interp};
    struct replay_result res;
    struct output_list out;
    struct vm *vm = guest_vm(0, 0);

    output_list_init(&out);
    for (int i = 0; i < 100; i++) {
        struct input inputs[2];
        struct record r = guest_record(vm, inputs);
        assert_int_equal(vm_slice(vm, &r, &out, &t->err), 0);
    }
    output_list_free(&out);
    assert_int_equal(vm_save(vm, t->state, &t->err), 0);
    record_vm(t, vm, &vc, &rc, 100, EVERY);
    vm_destroy(vm);
    assert_int_equal(unlink(t->state), 0);
    assert_int_equal(replay(t, &res), 0);
    assert_int_equal(res.slices, 100);
    assert_int_equal(replay_verdict(&res, &t->err), 0);
}

/* Copies and manifest: missing, cut, altered, each named. */
static void damaged_files_are_named(void **state)
{
    static const char *const names[] = {"kernel", "manifest", "log.mdb"};
    struct fixture *t = *state;
    struct replay_result res;

    make_recording(t, EVERY);
    for (size_t i = 0; i < PLX_COUNT(names); i++) {
        char path[160];
        struct wbuf whole;
        (void)snprintf(path, sizeof path, "%s/%s", t->dir, names[i]);
        assert_int_equal(io_read_file(path, 1 << 28, &whole, NULL), 0);
        assert_int_equal(io_write_file(path, whole.data, whole.len - 1, NULL), 0);
        assert_true(replay(t, &res) < 0);
        assert_non_null(strstr(t->err.msg, path));
        whole.data[whole.len / 2] ^= 1;
        assert_int_equal(io_write_file(path, whole.data, whole.len, NULL), 0);
        assert_true(replay(t, &res) < 0);
        assert_non_null(strstr(t->err.msg, path));
        whole.data[whole.len / 2] ^= 1;
        assert_int_equal(unlink(path), 0);
        assert_int_equal(replay(t, &res), PLX_ENOENT);
        assert_non_null(strstr(t->err.msg, path));
        assert_int_equal(io_write_file(path, whole.data, whole.len, NULL), 0);
        assert_int_equal(replay(t, &res), 0);
        wbuf_free(&whole);
    }
}

static int no_disk(void *ctx, unsigned disk, uint64_t id, void *data, uint32_t len, uint8_t *status,
                   struct plx_err *err)
{
    (void)ctx;
    (void)disk;
    (void)id;
    (void)data;
    (void)len;
    (void)status;
    return plx_fail(err, PLX_EIO, "nothing was asked of this disk");
}

/* The base of a disk stays outside of the recording: a changed one is refused, by its hash. */
static void a_changed_disk_is_refused(void **state)
{
    struct fixture *t = *state;
    struct recording_config rc = {.dir = t->dir, .kernel = t->kernel, .disks = {t->disk}};
    struct vm_config vc = {.engine = &engine_interp, .host = {.disk_result = no_disk}};
    struct boot_config boot = {.kernel = {guest_image, guest_image_len()}};
    uint8_t sectors[8192] = {1, 2, 3};
    struct replay_result res;
    struct vm *vm;

    vc.machine = (struct machine_config){.memory = GUEST_RAM, .vcpus = 1, .ndisks = 1};
    vc.machine.disks[0].sectors = sizeof sectors / 512;
    assert_int_equal(vm_create(&vc, &vm, &t->err), 0);
    assert_int_equal(boot_load(vm_machine(vm), &vm_vcpu(vm, 0)->c, &boot, &t->err), 0);
    engine_interp.state_changed(vm_vcpu(vm, 0));
    record_vm(t, vm, &vc, &rc, 50, EVERY);
    vm_destroy(vm);
    assert_int_equal(replay(t, &res), 0);
    assert_int_equal(replay_verdict(&res, &t->err), 0);

    sectors[8000] ^= 1;
    assert_int_equal(io_write_file(t->disk, sectors, sizeof sectors, NULL), 0);
    assert_int_equal(replay(t, &res), PLX_ECORRUPT);
    assert_non_null(strstr(t->err.msg, t->disk));
    assert_int_equal(io_write_file(t->disk, sectors, sizeof sectors - 512, NULL), 0);
    assert_int_equal(replay(t, &res), PLX_ETRUNCATED);
    assert_int_equal(unlink(t->disk), 0);
    assert_int_equal(replay(t, &res), PLX_ENOENT);
}

static void a_directory_in_use_is_refused(void **state)
{
    struct fixture *t = *state;
    struct recording_config rc = {.dir = t->dir, .kernel = t->kernel};
    struct recording *rec;

    make_recording(t, EVERY);
    assert_int_equal(recording_create(&rc, &rec, &t->err), PLX_EEXIST);
    rc.dir = "/nonexistent/rec";
    assert_int_equal(recording_create(&rc, &rec, &t->err), PLX_ENOENT);
    rc.state = t->state;
    assert_int_equal(recording_create(&rc, &rec, &t->err), PLX_EINVAL);
}

/* One log in which one byte of one record differs, its checks and chain made anew by somebody who
 * knows how: replay either refuses the record or ends in another digest. */
static void an_altered_input_shows_in_the_digests(void **state)
{
    struct fixture *t = *state;
    struct vm_digest want, have;
    struct wbuf records[AMOUNT(80, 2)];
    struct output_list out;
    struct vm *vm = guest_vm(0, 0);
    unsigned refused = 0, differ = 0;

    output_list_init(&out);
    for (unsigned i = 0; i < PLX_COUNT(records); i++) {
        struct input inputs[2];
        struct record r = guest_record(vm, inputs);
        wbuf_init(&records[i]);
        record_encode(&r, &records[i]);
        assert_int_equal(vm_slice(vm, &r, &out, &t->err), 0);
    }
    vm_digest(vm, 0, &want, NULL, NULL);
    vm_destroy(vm);
    /* Records 1 (entropy, date), 23 (a key) and 40 (nothing but time). */
    static const unsigned victims[] = {0, 22, 39};
    for (size_t k = 0; k < PLX_COUNT(victims); k++) {
        struct wbuf *victim = &records[victims[k]];
        for (size_t at = 0; at + 4 < victim->len; at += UNDER_TSAN ? 7 : 1) {
            bool bad = false;
            victim->data[at] ^= 1;
            uint32_t check =
                (uint32_t)hash128(victim->data, victim->len - 4, UINT64_C(0x7265636f72640001)).lo;
            memcpy(victim->data + victim->len - 4, &check, 4);
            vm = guest_vm(0, 0);
            for (unsigned i = 0; i < PLX_COUNT(records) && !bad; i++) {
                struct input *inputs;
                struct record r;
                output_list_clear(&out);
                bad = record_decode(records[i].data, records[i].len, &r, &inputs, &t->err) != 0 ||
                      vm_slice(vm, &r, &out, &t->err) != 0;
                plx_free(inputs);
            }
            if (bad) {
                refused++;
            } else {
                vm_digest(vm, 0, &have, NULL, NULL);
                if (hash128_eq(want.all, have.all)) {
                    fail_msg("byte %zu of record %u may be altered", at, victims[k] + 1);
                }
                differ++;
            }
            vm_destroy(vm);
            victim->data[at] ^= 1;
            check =
                (uint32_t)hash128(victim->data, victim->len - 4, UINT64_C(0x7265636f72640001)).lo;
            memcpy(victim->data + victim->len - 4, &check, 4);
        }
    }
    print_message("%u alterations refused, %u seen in the digest\n", refused, differ);
    assert_true(refused > 0 && differ > AMOUNT(40, 7));
    for (unsigned i = 0; i < PLX_COUNT(records); i++) {
        wbuf_free(&records[i]);
    }
    output_list_free(&out);
}

/* A difference is named: the section, or the page and no other. */
static int flip_at_100(void *ctx, struct vm *vm, const struct output_list *out, struct plx_err *err)
{
    (void)out;
    (void)err;
    if (vm_seq(vm) == 100) {
        if (*(int *)ctx == 0) {
            assert_int_equal(ram_fill(vm_machine(vm)->ram, 0x310080, 1, 1), 0);
        } else {
            vm_vcpu(vm, 0)->c.tsc_adjust++;
        }
    }
    return 0;
}

static void a_difference_is_named(void **state)
{
    struct fixture *t = *state;
    struct replay_result res;
    int which = 0;
    struct replay_config cfg = {
        .dir = t->dir, .engine = &engine_interp, .slice = flip_at_100, .ctx = &which};

    make_recording(t, EVERY);
    assert_int_equal(replay_run(&cfg, &res, &t->err), 0);
    assert_int_equal(res.first_differing, 128);
    assert_true(res.differ > 0);
    assert_string_equal(res.what, "page 0x310000");
    assert_int_equal(replay_verdict(&res, &t->err), PLX_EDIVERGED);
    assert_non_null(strstr(t->err.msg, "slice 128"));
    which = 1;
    assert_int_equal(replay_run(&cfg, &res, &t->err), 0);
    assert_int_equal(res.first_differing, 128);
    assert_non_null(strstr(res.what, "section cpu0"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_recording_replays_to_the_same_digests),
        TEST(caches_and_chaos_change_nothing),
        TEST(until_stops_there),
        TEST(comparing_nothing_fails),
        TEST(a_recording_may_begin_with_a_state),
        TEST(damaged_files_are_named),
        TEST(a_changed_disk_is_refused),
        TEST(a_directory_in_use_is_refused),
        TEST(an_altered_input_shows_in_the_digests),
        TEST(a_difference_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
