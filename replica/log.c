/* SPDX-License-Identifier: Apache-2.0
 * replica/log.c - see log.h.
 *
 * A digest's value:
 *
 *   offset  bytes  field
 *   0       1      version, 1
 *   1       16     digest of everything
 *   17      8      low half of the sum over pages
 *   25      2      number of sections S
 *   27      4*S    low 32 bits of each section's hash
 *   ..      ..     number of pages, LEB128; then each: page number (GPA / 4096) less that of the
 *                  page before, LEB128; low 16 bits of its hash
 *   ..      4      check: low 32 bits of H over all bytes before
 *
 * log.end:
 *
 *   0       8      "PLXLOGEN"
 *   8       8      number of the last record, 0: none
 *   16      8      its chain
 *   24      8      size of log.mdb
 *   32      32     SHA-256 of log.mdb
 *   64      32     SHA-256 of all bytes before */
#include "replica/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"

enum {
    KEY_LEN = 8,
    CHAIN_LEN = 4,
    DIGEST_VERSION = 1,
    DIGEST_FIXED = 27,
    DIGEST_PAGES_MAX = 8192, /* more are not named */
    PAGE_ENTRY_MIN = 3,
    END_LEN = 96,
};
#define LOG_MAP_SIZE      (UINT64_C(64) << 30) /* address space; the file is as long as the log */
#define DIGEST_CHECK_SEED UINT64_C(0x6c6f676469670001)

struct log {
    char path[4096], end_path[4096];
    MDB_env *env;
    MDB_txn *txn; /* NULL between transactions of a writer */
    MDB_dbi records, digests;
    bool writing, sealed;
    uint64_t origin;
    uint64_t first, last;         /* 0: none */
    uint64_t chain;               /* of last */
    uint64_t end_last, end_chain; /* of the seal */
    uint64_t bytes;
    unsigned pending_records;
    size_t pending_bytes;
    uint64_t committed_ns;
    struct wbuf value;
};

static int mdb_fail(const struct log *log, struct plx_err *err, int rc, const char *what)
{
    int number = rc == ENOMEM ? PLX_ENOMEM : PLX_EIO;

    if (rc == MDB_CORRUPTED || rc == MDB_INVALID || rc == MDB_PAGE_NOTFOUND ||
        rc == MDB_VERSION_MISMATCH || rc == MDB_NOTFOUND) {
        number = PLX_ECORRUPT;
    }
    return plx_fail(err, number, "%s: cannot %s: %s", log->path, what, mdb_strerror(rc));
}

static void put_key(uint8_t key[KEY_LEN], uint64_t seq)
{
    for (int i = 0; i < KEY_LEN; i++) {
        key[i] = (uint8_t)(seq >> (8 * (KEY_LEN - 1 - i)));
    }
}

static uint64_t get_key(const uint8_t *key)
{
    uint64_t seq = 0;

    for (int i = 0; i < KEY_LEN; i++) {
        seq = seq << 8 | key[i];
    }
    return seq;
}

/* The chain's value for record @seq. */
static uint64_t chain_next(uint64_t chain, uint64_t seq, const void *record, size_t len)
{
    return hash128(record, len, chain ^ hash128(&seq, sizeof seq, 0).lo).lo;
}

