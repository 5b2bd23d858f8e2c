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
#include "tests/unit/virtio_guest.h"
#include "tests/unit/zero_disk.h"

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

/* Where drivers have their rings and buffers, out of the guest's way. */
enum { NET_RINGS = 0x100000, DISK_RINGS = 0x140000, CONSOLE_RINGS = 0x160000, BUFFERS = 0x1c0000 };

enum { ID_NET = 0x10411af4, ID_DISK = 0x10421af4, ID_CONSOLE = 0x10431af4 };

static void find_device(struct driver *d, struct guest *g, uint32_t id, gpa_t rings)
{
    unsigned slot = 0;

    while (slot < 31 && guest_cfg_read(g, slot, 0, 4) != id) {
        slot++;
    }
    driver_find(d, g, slot);
    d->rings = rings;
}

/* As drivers in the guest would have done: a card and a console with a buffer each, and a request
 * to read from the disk in flight. */
static void start_drivers(struct vm *vm, struct output_list *out)
{
    static const struct buffer net[] = {{BUFFERS, 2048, true}},
                               disk[] = {{BUFFERS + 0x1000, 16, false},
                                         {BUFFERS + 0x2000, 512, true},
                                         {BUFFERS + 0x3000, 1, true}},
                               console[] = {{BUFFERS + 0x4000, 64, true}};
    struct guest g = {.m = *vm_machine(vm)}; /* bus and RAM are the VM's */
    struct driver d;

    vm_machine(vm)->out = out;
    find_device(&d, &g, ID_NET, NET_RINGS);
    driver_start(&d, 0);
    (void)driver_chain(&d, 0, net, PLX_COUNT(net));
    find_device(&d, &g, ID_DISK, DISK_RINGS);
    driver_start(&d, 0);
    (void)driver_chain(&d, 0, disk, PLX_COUNT(disk));
    driver_ring(&d, 0);
    assert_int_equal(out->n, 1);
    find_device(&d, &g, ID_CONSOLE, CONSOLE_RINGS);
    driver_start(&d, 0);
    (void)driver_chain(&d, 0, console, PLX_COUNT(console));
    vm_machine(vm)->out = NULL;
    output_list_clear(out);
}

/* The guest on a machine with every source of inputs. */
static struct vm *wired_vm(struct output_list *out)
{
    struct vm_config cfg = {.machine = {.memory = GUEST_RAM, .vcpus = 1, .ndisks = 1, .nnics = 1},
                            .host = {.disk_result = zero_disk},
                            .engine = &engine_interp};
    struct boot_config boot = {.kernel = {guest_image, guest_image_len()}};
    struct vm *vm;

    cfg.machine.disks[0].sectors = 16;
    assert_int_equal(vm_create(&cfg, &vm, NULL), 0);
    assert_int_equal(boot_load(vm_machine(vm), &vm_vcpu(vm, 0)->c, &boot, NULL), 0);
    engine_interp.state_changed(vm_vcpu(vm, 0));
    start_drivers(vm, out);
    return vm;
}

/* Which records have what, beside entropy and date (1) and keys (23 and so on). */
enum { FRAME_AT = 5, DISK_AT = 8, TYPED_AT = 11, NOTHING_AT = 40 };

static struct record wired_record(struct vm *vm, struct input inputs[3])
{
    static const uint8_t frame[] = "\x52\x54\x00\x11\x22\x33\x52\x54\x00\x44\x55\x66\x08\x00hello";
    struct record r = guest_record(vm, inputs);

    switch (r.seq) {
    case FRAME_AT:
        inputs[r.ninputs++] =
            (struct input){.kind = INPUT_NET_RX, .data = frame, .len = sizeof frame};
        break;
    case DISK_AT:
        inputs[r.ninputs++] = (struct input){.kind = INPUT_DISK_DONE, .arg = 1};
        break;
    case TYPED_AT:
        inputs[r.ninputs++] = (struct input){.kind = INPUT_CONSOLE_RX,
                                             .dev = CONSOLE_VIRTIO0,
                                             .data = (const uint8_t *)"ls\r",
                                             .len = 3};
        break;
    default:
        break;
    }
    return r;
}

