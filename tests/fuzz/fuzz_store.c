/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_store.c - bytes where a store directory keeps what is no pack: entries of its
 * index, the files of names, leases and claims. First byte: which of them; the rest is its
 * contents.
 *
 * Whatever stands there, the store opens or says why not, and a sweep either refuses or keeps the
 * image that is whole. */
#include <dirent.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/io.h"
#include "storage/image.h"
#include "storage/store_claims.h"
#include "tests/fuzz/fuzz.h"

enum { DISK = 3 * 40960, PATH_CAP = 512, FILES_MAX = 16, PROBES = 16 };

static char dir[64];
static uint8_t disk_bytes[DISK];
static struct image_ref ref;

/* Every file of the store as it was made: written again before each input. */
static struct {
    char path[PATH_CAP];
    struct wbuf bytes;
} saved[FILES_MAX];
static unsigned nsaved;

static const char *const subs[] = {"packs", "names", "leases", "."};

static void remove_dir(void)
{
    char command[PATH_CAP];

    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    PLX_CHECK(system(command) == 0);
}

static void each_file(void (*what)(const char *path))
{
    for (size_t i = 0; i < PLX_COUNT(subs); i++) {
        char path[PATH_CAP];
        (void)snprintf(path, sizeof path, "%s/%s", dir, subs[i]);
        DIR *d = opendir(path);
        PLX_CHECK(d != NULL);
        for (const struct dirent *e; (e = readdir(d)) != NULL;) {
            struct stat st;
            (void)snprintf(path, sizeof path, "%s/%s/%.200s", dir, subs[i], e->d_name);
            if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
                what(path);
            }
        }
        (void)closedir(d);
    }
}

static void save(const char *path)
{
    PLX_CHECK(nsaved < FILES_MAX);
    (void)snprintf(saved[nsaved].path, PATH_CAP, "%s", path);
    PLX_CHECK(io_read_file(path, 1 << 24, &saved[nsaved++].bytes, NULL) == 0);
}

static void drop(const char *path)
{
    PLX_CHECK(unlink(path) == 0);
}

static void write_file(const char *path, const void *data, size_t len, off_t off)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    PLX_CHECK(fd >= 0 && pwrite(fd, data, len, off) == (ssize_t)len);
    (void)close(fd);
}

static void reset(void)
{
    each_file(drop);
    for (unsigned i = 0; i < nsaved; i++) {
        write_file(saved[i].path, saved[i].bytes.data, saved[i].bytes.len, 0);
    }
}

static int read_disk(struct disk *d, void *buf, uint64_t len, uint64_t off, struct plx_err *err)
{
    (void)d;
    (void)err;
    memcpy(buf, disk_bytes + off, len);
    return 0;
}

static int map_disk(struct disk *d, uint64_t off, uint64_t len, struct disk_extent *out,
                    struct plx_err *err)
{
    (void)d;
    (void)err;
    *out = (struct disk_extent){.off = off, .len = len, .kind = DISK_EXTENT_DATA};
    return 0;
}

static void make_store(void)
{
    static const struct disk_ops ops = {.format = "raw", .read = read_disk, .map = map_disk};
    struct disk d = {.ops = &ops, .path = "disk"};
    struct image_push cfg = {.name = "img", .tag = "1", .threads = 1, .now_ns = 1};
    struct image_progress totals;
    struct store *s;

    (void)snprintf(dir, sizeof dir, "%s/pollux-fuzz-store-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    PLX_CHECK(mkdtemp(dir) != NULL && atexit(remove_dir) == 0);
    for (size_t i = 0; i < DISK; i++) {
        disk_bytes[i] = (uint8_t)(1 + i / 7 % 200 + i / 40960);
    }
    d.geo = (struct disk_geometry){.bytes = DISK, .logical_sector = 512, .physical_sector = 512};
    PLX_CHECK(chunk_params(CHUNK_FIXED, 32 << 10, &cfg.chunks, NULL) == 0);
    PLX_CHECK(store_open(dir, true, &s, NULL) == 0);
    PLX_CHECK(image_push(s, &cfg, &d, &ref, &totals, NULL) == 0);
    store_close(s);
    each_file(save);
}

/* --- what is put where ----------------------------------------------------------------------- */

/* As the first segment of the manifest, or under a name of its own. */
static void put_index(const uint8_t *data, size_t len)
{
    char path[PATH_CAP];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val k = {.mv_size = SHA256_LEN, .mv_data = ref.manifest.parts[0].sha}, v;

    if (len == 0) {
        return;
    }
    if (data[0] % 4 == 0) { /* any key */
        k.mv_size = data[0] / 4 + 1U < len ? data[0] / 4 + 1U : len;
        k.mv_data = (void *)(uintptr_t)data;
        data += k.mv_size - 1;
        len -= k.mv_size - 1;
    }
    v = (MDB_val){.mv_size = len - 1, .mv_data = (void *)(uintptr_t)(data + 1)};
    (void)snprintf(path, sizeof path, "%s/index.mdb", dir);
    PLX_CHECK(mdb_env_create(&env) == 0 && mdb_env_set_mapsize(env, 1 << 24) == 0);
    PLX_CHECK(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOTLS | MDB_NOSYNC, 0600) == 0);
    PLX_CHECK(mdb_txn_begin(env, NULL, 0, &txn) == 0 && mdb_dbi_open(txn, NULL, 0, &dbi) == 0);
    (void)mdb_put(txn, dbi, &k, &v, 0); /* keys have a longest length */
    PLX_CHECK(mdb_txn_commit(txn) == 0);
    mdb_env_close(env);
}