static int log_new(const char *dir, uint64_t origin, struct log **out, struct plx_err *err)
{
    struct log *log = plx_calloc(1, sizeof *log);

    *out = NULL;
    if (log == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    wbuf_init(&log->value);
    log->origin = log->chain = origin;
    if (snprintf(log->path, sizeof log->path, "%s/log.mdb", dir) >= (int)sizeof log->path ||
        snprintf(log->end_path, sizeof log->end_path, "%s/log.end", dir) >=
            (int)sizeof log->end_path) {
        plx_free(log);
        return plx_fail(err, PLX_EINVAL, "%s: the name is too long", dir);
    }
    *out = log;
    return 0;
}

static void log_free(struct log *log)
{
    if (log->txn != NULL) {
        mdb_txn_abort(log->txn);
    }
    if (log->env != NULL) {
        mdb_env_close(log->env);
    }
    wbuf_free(&log->value);
    plx_free(log);
}

static int env_open(struct log *log, unsigned flags, struct plx_err *err)
{
    int rc = mdb_env_create(&log->env);

    if (rc == 0) {
        rc = mdb_env_set_mapsize(log->env, LOG_MAP_SIZE);
    }
    if (rc == 0) {
        rc = mdb_env_set_maxdbs(log->env, 2);
    }
    if (rc == 0) {
        rc = mdb_env_open(log->env, log->path, MDB_NOSUBDIR | MDB_NOTLS | flags, 0600);
    }
    return rc == 0 ? 0 : mdb_fail(log, err, rc, "open");
}

static int tables_open(struct log *log, unsigned flags, struct plx_err *err)
{
    int rc = mdb_dbi_open(log->txn, "records", flags, &log->records);

    if (rc == 0) {
        rc = mdb_dbi_open(log->txn, "digests", flags, &log->digests);
    }
    return rc == 0 ? 0 : mdb_fail(log, err, rc, "open its tables");
}

/* --- writing -----------------------------------------------------------------------------------
 */

int log_create(const char *dir, uint64_t origin, struct log **out, struct plx_err *err)
{
    struct log *log;
    int rc = log_new(dir, origin, &log, err);

    *out = NULL;
    if (rc != 0) {
        return rc;
    }
    if (access(log->path, F_OK) == 0) {
        rc = plx_fail(err, PLX_EEXIST, "%s is there already", log->path);
        goto err_free;
    }
    /* One writer and no reader while it lives: the lock file would say nothing. */
    rc = env_open(log, MDB_NOLOCK, err);
    if (rc != 0) {
        goto err_free;
    }
    rc = mdb_txn_begin(log->env, NULL, 0, &log->txn);
    if (rc != 0) {
        rc = mdb_fail(log, err, rc, "begin");
        goto err_free;
    }
    rc = tables_open(log, MDB_CREATE, err);
    if (rc != 0) {
        goto err_free;
    }
    log->writing = true;
    log->committed_ns = clock_mono_ns();
    rc = log_commit(log, err);
    if (rc != 0) {
        goto err_free;
    }
    *out = log;
    return 0;

err_free:
    log_free(log);
    return rc;
}

int log_commit_due(struct log *log, struct plx_err *err)
{
    return clock_mono_ns() - log->committed_ns < LOG_COMMIT_NS ? 0 : log_commit(log, err);
}

int log_commit(struct log *log, struct plx_err *err)
{
    MDB_txn *txn = log->txn;
    int rc;

    PLX_CHECK(log->writing);
    log->txn = NULL;
    log->pending_records = 0;
    log->pending_bytes = 0;
    log->committed_ns = clock_mono_ns();
    if (txn == NULL) {
        return 0;
    }
    rc = mdb_txn_commit(txn); /* frees the transaction in any case */
    return rc == 0 ? 0 : mdb_fail(log, err, rc, "commit");
}

static int log_put(struct log *log, MDB_dbi table, uint64_t seq, struct plx_err *err)
{
    uint8_t key[KEY_LEN];
    MDB_val k = {.mv_size = KEY_LEN, .mv_data = key};
    MDB_val v = {.mv_size = log->value.len, .mv_data = log->value.data};
    int rc;

    if (log->value.failed) {
        return plx_fail(err, PLX_ENOMEM, "%s: out of memory", log->path);
    }
    if (log->txn == NULL) {
        rc = mdb_txn_begin(log->env, NULL, 0, &log->txn);
        if (rc != 0) {
            log->txn = NULL;
            return mdb_fail(log, err, rc, "begin");
        }
    }
    put_key(key, seq);
    rc = mdb_put(log->txn, table, &k, &v, MDB_APPEND);
    if (rc != 0) {
        return mdb_fail(log, err, rc, "append");
    }
    log->bytes += KEY_LEN + log->value.len;
    log->pending_bytes += log->value.len;
    return 0;
}

int log_append(struct log *log, uint64_t seq, const void *record, size_t len, struct plx_err *err)
{
    uint64_t chain = chain_next(log->chain, seq, record, len);
    int rc;

    PLX_CHECK(log->writing && seq != 0 && (log->last == 0 || seq == log->last + 1));
    wbuf_clear(&log->value);
    wbuf_put(&log->value, record, len);
    wbuf_u32(&log->value, (uint32_t)chain);
    rc = log_put(log, log->records, seq, err);
    if (rc != 0) {
        return rc;
    }
    log->first = log->first == 0 ? seq : log->first;
    log->last = seq;
    log->chain = chain;
    log->pending_records++;
    if (log->pending_records >= LOG_COMMIT_RECORDS || log->pending_bytes >= LOG_COMMIT_BYTES) {
        return log_commit(log, err);
    }
    return log_commit_due(log, err);
}

int log_append_digest(struct log *log, const struct vm_digest *d, const struct digest_page *pages,
                      size_t npages, struct plx_err *err)
{
    struct wbuf *v = &log->value;
    gpa_t last = 0;

    PLX_CHECK(log->writing);
    npages = npages < DIGEST_PAGES_MAX ? npages : DIGEST_PAGES_MAX;
    wbuf_clear(v);
    wbuf_u8(v, DIGEST_VERSION);
    wbuf_u64(v, d->all.lo);
    wbuf_u64(v, d->all.hi);
    wbuf_u64(v, d->ram.lo);
    wbuf_u16(v, (uint16_t)d->nsections);
    for (unsigned i = 0; i < d->nsections; i++) {
        wbuf_u32(v, (uint32_t)d->sections[i].hash.lo);
    }
    wbuf_varint(v, npages);
    for (size_t i = 0; i < npages; i++) {
        wbuf_varint(v, (pages[i].gpa - last) >> PAGE_SHIFT);
        wbuf_u16(v, (uint16_t)pages[i].hash.lo);
        last = pages[i].gpa;
    }
    if (!v->failed) {
        wbuf_u32(v, (uint32_t)hash128(v->data, v->len, DIGEST_CHECK_SEED ^ d->seq).lo);
    }
    return log_put(log, log->digests, d->seq, err);
}

uint64_t log_bytes(const struct log *log)
{
    return log->bytes;
}

/* After the environment is closed: nothing changes the file any more. */
static int write_seal(const struct log *log, struct plx_err *err)
{
    uint8_t sha[SHA256_LEN];
    struct stat st;
    struct wbuf b;
    int rc = sha256_file(log->path, sha, err);

    if (rc != 0) {
        return rc;
    }
    if (stat(log->path, &st) != 0) {
        return plx_fail_errno(err, "cannot look at %s", log->path);
    }
    wbuf_init(&b);
    wbuf_put(&b, "PLXLOGEN", 8);
    wbuf_u64(&b, log->last);
    wbuf_u64(&b, log->chain);
    wbuf_u64(&b, (uint64_t)st.st_size);
    wbuf_put(&b, sha, sizeof sha);
    if (!b.failed) {
        sha256(b.data, b.len, sha);
        wbuf_put(&b, sha, sizeof sha);
    }
    rc = b.failed ? plx_fail(err, PLX_ENOMEM, "out of memory")
                  : io_write_file(log->end_path, b.data, b.len, err);
    wbuf_free(&b);
    return rc;
}

int log_close(struct log *log, struct plx_err *err)
{
    int rc = 0;

    if (log == NULL) {
        return 0;
    }
    if (log->writing) {
        rc = log_commit(log, err);
        mdb_env_close(log->env);
        log->env = NULL;
        if (rc == 0) {
            rc = write_seal(log, err);
        }
    }
    log_free(log);
    return rc;
}

/* --- reading ------------------------------------------------------------------------------------
 */

/* The seal, if there is one. *intact: the file is the one that was sealed, byte by byte. */
static int read_seal(struct log *log, bool *intact, struct plx_err *err)
{
    uint8_t sha[SHA256_LEN], want[SHA256_LEN];
    struct stat st;
    struct rbuf in;
    struct wbuf b;
    uint64_t size;
    int rc;

    *intact = false;
    if (stat(log->path, &st) != 0) {
        return plx_fail_errno(err, "cannot open %s", log->path);
    }
    if (access(log->end_path, F_OK) != 0) {
        return 0;
    }
    rc = io_read_file(log->end_path, 4096, &b, err);
    if (rc != 0) {
        return rc;
    }
    if (b.len != END_LEN || memcmp(b.data, "PLXLOGEN", 8) != 0) {
        wbuf_free(&b);
        return plx_fail(err, PLX_ECORRUPT, "%s is no seal of a log", log->end_path);
    }
    rbuf_init(&in, b.data + 8, END_LEN - 8);
    log->end_last = rbuf_u64(&in);
    log->end_chain = rbuf_u64(&in);
    size = rbuf_u64(&in);
    rbuf_get(&in, want, sizeof want);
    sha256(b.data, END_LEN - SHA256_LEN, sha);
    rc = memcmp(sha, b.data + END_LEN - SHA256_LEN, SHA256_LEN);
    wbuf_free(&b);
    if (rc != 0) {
        return plx_fail(err, PLX_ECORRUPT, "%s was altered", log->end_path);
    }
    if ((uint64_t)st.st_size < size) {
        return plx_fail(err, PLX_ETRUNCATED, "%s is truncated: %lld of %" PRIu64 " bytes",
                        log->path, (long long)st.st_size, size);
    }
    rc = sha256_file(log->path, sha, err);
    if (rc != 0) {
        return rc;
    }
    log->sealed = true;
    *intact = memcmp(sha, want, sizeof sha) == 0;
    return 0;
}

static int reader_open(struct log *log, struct plx_err *err)
{
    MDB_envinfo info;
    MDB_stat tree;
    struct stat st;
    int rc = env_open(log, MDB_RDONLY | MDB_NOLOCK, err);

    if (rc != 0) {
        return rc;
    }
    /* LMDB maps what its header promises; a page beyond the end of the file would be a signal. */
    if (mdb_env_info(log->env, &info) != 0 || mdb_env_stat(log->env, &tree) != 0 ||
        stat(log->path, &st) != 0) {
        return plx_fail(err, PLX_EIO, "cannot look at %s", log->path);
    }
    if ((uint64_t)st.st_size / tree.ms_psize <= info.me_last_pgno) {
        return plx_fail(err, PLX_ETRUNCATED, "%s is truncated: %lld bytes where %zu pages are due",
                        log->path, (long long)st.st_size, info.me_last_pgno + 1);
    }
    rc = mdb_txn_begin(log->env, NULL, MDB_RDONLY, &log->txn);
    if (rc != 0) {
        log->txn = NULL;
        return mdb_fail(log, err, rc, "begin");
    }
    return tables_open(log, 0, err);
}

static int check_entry(struct log *log, const MDB_val *k, const MDB_val *v, struct plx_err *err)
{
    uint64_t seq, chain;
    uint32_t stored;

    if (k->mv_size != KEY_LEN) {
        return plx_fail(err, PLX_ECORRUPT, "%s: a key after record %" PRIu64 " is malformed",
                        log->path, log->last);
    }
    seq = get_key(k->mv_data);
    if (log->last != 0 && seq != log->last + 1) {
        return plx_fail(err, PLX_ECORRUPT, "%s: record %" PRIu64 " is missing", log->path,
                        log->last + 1);
    }
    if (v->mv_size < CHAIN_LEN) {
        return plx_fail(err, PLX_ETRUNCATED, "%s: record %" PRIu64 " is truncated", log->path, seq);
    }
    memcpy(&stored, (const uint8_t *)v->mv_data + v->mv_size - CHAIN_LEN, CHAIN_LEN);
    chain = chain_next(log->chain, seq, v->mv_data, v->mv_size - CHAIN_LEN);
    if ((uint32_t)chain != stored) {
        return plx_fail(err, PLX_ECORRUPT,
                        "%s: record %" PRIu64 " was altered or truncated, or is of another "
                        "recording",
                        log->path, seq);
    }
    log->first = log->first == 0 ? seq : log->first;
    log->last = seq;
    log->chain = chain;
    return 0;
}

/* Walk the chain from end to end. */
static int scan(struct log *log, struct plx_err *err)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(log->txn, log->records, &cursor);

    if (rc != 0) {
        return mdb_fail(log, err, rc, "read");
    }
    for (rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        int bad = check_entry(log, &k, &v, err);
        if (bad != 0) {
            mdb_cursor_close(cursor);
            return bad;
        }
    }
    mdb_cursor_close(cursor);
    if (rc != MDB_NOTFOUND) {
        return mdb_fail(log, err, rc, "read");
    }
    if (log->sealed && (log->last != log->end_last || log->chain != log->end_chain)) {
        return plx_fail(err, PLX_ETRUNCATED,
                        "%s: the log ends at record %" PRIu64 ", not at %" PRIu64, log->path,
                        log->last, log->end_last);
    }
    return 0;
}

