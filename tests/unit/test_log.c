/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a log that comes back other than it was written; an altered, missing, truncated,
 * exchanged or foreign record, digest or manifest that is read as if nothing were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/prng.h"
#include "replica/log.h"
#include "replica/manifest.h"
#include "vmm/tunables.h"

enum { RECORDS = 300, ORIGIN = 4711 };

struct fixture {
    char dir[64], mdb[96], end[96], manifest[96];
    struct plx_err err;
};

static int setup(void **state)
{
    struct fixture *t = calloc(1, sizeof *t);

    (void)snprintf(t->dir, sizeof t->dir, "/tmp/pollux-test-log-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
    (void)snprintf(t->mdb, sizeof t->mdb, "%s/log.mdb", t->dir);
    (void)snprintf(t->end, sizeof t->end, "%s/log.end", t->dir);
    (void)snprintf(t->manifest, sizeof t->manifest, "%s/manifest", t->dir);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *t = *state;

    (void)unlink(t->mdb);
    (void)unlink(t->end);
    (void)unlink(t->manifest);
    (void)rmdir(t->dir);
    free(t);
    return 0;
}

static size_t record_of(uint64_t seq, uint8_t out[64])
{
    size_t len = 10 + seq % 50;

    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)(seq * 7 + i);
    }
    return len;
}

static struct vm_digest digest_of(uint64_t seq)
{
    struct vm_digest d = {.seq = seq, .all = {seq, 1}, .ram = {2, seq}, .nsections = 2};

    d.sections[0].hash.lo = 10 + seq;
    d.sections[1].hash.lo = 20 + seq;
    return d;
}

static void write_log(struct fixture *t, uint64_t first)
{
    static const struct digest_page pages[] = {{0x1000, {5, 6}}, {UINT64_C(0x100003000), {7, 8}}};
    struct log *log;

    assert_int_equal(log_create(t->dir, ORIGIN, &log, &t->err), 0);
    for (uint64_t seq = first; seq < first + RECORDS; seq++) {
        uint8_t record[64];
        size_t len = record_of(seq, record);
        assert_int_equal(log_append(log, seq, record, len, &t->err), 0);
        if (seq % 64 == 0) {
            struct vm_digest d = digest_of(seq);
            assert_int_equal(log_append_digest(log, &d, pages, 2, &t->err), 0);
        }
    }
    assert_true(log_bytes(log) > (uint64_t)RECORDS * 20);
    assert_int_equal(log_close(log, &t->err), 0);
}

static int open_log(struct fixture *t)
{
    struct log *log;
    int rc = log_open(t->dir, ORIGIN, &log, &t->err);

    (void)log_close(log, NULL);
    return rc;
}

static void what_was_written_comes_back(void **state)
{
    struct fixture *t = *state;
    struct log_digest d;
    struct log *log;
    uint16_t hash;
    gpa_t gpa;

    write_log(t, 5);
    assert_int_equal(log_open(t->dir, ORIGIN, &log, &t->err), 0);
    assert_true(log_sealed(log));
    assert_int_equal(log_first(log), 5);
    assert_int_equal(log_last(log), 5 + RECORDS - 1);
    for (uint64_t seq = 5; seq < 5 + RECORDS; seq++) {
        uint8_t want[64];
        const void *have;
        size_t len, wanted = record_of(seq, want);
        assert_int_equal(log_get(log, seq, &have, &len, &t->err), 0);
        assert_int_equal(len, wanted);
        assert_memory_equal(have, want, len);
        assert_int_equal(log_get_digest(log, seq, &d, &t->err), seq % 64 == 0);
    }
    assert_int_equal(log_get_digest(log, 128, &d, &t->err), 1);
    assert_int_equal(d.all.lo, 128);
    assert_int_equal(d.sections[1], 148);
    assert_true(log_digest_page(&d, &gpa, &hash));
    assert_int_equal(gpa, 0x1000);
    assert_int_equal(hash, 5);
    assert_true(log_digest_page(&d, &gpa, &hash));
    assert_int_equal(gpa, UINT64_C(0x100003000));
    assert_int_equal(hash, 7);
    assert_false(log_digest_page(&d, &gpa, &hash));
    assert_int_equal(log_close(log, NULL), 0);
}

static void a_log_is_never_overwritten(void **state)
{
    struct fixture *t = *state;
    struct log *log;

    write_log(t, 1);
    assert_int_equal(log_create(t->dir, ORIGIN, &log, &t->err), PLX_EEXIST);
    assert_null(log);
}

static void a_log_of_another_recording_is_refused(void **state)
{
    struct fixture *t = *state;
    struct log *log;

    write_log(t, 1);
    assert_int_equal(log_open(t->dir, ORIGIN + 1, &log, &t->err), PLX_ECORRUPT);
    assert_non_null(strstr(t->err.msg, "record 1 "));
}

