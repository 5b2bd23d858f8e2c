/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_recording.c - the files of a recording: manifest, log and seal. First byte:
 * which, and what fits without being guessed; the rest is its contents.
 *
 *   0  the manifest                1  its message (proto/manifest.proto), in a frame that fits
 *   2  entries of the log, with chain, checks and seal that fit
 *   3  the same as they are, without a seal
 *   4  the seal                    5  its fields, with a hash that fits
 *   6  bytes somewhere in a log that no seal vouches for: where (2 bytes, times 16), what
 *
 * An entry: table (0 records, 1 digests, 2 records under a key of any length), slice (2 bytes),
 * length (2 bytes), bytes. */
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/io.h"
#include "replica/log.h"
#include "replica/manifest.h"
#include "tests/fuzz/fuzz.h"

enum { PATH_CAP = 128, KEY_LEN = 8, ENTRIES_MAX = 32, RECORDS = 3 };

static char dir[64], manifest_path[PATH_CAP], log_path[PATH_CAP], end_path[PATH_CAP];
static struct wbuf manifest_bytes, log_file, end_file; /* as they were made */
static uint64_t origin;

static void remove_dir(void)
{
    char command[PATH_CAP];

    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    PLX_CHECK(system(command) == 0);
}

static void write_file(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    PLX_CHECK(fd >= 0 && io_write_full(fd, data, len) == 0 && close(fd) == 0);
}

static void make_recording(void)
{
    static struct manifest m = {.engine = "interp", .cmdline = "console=ttyS0"};
    static struct vm_digest d = {.seq = 2, .nsections = 2};
    const struct digest_page pages[2] = {{.gpa = 0x1000}, {.gpa = 0x5000}};
    struct log *log;

    (void)snprintf(dir, sizeof dir, "%s/pollux-fuzz-recording-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    PLX_CHECK(mkdtemp(dir) != NULL && atexit(remove_dir) == 0);
    (void)snprintf(manifest_path, PATH_CAP, "%s/manifest", dir);
    (void)snprintf(log_path, PATH_CAP, "%s/log.mdb", dir);
    (void)snprintf(end_path, PATH_CAP, "%s/log.end", dir);
    m.machine = (struct machine_config){.memory = 64 << 20, .vcpus = 1};
    strcpy(m.kernel.name, "kernel");
    m.nsections = 2;
    strcpy(m.sections[0].name, "cpu0");
    strcpy(m.sections[1].name, "sched");
    PLX_CHECK(manifest_write(dir, &m, &origin, NULL) == 0);
    PLX_CHECK(log_create(dir, origin, &log, NULL) == 0);
    for (uint64_t seq = 1; seq <= RECORDS; seq++) {
        PLX_CHECK(log_append(log, seq, "a record", 8, NULL) == 0);
    }
    PLX_CHECK(log_append_digest(log, &d, pages, 2, NULL) == 0);
    PLX_CHECK(log_close(log, NULL) == 0);
    PLX_CHECK(io_read_file(manifest_path, 1 << 20, &manifest_bytes, NULL) == 0);
    PLX_CHECK(io_read_file(log_path, 1 << 20, &log_file, NULL) == 0);
    PLX_CHECK(io_read_file(end_path, 1 << 20, &end_file, NULL) == 0);
}

static void reset(void)
{
    write_file(manifest_path, manifest_bytes.data, manifest_bytes.len);
    write_file(log_path, log_file.data, log_file.len);
    write_file(end_path, end_file.data, end_file.len);
}

/* --- what is put where ----------------------------------------------------------------------- */

static void put_hashed(const char *path, struct wbuf *b)
{
    uint8_t sha[SHA256_LEN];

    PLX_CHECK(!b->failed);
    sha256(b->data, b->len, sha);
    wbuf_put(b, sha, sizeof sha);
    PLX_CHECK(!b->failed);
    write_file(path, b->data, b->len);
    wbuf_free(b);
}

static void put_manifest(const uint8_t *data, size_t len)
{
    struct wbuf b;

    wbuf_init(&b);
    wbuf_put(&b, "PLXMANIF", 8);
    wbuf_u32(&b, 1);
    wbuf_u32(&b, (uint32_t)len);
    wbuf_put(&b, data, len);
    put_hashed(manifest_path, &b);
}

static void put_seal(const uint8_t *data, size_t len)
{
    struct wbuf b;

    wbuf_init(&b);
    wbuf_put(&b, "PLXLOGEN", 8);
    for (size_t i = 0; i < 24 + SHA256_LEN; i++) {
        wbuf_u8(&b, i < len ? data[i] : 0);
    }
    put_hashed(end_path, &b);
}

static void seal_that_fits(uint64_t last, uint64_t chain)
{
    uint8_t fields[24 + SHA256_LEN];
    uint64_t size;
    struct stat st;

    PLX_CHECK(stat(log_path, &st) == 0 && sha256_file(log_path, fields + 24, NULL) == 0);
    size = (uint64_t)st.st_size;
    memcpy(fields, &last, sizeof last);
    memcpy(fields + 8, &chain, sizeof chain);
    memcpy(fields + 16, &size, sizeof size);
    put_seal(fields, sizeof fields);
}

/* What comes behind an entry so that it is taken for whole (replica/log.c). */
static uint32_t tail(unsigned table, uint64_t seq, const uint8_t *bytes, size_t len,
                     uint64_t *chain)
{
    if (table == 1) {
        return (uint32_t)hash128(bytes, len, UINT64_C(0x6c6f676469670001) ^ seq).lo;
    }
    *chain = hash128(bytes, len, *chain ^ hash128(&seq, sizeof seq, 0).lo).lo;
    return (uint32_t)*chain;
}

/* Records follow one another whatever slices they say, when all is to fit. */
static void put_entries(const uint8_t *data, size_t len, bool fits)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi tables[2];
    uint64_t last = 0, chain = origin;

    PLX_CHECK(unlink(log_path) == 0 && unlink(end_path) == 0);
    PLX_CHECK(mdb_env_create(&env) == 0 && mdb_env_set_mapsize(env, 1 << 24) == 0);
    PLX_CHECK(mdb_env_set_maxdbs(env, 2) == 0);
    PLX_CHECK(
        mdb_env_open(env, log_path, MDB_NOSUBDIR | MDB_NOTLS | MDB_NOSYNC | MDB_NOLOCK, 0600) == 0);
    PLX_CHECK(mdb_txn_begin(env, NULL, 0, &txn) == 0);
    PLX_CHECK(mdb_dbi_open(txn, "records", MDB_CREATE, &tables[0]) == 0);
    PLX_CHECK(mdb_dbi_open(txn, "digests", MDB_CREATE, &tables[1]) == 0);
    for (int i = 0; i < ENTRIES_MAX && len >= 5; i++) {
        uint8_t key[KEY_LEN] = {0};
        unsigned table = data[0] % 3;
        uint64_t seq = (uint64_t)data[1] << 8 | data[2];
        struct wbuf v;
        data += 3;
        len -= 3;
        size_t n = fuzz_length(&data, &len);
        seq = fits && table != 1 ? last + 1 : seq;
        key[KEY_LEN - 2] = (uint8_t)(seq >> 8);
        key[KEY_LEN - 1] = (uint8_t)seq;
        wbuf_init(&v);
        wbuf_put(&v, data, n);
        if (fits) {
            wbuf_u32(&v, tail(table, seq, data, n, &chain));
            last = table != 1 ? seq : last;
        }
        PLX_CHECK(!v.failed);
        MDB_val k = {.mv_size = table == 2 && !fits ? 1 + seq % KEY_LEN : KEY_LEN, .mv_data = key};
        MDB_val value = {.mv_size = v.len, .mv_data = v.data};
        PLX_CHECK(mdb_put(txn, tables[table == 1], &k, &value, 0) == 0);
        wbuf_free(&v);
        data += n;
        len -= n;
    }
    PLX_CHECK(mdb_txn_commit(txn) == 0);
    mdb_env_close(env);
    if (fits) {
        seal_that_fits(last, chain);
    }
}