/* LMDB trusts its pages: a damaged file may kill who reads it. So a file that no seal vouches for
 * is read first by a child, which has nothing to lose. */
static int scan_in_child(struct log *log, struct plx_err *err)
{
    struct plx_err child_err = {.msg = ""};
    int fds[2], status, rc = 0;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) != 0) {
        return plx_fail_errno(err, "cannot make a pipe");
    }
    pid = fork();
    if (pid == 0) {
        static const int deadly[] = {SIGBUS, SIGSEGV, SIGABRT, SIGFPE};
        for (size_t i = 0; i < PLX_COUNT(deadly); i++) {
            (void)signal(deadly[i], SIG_DFL);
        }
        rc = reader_open(log, &child_err);
        if (rc == 0) {
            rc = scan(log, &child_err);
        }
        (void)!write(fds[1], &rc, sizeof rc);
        (void)!write(fds[1], child_err.msg, sizeof child_err.msg);
        _exit(0);
    }
    (void)close(fds[1]);
    if (pid < 0) {
        (void)close(fds[0]);
        return plx_fail_errno(err, "cannot fork");
    }
    bool told =
        io_read_full(fds[0], &rc, sizeof rc) == (ssize_t)sizeof rc &&
        io_read_full(fds[0], child_err.msg, sizeof child_err.msg) == (ssize_t)sizeof child_err.msg;
    (void)close(fds[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!told) {
        return plx_fail(err, PLX_ECORRUPT, "%s is damaged and cannot be read", log->path);
    }
    child_err.msg[sizeof child_err.msg - 1] = '\0';
    return rc == 0 ? 0 : plx_fail(err, rc, "%s", child_err.msg);
}