/* A name or lease, with the seal that fits if @sealed. */
static void put_sealed(const char *sub, const char *name, const uint8_t *data, size_t len,
                       bool sealed)
{
    char path[PATH_CAP];
    uint8_t sha[SHA256_LEN];
    struct wbuf all;

    wbuf_init(&all);
    wbuf_put(&all, name, strlen(name) + 1);
    wbuf_put(&all, data, len);
    PLX_CHECK(!all.failed);
    sha256(all.data, all.len, sha);
    wbuf_free(&all);
    (void)snprintf(path, sizeof path, "%s/%s/%s", dir, sub, name);
    write_file(path, data, len, 0);
    if (sealed) {
        write_file(path, sha, sizeof sha, (off_t)len);
    }
}

/* Where the claims of the manifest stand, in slots of 8 bytes. */
static void put_claims(const uint8_t *data, size_t len)
{
    char path[PATH_CAP];
    struct claims *c;
    struct stat st;
    uint64_t at;

    PLX_CHECK(claims_open(dir, &c, NULL) == 0);
    claims_close(c);
    (void)snprintf(path, sizeof path, "%s/claims", dir);
    PLX_CHECK(stat(path, &st) == 0);
    memcpy(&at, ref.manifest.parts[0].sha + sizeof at, sizeof at);
    at %= (uint64_t)st.st_size / sizeof at;
    len = len < (PROBES + 1) * sizeof at ? len : (PROBES + 1) * sizeof at;
    write_file(path, data, len, (off_t)(at * sizeof at));
}

/* A lease counts while somebody holds it. */
static int hold_lease(const char *name)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[PATH_CAP];

    (void)snprintf(path, sizeof path, "%s/leases/%s", dir, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    PLX_CHECK(fd >= 0 && fcntl(fd, F_OFD_SETLK, &l) == 0);
    return fd;
}

/* --- what must hold -------------------------------------------------------------------------- */

static int nothing(void *ctx, const char *name, const struct image_ref *r)
{
    (void)ctx;
    PLX_CHECK(name[0] != '\0' && (r == NULL || r->name[0] != '\0'));
    return 0;
}

static void no_damage(void *ctx, const char *text)
{
    (void)ctx;
    PLX_CHECK(text[0] != '\0');
}

static bool whole(struct store *s)
{
    static uint8_t buf[SEG_MAX];
    struct manifest m;
    struct plx_err err = {{0}};

    if (image_manifest(s, &ref, &m, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
        return false;
    }
    bool all = true;
    for (size_t i = 0; i < m.streams[STREAM_DISK].n && all; i++) {
        const struct manifest_segment *g = &m.streams[STREAM_DISK].segs[i];
        all = store_get(s, &g->id, buf, g->len, &err) == 0;
        PLX_CHECK(!all || memcmp(buf, disk_bytes + g->off, g->len) == 0);
    }
    manifest_free(&m);
    return all;
}

static void use(bool claims)
{
    struct image_progress totals;
    struct seg_sweep swept;
    struct plx_err err = {{0}};
    struct store *s;
    uint64_t faults;
    uint8_t state;

    if (store_open(dir, false, &s, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
        return;
    }
    bool before = whole(s);
    PLX_CHECK(image_each(s, nothing, NULL, &err) == 0 || err.msg[0] != '\0');
    /* The file of claims is long: only who has put something there asks. */
    if (claims && store_look(s, ref.manifest.parts, 1, &state, &err) == 0) {
        PLX_CHECK(state <= SEG_COMING);
    }
    if (image_gc(s, &swept, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
    }
    PLX_CHECK(!before || whole(s));
    if (image_verify(s, no_damage, NULL, &faults, &totals, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
    }
    store_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { INDEX, CLAIMS, NAME, SEALED_NAME, LEASE, SEALED_LEASE, KINDS };
    int held = -1;

    if (dir[0] == '\0') {
        make_store();
    }
    if (size == 0) {
        return 0;
    }
    unsigned kind = data[0] % KINDS;
    data++;
    size--;
    reset();
    switch (kind) {
    case INDEX:
        put_index(data, size);
        break;
    case CLAIMS:
        put_claims(data, size);
        break;
    case NAME:
    case SEALED_NAME:
        put_sealed("names", "other:1", data, size, kind == SEALED_NAME);
        break;
    default:
        put_sealed("leases", "00ff", data, size, kind == SEALED_LEASE);
        held = hold_lease("00ff");
        break;
    }
    use(kind == CLAIMS);
    if (held >= 0) {
        (void)close(held);
    }
    return 0;
}