/* The check at the end of a record as somebody makes it who knows how. */
static void seal_record(struct wbuf *r)
{
    uint32_t check = (uint32_t)hash128(r->data, r->len - 4, UINT64_C(0x7265636f72640001)).lo;

    memcpy(r->data + r->len - 4, &check, 4);
}

/* False: one of the records is refused. */
static bool run_records(const struct wbuf *records, unsigned n, struct vm_digest *d)
{
    struct output_list out;
    struct plx_err err;
    bool good = true;

    output_list_init(&out);
    struct vm *vm = wired_vm(&out);
    for (unsigned i = 0; i < n && good; i++) {
        struct input *inputs;
        struct record r;
        output_list_clear(&out);
        good = record_decode(records[i].data, records[i].len, &r, &inputs, &err) == 0 &&
               vm_slice(vm, &r, &out, &err) == 0;
        plx_free(inputs);
    }
    if (good) {
        vm_digest(vm, 0, d, NULL, NULL);
    }
    vm_destroy(vm);
    output_list_free(&out);
    return good;
}

/* One log in which one byte of one record differs, its checks and chain made anew by somebody who
 * knows how: replay either refuses the record or ends in another digest. */
static void an_altered_input_shows_in_the_digests(void **state)
{
    /* @placed: of its bytes, those that the guest finds in its RAM; a digest also sees them in the
     * hash of all records, whether they got there or not. */
    static const struct {
        unsigned seq, placed;
    } victims[] = {{1, 0}, {FRAME_AT, 20}, {DISK_AT, 1}, {TYPED_AT, 3}, {23, 0}, {NOTHING_AT, 0}};
    struct fixture *t = *state;
    struct vm_digest want, have;
    struct wbuf records[AMOUNT(80, 2)];
    struct output_list out;

    output_list_init(&out);
    struct vm *vm = wired_vm(&out);
    for (unsigned i = 0; i < PLX_COUNT(records); i++) {
        struct input inputs[3];
        struct record r = wired_record(vm, inputs);
        wbuf_init(&records[i]);
        record_encode(&r, &records[i]);
        assert_int_equal(vm_slice(vm, &r, &out, &t->err), 0);
        output_list_clear(&out);
    }
    vm_digest(vm, 0, &want, NULL, NULL);
    vm_destroy(vm);
    output_list_free(&out);
    assert_true(run_records(records, PLX_COUNT(records), &have));
    assert_true(hash128_eq(want.all, have.all));
    for (size_t k = 0; k < PLX_COUNT(victims); k++) {
        struct wbuf *victim = &records[victims[k].seq - 1];
        unsigned refused = 0, differ = 0, in_ram = 0;
        for (size_t at = 0; at + 4 < victim->len; at += UNDER_TSAN ? 7 : 1) {
            victim->data[at] ^= 1;
            seal_record(victim);
            if (!run_records(records, PLX_COUNT(records), &have)) {
                refused++;
            } else {
                if (hash128_eq(want.all, have.all)) {
                    fail_msg("byte %zu of record %u may be altered", at, victims[k].seq);
                }
                differ++;
                in_ram += !hash128_eq(want.ram, have.ram);
            }
            victim->data[at] ^= 1;
            seal_record(victim);
        }
        print_message(
            "record %u, %zu bytes: %u alterations refused, %u seen in the digest, %u in RAM\n",
            victims[k].seq, victim->len, refused, differ, in_ram);
        assert_true(refused > 0 && (differ > 0 || victims[k].seq == NOTHING_AT));
        assert_true(UNDER_TSAN || in_ram >= victims[k].placed);
    }
    for (unsigned i = 0; i < PLX_COUNT(records); i++) {
        wbuf_free(&records[i]);
    }
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