int log_open(const char *dir, uint64_t origin, struct log **out, struct plx_err *err)
{
    struct log *log;
    bool intact;
    int rc = log_new(dir, origin, &log, err);

    *out = NULL;
    if (rc != 0) {
        return rc;
    }
    rc = read_seal(log, &intact, err);
    if (rc == 0 && !intact) {
        rc = scan_in_child(log, err);
        if (rc == 0 && log->sealed) {
            rc = plx_fail(err, PLX_ECORRUPT, "%s was altered outside of its records", log->path);
        }
    }
    if (rc == 0) {
        rc = reader_open(log, err);
    }
    if (rc == 0) {
        rc = scan(log, err);
    }
    if (rc != 0) {
        log_free(log);
        return rc;
    }
    *out = log;
    return 0;
}

uint64_t log_first(const struct log *log)
{
    return log->first;
}

uint64_t log_last(const struct log *log)
{
    return log->last;
}

bool log_sealed(const struct log *log)
{
    return log->sealed;
}

int log_get(struct log *log, uint64_t seq, const void **record, size_t *len, struct plx_err *err)
{
    uint8_t key[KEY_LEN];
    MDB_val k = {.mv_size = KEY_LEN, .mv_data = key}, v;
    int rc;

    put_key(key, seq);
    rc = mdb_get(log->txn, log->records, &k, &v);
    if (rc == MDB_NOTFOUND) {
        return plx_fail(err, PLX_ENOENT, "%s: record %" PRIu64 " is missing", log->path, seq);
    }
    if (rc != 0) {
        return mdb_fail(log, err, rc, "read");
    }
    *record = v.mv_data;
    *len = v.mv_size - CHAIN_LEN;
    return 0;
}