/* Change the stored value of one record, or remove it, with LMDB itself: the file stays sound. */
static void tamper(struct fixture *t, uint64_t seq, int at, size_t len)
{
    uint8_t key[8] = {0}, copy[128];
    MDB_val k = {8, key}, v;
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;

    key[6] = (uint8_t)(seq >> 8);
    key[7] = (uint8_t)seq;
    assert_int_equal(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 2);
    mdb_env_set_mapsize(env, 1 << 30);
    assert_int_equal(mdb_env_open(env, t->mdb, MDB_NOSUBDIR | MDB_NOLOCK, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "records", 0, &dbi), 0);
    assert_int_equal(mdb_get(txn, dbi, &k, &v), 0);
    memcpy(copy, v.mv_data, v.mv_size);
    v.mv_data = copy;
    if (at >= 0) {
        copy[(size_t)at % v.mv_size] ^= 0x40;
        assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    } else if (len > 0) {
        v.mv_size -= len;
        assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    } else {
        assert_int_equal(mdb_del(txn, dbi, &k, NULL), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

/* Each byte of a record in the middle, sealed or not: the record is named. */
static void an_altered_record_is_named(void **state)
{
    struct fixture *t = *state;
    uint8_t record[64];
    size_t len;

    write_log(t, 1);
    len = record_of(150, record) + 4;
    for (int sealed = 1; sealed >= 0; sealed--) {
        for (size_t i = 0; i < len; i++) {
            tamper(t, 150, (int)i, 0);
            assert_int_equal(open_log(t), PLX_ECORRUPT);
            assert_non_null(strstr(t->err.msg, "record 150 "));
            tamper(t, 150, (int)i, 0);
        }
        (void)unlink(t->end);
    }
    assert_int_equal(open_log(t), 0);
}

static void a_missing_record_is_named(void **state)
{
    struct fixture *t = *state;

    write_log(t, 1);
    tamper(t, 77, -1, 0);
    assert_int_equal(open_log(t), PLX_ECORRUPT);
    assert_non_null(strstr(t->err.msg, "record 77 is missing"));
}

static void a_truncated_record_is_named(void **state)
{
    struct fixture *t = *state;

    write_log(t, 1);
    tamper(t, RECORDS, -1, 3);
    assert_int_equal(open_log(t), PLX_ECORRUPT);
    assert_non_null(strstr(t->err.msg, "record 300 "));
    tamper(t, RECORDS, -1, 9);
    assert_true(open_log(t) < 0);
    assert_non_null(strstr(t->err.msg, "record 300 "));
}

static void a_missing_end_is_found(void **state)
{
    struct fixture *t = *state;

    write_log(t, 1);
    tamper(t, RECORDS, -1, 0);
    assert_int_equal(open_log(t), PLX_ETRUNCATED);
    assert_non_null(strstr(t->err.msg, "ends at record 299"));
}

static void a_truncated_file_is_found(void **state)
{
    struct fixture *t = *state;
    struct stat st;

    write_log(t, 1);
    assert_int_equal(stat(t->mdb, &st), 0);
    for (int sealed = 1; sealed >= 0; sealed--) {
        for (off_t len = st.st_size - 1; len > 0; len -= 4096) {
            assert_int_equal(truncate(t->mdb, len), 0);
            assert_true(open_log(t) < 0);
            assert_true(t->err.msg[0] != '\0');
        }
        assert_int_equal(truncate(t->mdb, 0), 0);
        assert_true(open_log(t) < 0);
        assert_int_equal(unlink(t->mdb), 0);
        if (sealed == 1) {
            assert_int_equal(unlink(t->end), 0);
            write_log(t, 1);
            assert_int_equal(unlink(t->end), 0);
        }
    }
    assert_int_equal(open_log(t), PLX_ENOENT);
}

/* Any byte of the file or of its seal, at random; with the seal in place not one passes. */
static void an_altered_file_never_passes(void **state)
{
    struct fixture *t = *state;
    const uint64_t seed = 99;
    struct prng g;
    struct stat st;

    print_message("seed %llu\n", (unsigned long long)seed);
    prng_seed(&g, seed);
    write_log(t, 1);
    for (int i = 0; i < 200; i++) {
        const char *path = i < 150 ? t->mdb : t->end;
        assert_int_equal(stat(t->mdb, &st), 0); /* a slow host commits more often */
        uint64_t at = i < 150 ? prng_below(&g, (uint64_t)st.st_size) : (uint64_t)i % 96;
        int fd = open(path, O_RDWR | O_CLOEXEC);
        uint8_t byte;
        assert_int_equal(io_pread_full(fd, &byte, 1, at), 1);
        byte ^= (uint8_t)(1U << prng_below(&g, 8));
        assert_int_equal(io_pwrite_full(fd, &byte, 1, at), 0);
        assert_true(open_log(t) < 0);
        assert_int_equal(io_pread_full(fd, &byte, 1, at), 1);
        close(fd);
        /* Restore by writing the log anew: bits cannot be flipped back blindly. */
        assert_int_equal(unlink(t->mdb), 0);
        (void)unlink(t->end);
        write_log(t, 1);
    }
}

/* Killed before it was sealed: what was committed is there, and it says that it was interrupted. */
static void an_interrupted_log_is_read_to_its_end(void **state)
{
    struct fixture *t = *state;
    struct log *log;

    write_log(t, 1);
    assert_int_equal(unlink(t->end), 0);
    assert_int_equal(log_open(t->dir, ORIGIN, &log, &t->err), 0);
    assert_false(log_sealed(log));
    assert_int_equal(log_last(log), RECORDS);
    assert_int_equal(log_close(log, NULL), 0);
}

static struct manifest sample_manifest(void)
{
    struct manifest m;

    memset(&m, 0, sizeof m);
    m.machine.cpu = CPU_POLLUX_V3;
    strcpy(m.engine, "interp");
    strcpy(m.cmdline, "console=ttyS0 quiet");
    strcpy(m.kernel.name, "kernel");
    m.kernel.size = 12345;
    m.kernel.sha256[3] = 9;
    m.machine.memory = 64 << 20;
    m.machine.vcpus = 1;
    m.machine.ndisks = 1;
    m.machine.disks[0].sectors = 2048;
    strcpy(m.disks[0].name, "/srv/images/base.raw");
    m.machine.nnics = 2;
    m.machine.nics[1].mac[5] = 77;
    m.nsections = 2;
    strcpy(m.sections[0].name, "machine");
    strcpy(m.sections[1].name, "cpu0");
    m.sections[1].version = 3;
    return m;
}

static void a_manifest_comes_back(void **state)
{
    struct fixture *t = *state;
    struct manifest m = sample_manifest(), got;
    uint64_t origin, again;

    assert_int_equal(manifest_write(t->dir, &m, &origin, &t->err), 0);
    assert_int_equal(manifest_read(t->dir, &got, &again, &t->err), 0);
    assert_int_equal(origin, again);
    assert_memory_equal(&m, &got, sizeof m);
}

static void an_altered_or_cut_manifest_is_refused(void **state)
{
    struct fixture *t = *state;
    struct manifest m = sample_manifest(), got;
    struct wbuf whole;
    uint64_t origin;

    assert_int_equal(manifest_write(t->dir, &m, &origin, &t->err), 0);
    assert_int_equal(io_read_file(t->manifest, 1 << 20, &whole, NULL), 0);
    for (size_t i = 0; i < whole.len; i++) {
        whole.data[i] ^= 4;
        assert_int_equal(io_write_file(t->manifest, whole.data, whole.len, NULL), 0);
        assert_true(manifest_read(t->dir, &got, &origin, &t->err) < 0);
        whole.data[i] ^= 4;
        assert_int_equal(io_write_file(t->manifest, whole.data, i, NULL), 0);
        assert_true(manifest_read(t->dir, &got, &origin, &t->err) < 0);
    }
    wbuf_free(&whole);
    assert_int_equal(unlink(t->manifest), 0);
    assert_int_equal(manifest_read(t->dir, &got, &origin, &t->err), PLX_ENOENT);
}

/* A manifest may not send a replay to files outside of its directory. */
static void a_manifest_names_only_its_copies(void **state)
{
    struct fixture *t = *state;
    struct manifest m = sample_manifest(), got;
    uint64_t origin;

    strcpy(m.kernel.name, "../../etc/passwd");
    assert_int_equal(manifest_write(t->dir, &m, &origin, &t->err), 0);
    assert_int_equal(manifest_read(t->dir, &got, &origin, &t->err), PLX_ECORRUPT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_written_comes_back),
        TEST(a_log_is_never_overwritten),
        TEST(a_log_of_another_recording_is_refused),
        TEST(an_altered_record_is_named),
        TEST(a_missing_record_is_named),
        TEST(a_truncated_record_is_named),
        TEST(a_missing_end_is_found),
        TEST(a_truncated_file_is_found),
        TEST(an_altered_file_never_passes),
        TEST(an_interrupted_log_is_read_to_its_end),
        TEST(a_manifest_comes_back),
        TEST(an_altered_or_cut_manifest_is_refused),
        TEST(a_manifest_names_only_its_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
