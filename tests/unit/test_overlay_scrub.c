/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a changed byte in a block of an overlay that reaches the guest, or that nobody finds while
 * nobody reads it; one that was changed while the file was closed; and damage that is none: blocks
 * being written while they are looked at, or torn by a crash. */
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/unit/amount.h"
#include "tests/unit/disk_fixture.h"
#include "vmm/dev/backend/overlay.h"

enum { BLOCKS = (BYTES + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK };

static uint64_t a_seed(void)
{
    uint64_t seed = from_env("SEED", (uint64_t)time(NULL));

    print_message("SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* Change one bit of the file from outside: in @block, anywhere in it. */
static void flip(struct fixture *f, struct prng *g, uint64_t block)
{
    static const uint8_t none[SHA256_LEN];
    struct overlay *o = NULL;
    uint64_t data_off;
    uint8_t byte;
    char twin[128];
    int fd = open(f->overlay, O_RDWR);

    /* Where the data begin, from an overlay of the same size. */
    (void)snprintf(twin, sizeof twin, "%s.twin", f->overlay);
    assert_int_equal(overlay_create(twin, BYTES, none, NULL), 0);
    assert_int_equal(overlay_open(twin, BYTES, none, &o, NULL), 0);
    data_off = overlay_offset(o, block) + prng_below(g, OVERLAY_BLOCK);
    overlay_close(o);
    (void)unlink(twin);
    assert_int_equal(io_pread_full(fd, &byte, 1, data_off), 1);
    byte ^= (uint8_t)(1u << prng_below(g, 8));
    assert_int_equal(io_pwrite_full(fd, &byte, 1, data_off), 0);
    (void)close(fd);
}

static void write_all(struct fixture *f, struct diskfile *d, struct prng *g)
{
    static uint8_t data[BYTES];

    prng_fill(g, data, BYTES);
    result(d, submit(f, d, DISK_WRITE, 0, SECTORS, data), NULL, 0);
    result(d, submit(f, d, DISK_FLUSH, 0, 0, NULL), NULL, 0);
}

/* The scrub says so, naming disk and block, without anybody reading. */
static void expect_found(struct fixture *f, struct diskfile *d, uint64_t block)
{
    struct pollfd p = {.fd = diskfile_fd(d), .events = POLLIN};
    struct plx_err err = {{0}};
    char want[64];
    uint64_t ids[8];

    while (diskfile_error(d, &err) == 0) {
        assert_int_equal(poll(&p, 1, 20000), 1);
        (void)diskfile_poll(d, ids, 8);
    }
    (void)snprintf(want, sizeof want, "block %llu (", (unsigned long long)block);
    if (strstr(err.msg, want) == NULL || strstr(err.msg, f->base) == NULL) {
        fail_msg("expected '%s' of %s, heard: %s", want, f->base, err.msg);
    }
}

static void a_flipped_bit_is_found_by_the_scrub(void **state)
{
    struct fixture *f = *state;
    struct prng g;

    prng_seed(&g, a_seed());
    f->scrub_ns = 100000000;
    for (unsigned i = 0; i < 6; i++) {
        struct diskfile *d = open_disk(f, true, true);
        uint64_t block = prng_below(&g, BLOCKS);

        write_all(f, d, &g);
        if (i % 2 != 0) { /* by another process, that knows the checksums from the file only */
            diskfile_close(d);
            flip(f, &g, block);
            d = open_disk(f, true, false);
        } else {
            flip(f, &g, block);
        }
        expect_found(f, d, block);
        diskfile_close(d);
        (void)unlink(f->overlay);
    }
}

/* A part of a damaged block is neither read nor written around. */
static void a_damaged_block_is_an_io_error(void **state)
{
    struct fixture *f = *state;
    struct plx_err err = {{0}};
    uint8_t sector[512] = {0};
    struct prng g;

    prng_seed(&g, a_seed());
    for (unsigned i = 0; i < 8; i++) {
        struct diskfile *d = open_disk(f, true, true);
        uint64_t block = prng_below(&g, BLOCKS - 1), id;
        enum disk_op op = i % 2 == 0 ? DISK_READ : DISK_WRITE;
        char want[64];

        write_all(f, d, &g);
        flip(f, &g, block);
        id = submit(f, d, op, block * 8 + prng_below(&g, 8), 1, sector);
        assert_int_equal(diskfile_result(d, id, op == DISK_READ ? sector : NULL,
                                         op == DISK_READ ? 512 : 0, &err),
                         PLX_EIO);
        (void)snprintf(want, sizeof want, "block %llu (", (unsigned long long)block);
        assert_non_null(strstr(err.msg, want));
        /* Its neighbours are as they were; and written as a whole it is well again. */
        id = submit(f, d, DISK_READ, (block + 1) % (BLOCKS - 1) * 8, 1, NULL);
        result(d, id, sector, 512);
        static uint8_t whole[OVERLAY_BLOCK];
        result(d, submit(f, d, DISK_WRITE, block * 8, 8, whole), NULL, 0);
        id = submit(f, d, DISK_READ, block * 8, 8, NULL);
        result(d, id, whole, sizeof whole);
        diskfile_close(d);
        (void)unlink(f->overlay);
    }
}

/* Writes, discards and reads with the scrub in between all the time: no damage is seen. */
static void what_is_written_meanwhile_is_no_damage(void **state)
{
    struct fixture *f = *state;
    struct diskfile *d;
    struct prng g;
    static uint8_t data[64 * 512];
    struct plx_err err = {{0}};

    prng_seed(&g, a_seed());
    f->scrub_ns = 1000000;
    d = open_disk(f, true, true);
    for (unsigned i = 0; i < 3000; i++) {
        static const enum disk_op ops[] = {DISK_WRITE, DISK_WRITE, DISK_ZERO, DISK_FLUSH};
        enum disk_op op = ops[i % 64 == 63 ? 3 : prng_below(&g, 3)];
        uint64_t len = 1 + prng_below(&g, 64), at = prng_below(&g, SECTORS - len + 1);

        prng_fill(&g, data, 64);
        (void)submit(f, d, op, op == DISK_FLUSH ? 0 : at, op == DISK_FLUSH ? 0 : len, data);
        if (i % 32 == 31) {
            assert_int_equal(diskfile_drain(d, &err), 0);
        }
    }
    if (diskfile_drain(d, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    expect_contents(f, d, f->model);
    diskfile_close(d);
    d = open_disk(f, true, false);
    expect_contents(f, d, f->model);
    diskfile_close(d);
}

/* The intent of the one region is cleared in the file. */
static void wait_for_settled(struct fixture *f)
{
    int fd = open(f->overlay, O_RDONLY);
    struct timespec nap = {.tv_nsec = 10000000};
    uint8_t bits = 1;

    for (unsigned i = 0; i < 2000 && bits != 0; i++) {
        (void)nanosleep(&nap, NULL);
        assert_int_equal(io_pread_full(fd, &bits, 1, 12288), 1);
    }
    (void)close(fd);
    assert_int_equal(bits, 0);
}

/* A child that opens the overlay, writes @block unless all is to stay @settled, and dies without a
 * word. */
static void die_writing(struct fixture *f, uint64_t block, bool settled)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        static uint8_t data[OVERLAY_BLOCK] = {1};
        struct diskfile *d = open_disk(f, true, false);
        if (!settled) {
            result(d, submit(f, d, DISK_WRITE, block * 8, 8, data), NULL, 0);
            result(d, submit(f, d, DISK_FLUSH, 0, 0, NULL), NULL, 0);
        }
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

/* What a crash tore may be anything; what had settled long before is still known. */
static void a_torn_block_is_no_damage(void **state)
{
    struct fixture *f = *state;
    struct prng g;
    uint8_t sector[512];
    struct plx_err err = {{0}};

    prng_seed(&g, a_seed());
    for (unsigned settled = 0; settled < 2; settled++) {
        struct diskfile *d = open_disk(f, true, true);
        uint64_t block = prng_below(&g, BLOCKS - 1), id;

        write_all(f, d, &g);
        diskfile_close(d);
        die_writing(f, block, settled != 0);
        flip(f, &g, block);
        d = open_disk(f, true, false);
        id = submit(f, d, DISK_READ, block * 8, 1, NULL);
        assert_int_equal(diskfile_result(d, id, sector, 512, &err), settled ? PLX_EIO : 0);
        diskfile_close(d);
        /* And from then on it is known. */
        if (!settled) {
            f->scrub_ns = 20000000;
            d = open_disk(f, true, false);
            wait_for_settled(f);
            assert_int_equal(diskfile_error(d, &err), 0);
            diskfile_close(d);
            f->scrub_ns = 0;
            die_writing(f, block, true);
            flip(f, &g, block);
            d = open_disk(f, true, false);
            id = submit(f, d, DISK_READ, block * 8, 1, NULL);
            assert_int_equal(diskfile_result(d, id, sector, 512, &err), PLX_EIO);
            diskfile_close(d);
        }
        (void)unlink(f->overlay);
    }
}

/* A lost or invented bit of the bitmap would show the guest a block of another time. */
static void a_changed_bitmap_is_found_when_opened(void **state)
{
    static const uint8_t none[SHA256_LEN];
    struct fixture *f = *state;
    struct diskfile *d = open_disk(f, true, true);
    struct overlay *o;
    struct plx_err err = {{0}};
    uint8_t bits, sector[512] = {7};

    result(d, submit(f, d, DISK_WRITE, 16, 1, sector), NULL, 0);
    diskfile_close(d);
    for (unsigned bit = 2; bit <= 3; bit++) { /* block 2 is there, block 3 is not */
        int fd = open(f->overlay, O_RDWR);

        assert_int_equal(io_pread_full(fd, &bits, 1, 16384), 1);
        assert_int_equal(bits, 4);
        bits ^= (uint8_t)(1u << bit);
        assert_int_equal(io_pwrite_full(fd, &bits, 1, 16384), 0);
        assert_int_equal(overlay_open(f->overlay, BYTES, none, &o, &err), PLX_ECORRUPT);
        assert_non_null(strstr(err.msg, bit == 2 ? "block 2 " : "block 3 "));
        bits = 4;
        assert_int_equal(io_pwrite_full(fd, &bits, 1, 16384), 0);
        (void)close(fd);
    }
}

/* Two overlays with the same blocks have the same hash, however they came to be and whatever stands
 * beside the blocks; another byte gives another. */
static void contents_have_one_hash(void **state)
{
    struct fixture *f = *state;
    struct diskfile *d = open_disk(f, true, true);
    uint8_t a[SHA256_LEN], b[SHA256_LEN], sector[512] = {1};
    struct disk_stamp s = {.epoch = 5};

    result(d, submit(f, d, DISK_WRITE, 16, 1, sector), NULL, 0);
    diskfile_close(d);
    assert_int_equal(overlay_sha256(f->overlay, a, NULL), 0);
    (void)unlink(f->overlay);

    d = open_disk(f, true, true);
    sector[0] = 2;
    result(d, submit(f, d, DISK_WRITE, 16, 1, sector), NULL, 0);
    assert_int_equal(diskfile_stamp(d, &s, NULL), 0);
    result(d, submit(f, d, DISK_FLUSH, 0, 0, NULL), NULL, 0);
    assert_int_equal(overlay_sha256(f->overlay, b, NULL), 0);
    assert_memory_not_equal(a, b, sizeof a);
    sector[0] = 1;
    result(d, submit(f, d, DISK_WRITE, 16, 1, sector), NULL, 0);
    assert_int_equal(overlay_sha256(f->overlay, b, NULL), 0); /* neither closed nor settled */
    assert_memory_equal(a, b, sizeof a);
    diskfile_close(d);
    assert_int_equal(overlay_sha256("/nonexistent", b, NULL), PLX_ENOENT);
    assert_int_equal(overlay_sha256(f->base, b, NULL), PLX_ECORRUPT);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_flipped_bit_is_found_by_the_scrub),    T(a_damaged_block_is_an_io_error),
        T(what_is_written_meanwhile_is_no_damage), T(a_torn_block_is_no_damage),
        T(a_changed_bitmap_is_found_when_opened),  T(contents_have_one_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