int log_get_digest(struct log *log, uint64_t seq, struct log_digest *out, struct plx_err *err)
{
    uint8_t key[KEY_LEN];
    MDB_val k = {.mv_size = KEY_LEN, .mv_data = key}, v;
    struct rbuf in, tail;
    int rc;

    *out = (struct log_digest){.seq = seq};
    put_key(key, seq);
    rc = mdb_get(log->txn, log->digests, &k, &v);
    if (rc == MDB_NOTFOUND) {
        return 0;
    }
    if (rc != 0) {
        return mdb_fail(log, err, rc, "read");
    }
    if (v.mv_size < DIGEST_FIXED + 8) {
        return plx_fail(err, PLX_ETRUNCATED, "%s: the digest of slice %" PRIu64 " is truncated",
                        log->path, seq);
    }
    rbuf_init(&tail, (const uint8_t *)v.mv_data + v.mv_size - 4, 4);
    rbuf_init(&in, v.mv_data, v.mv_size - 4);
    uint32_t check = (uint32_t)hash128(v.mv_data, v.mv_size - 4, DIGEST_CHECK_SEED ^ seq).lo;
    if (rbuf_u32(&tail) != check || rbuf_u8(&in) != DIGEST_VERSION) {
        return plx_fail(err, PLX_ECORRUPT, "%s: the digest of slice %" PRIu64 " was altered",
                        log->path, seq);
    }
    out->all.lo = rbuf_u64(&in);
    out->all.hi = rbuf_u64(&in);
    out->ram = rbuf_u64(&in);
    out->nsections = rbuf_u16(&in);
    for (unsigned i = 0; i < out->nsections && i < DIGEST_SECTIONS_MAX; i++) {
        out->sections[i] = rbuf_u32(&in);
    }
    out->npages = rbuf_varint(&in);
    if (in.failed || out->nsections > DIGEST_SECTIONS_MAX ||
        rbuf_left(&in) / PAGE_ENTRY_MIN < out->npages) {
        return plx_fail(err, PLX_ECORRUPT, "%s: the digest of slice %" PRIu64 " is malformed",
                        log->path, seq);
    }
    out->pages = in;
    return 1;
}

bool log_digest_page(struct log_digest *d, gpa_t *gpa, uint16_t *hash)
{
    if (d->npages == 0) {
        return false;
    }
    d->npages--;
    d->last += (gpa_t)rbuf_varint(&d->pages) << PAGE_SHIFT;
    *gpa = d->last;
    *hash = rbuf_u16(&d->pages);
    return !d->pages.failed;
}