static void spoil_log(const uint8_t *data, size_t len)
{
    if (len < 2) {
        return;
    }
    off_t at = (off_t)((size_t)data[0] << 8 | data[1]) * 16 % (off_t)log_file.len;
    int fd = open(log_path, O_WRONLY | O_CLOEXEC);
    PLX_CHECK(fd >= 0 && pwrite(fd, data + 2, len - 2, at) == (ssize_t)(len - 2));
    PLX_CHECK(close(fd) == 0 && unlink(end_path) == 0);
}

/* --- what must hold -------------------------------------------------------------------------- */

static void read_all(struct log *log)
{
    struct plx_err err = {0};
    uint64_t first = log_first(log), last = log_last(log);

    PLX_CHECK(first <= last);
    for (uint64_t seq = first; seq <= last && seq - first < 2 * ENTRIES_MAX; seq++) {
        const void *record;
        struct log_digest d;
        size_t len, n = 0;
        gpa_t gpa;
        uint16_t hash;
        if (first != 0 && log_get(log, seq, &record, &len, &err) == 0) {
            PLX_CHECK(len < 1 << 20);
        }
        if (log_get_digest(log, seq, &d, &err) == 1) {
            PLX_CHECK(d.nsections <= DIGEST_SECTIONS_MAX);
            while (log_digest_page(&d, &gpa, &hash)) {
                n++;
            }
            PLX_CHECK(n < 1 << 20);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { MANIFEST, FRAMED, FITTING, AS_THEY_ARE, SEAL, HASHED_SEAL, SPOILT, KINDS };
    static struct manifest m;
    struct plx_err err = {0};
    struct log *log;
    uint64_t begin = 0;

    if (dir[0] == '\0') {
        make_recording();
    }
    if (size == 0) {
        return 0;
    }
    unsigned kind = data[0] % KINDS;
    data++;
    size--;
    reset();
    switch (kind) {
    case MANIFEST:
        write_file(manifest_path, data, size);
        break;
    case FRAMED:
        put_manifest(data, size);
        break;
    case FITTING:
    case AS_THEY_ARE:
        put_entries(data, size, kind == FITTING);
        break;
    case SEAL:
        write_file(end_path, data, size);
        break;
    case HASHED_SEAL:
        put_seal(data, size);
        break;
    default:
        spoil_log(data, size);
        break;
    }
    if (manifest_read(dir, &m, &begin, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
        return 0;
    }
    PLX_CHECK(m.nsections <= DIGEST_SECTIONS_MAX && m.machine.vcpus != 0);
    if (log_open(dir, begin, &log, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0' && kind != FITTING);
        return 0;
    }
    read_all(log);
    PLX_CHECK(log_close(log, NULL) == 0);
    return 0;
}
