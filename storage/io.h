/* SPDX-License-Identifier: Apache-2.0
 * storage/io.h - files as storage/ sees them: an ops struct over the host's files, or over memory
 * with a record of every write from which tests make the images a crash could leave.
 *
 * A *barrier* is a completed io_sync: what was written before it is durable, what came after may
 * be there in any part and any order after a crash, torn at sectors of IO_SECTOR bytes. Code
 * above may count on nothing else.
 *
 * Ownership: io_open gives a file to its caller, who closes it. Threading: any thread, any number
 * at once, on one file; ranges that overlap are the caller's concern. A lock belongs to the open
 * file, not to the process: two opens of one path in one process exclude each other, and death
 * releases it. Queues (below) belong to one thread. */
#ifndef STORAGE_IO_H
#define STORAGE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/prng.h"

enum { IO_SECTOR = 512 };

enum io_lock { IO_UNLOCKED, IO_LOCK_SHARED, IO_LOCK_EXCLUSIVE };

/* Flags of io_open. */
enum {
    IO_WRITE = 1,
    IO_CREATE = 2,    /* with IO_WRITE: must not exist */
    IO_TRUNCATE = 4,  /* with IO_WRITE: made empty, or created */
    IO_TEMPORARY = 8, /* never needs to survive: syncs may do nothing */
};

struct io_file {
    const struct io_ops *ops;
    char *path; /* owned; for messages and for finding neighbours */
    bool writable;
    int fd; /* of a host's file; -1: none, everything goes through the ops */
};

/* Offsets and lengths are bytes. All return 0 or a PLX_ error with a message naming the file. */
struct io_ops {
    /* Whole or not at all. Beyond the end: PLX_ETRUNCATED. */
    int (*read)(struct io_file *f, void *buf, size_t len, uint64_t off, struct plx_err *err);
    int (*write)(struct io_file *f, const void *buf, size_t len, uint64_t off, struct plx_err *err);
    int (*sync)(struct io_file *f, struct plx_err *err); /* the barrier */
    int (*size)(struct io_file *f, uint64_t *out, struct plx_err *err);
    int (*truncate)(struct io_file *f, uint64_t size, struct plx_err *err);
    /* The range reads as zeros; @keep: and stays allocated. The file does not grow. */
    int (*punch)(struct io_file *f, uint64_t off, uint64_t len, bool keep, struct plx_err *err);
    /* PLX_EBUSY when another open of the file is in the way. IO_UNLOCKED always works. */
    int (*lock)(struct io_file *f, enum io_lock how, struct plx_err *err);
    /* From @off on: *data says whether the first run of bytes may hold anything but zeros, *end
     * where the run ends (at most @limit). What does not know says data. */
    int (*extent)(struct io_file *f, uint64_t off, uint64_t limit, bool *data, uint64_t *end,
                  struct plx_err *err);
    /* Equal for two opens of the same file, whatever the paths. */
    int (*identity)(struct io_file *f, uint64_t id[2], struct plx_err *err);
    void (*close)(struct io_file *f);
};

/* Where paths lead: the host's file system, or a test's memory. */
struct io_space {
    int (*open)(struct io_space *s, const char *path, unsigned flags, struct io_file **out,
                struct plx_err *err);
    int (*remove)(struct io_space *s, const char *path, struct plx_err *err);
};

struct io_space *io_host(void); /* never fails, never freed */

/* PLX_ENOMEM and its message; inline, so that analyzers see that it is not 0. */
static inline int io_no_memory(const char *path, struct plx_err *err)
{
    (void)plx_fail(err, PLX_ENOMEM, "%s: out of memory", path);
    return PLX_ENOMEM;
}

/* Errors of open: PLX_ENOENT, PLX_EEXIST, PLX_EACCES, PLX_EINVAL (not a regular file or block
 * device), PLX_EIO, PLX_ENOMEM. */
static inline int io_open(struct io_space *s, const char *path, unsigned flags,
                          struct io_file **out, struct plx_err *err)
{
    return s->open(s, path, flags, out, err);
}
static inline int io_read(struct io_file *f, void *buf, size_t len, uint64_t off,
                          struct plx_err *err)
{
    return f->ops->read(f, buf, len, off, err);
}
static inline int io_write(struct io_file *f, const void *buf, size_t len, uint64_t off,
                           struct plx_err *err)
{
    return f->ops->write(f, buf, len, off, err);
}
static inline int io_sync(struct io_file *f, struct plx_err *err)
{
    return f->ops->sync(f, err);
}
static inline int io_size(struct io_file *f, uint64_t *out, struct plx_err *err)
{
    return f->ops->size(f, out, err);
}
static inline int io_truncate(struct io_file *f, uint64_t size, struct plx_err *err)
{
    return f->ops->truncate(f, size, err);
}
static inline int io_punch(struct io_file *f, uint64_t off, uint64_t len, bool keep,
                           struct plx_err *err)
{
    return f->ops->punch(f, off, len, keep, err);
}
static inline int io_lock(struct io_file *f, enum io_lock how, struct plx_err *err)
{
    return f->ops->lock(f, how, err);
}
static inline int io_extent(struct io_file *f, uint64_t off, uint64_t limit, bool *data,
                            uint64_t *end, struct plx_err *err)
{
    return f->ops->extent(f, off, limit, data, end, err);
}
static inline int io_identity(struct io_file *f, uint64_t id[2], struct plx_err *err)
{
    return f->ops->identity(f, id, err);
}
void io_close(struct io_file *f); /* NULL is a no-op */

/* --- many requests at once ------------------------------------------------------------------ */

enum io_kind {
    IO_KIND_READ,
    IO_KIND_WRITE,
    IO_KIND_SYNC,
    IO_KIND_CALL,
    IO_KIND_NOTHING, /* just to be told, from io_queue_run */
};

struct io_request {
    enum io_kind kind;
    struct io_file *file; /* of reads, writes, syncs */
    void *buf;            /* stays the caller's, untouched by it until done */
    size_t len;
    uint64_t off;
    /* IO_KIND_CALL: work that may block, on a thread of the queue; its result goes to done. */
    int (*call)(struct io_request *r, struct plx_err *err);
    /* On the queue's own thread, inside io_queue_run. @rc as of the ops; @err only then filled.
     * The request is the caller's again and may be submitted again. */
    void (*done)(struct io_request *r, int rc, const struct plx_err *err);
    void *ctx;
    /* the queue's */
    struct io_request *next;
    size_t moved;
    int rc;
    struct plx_err *err;
};

enum io_queue_kind {
    IO_QUEUE_AUTO,    /* io_uring where the kernel lets us, else threads */
    IO_QUEUE_URING,   /* PLX_ENOTSUP where it does not */
    IO_QUEUE_THREADS, /* always there */
};

/* Larger reads and writes are given to a thread, so that several copy at a time. */
enum { IO_AT_ONCE = 128 << 10 };

struct io_queue; /* opaque; one thread */

int io_queue_create(enum io_queue_kind kind, unsigned depth, struct io_queue **out,
                    struct plx_err *err);
void io_queue_destroy(struct io_queue *q); /* waits for what runs, calls done; NULL is a no-op */
/* Takes the request; never calls done, never blocks. It may not start before io_queue_run. */
void io_queue_submit(struct io_queue *q, struct io_request *r);
/* Starts what was submitted and calls done for what is finished; with @wait, waits until at
 * least one is (if any is under way). Returns how many were done. */
unsigned io_queue_run(struct io_queue *q, bool wait);
unsigned io_queue_pending(const struct io_queue *q); /* submitted and not done */
/* Readable when io_queue_run(q, false) has something to do. Borrowed. */
int io_queue_fd(const struct io_queue *q);

/* --- memory, for tests ----------------------------------------------------------------------- */

struct io_mem; /* a space of files in memory; opaque */

/* Files that are created here outlive their opens, until io_mem_free. Nothing is recorded. */
struct io_mem *io_mem_new(void);
void io_mem_free(struct io_mem *m); /* all files closed; NULL is a no-op */
struct io_space *io_mem_space(struct io_mem *m);

/* From now on every write, truncate, punch and sync of any file is kept, in order. */
void io_mem_record(struct io_mem *m);
unsigned io_mem_recorded(const struct io_mem *m); /* how many so far */

enum io_crash {
    IO_CRASH_PREFIX,  /* the first @n happened whole */
    IO_CRASH_TORN,    /* as before, but of the last only some sectors */
    IO_CRASH_REORDER, /* since the last barrier: any subset, each whole or torn */
    IO_CRASH_KINDS,
};
/* A new space: what @m held when recording began, and what a crash after @n of the recorded
 * changes could leave of them. @g decides where there is a choice. NULL: out of memory. */
struct io_mem *io_mem_crash(const struct io_mem *m, unsigned n, enum io_crash kind, struct prng *g);

/* The @k-th operation from now (0: the next) of any kind fails with PLX_EIO, and all after it
 * until io_mem_fail_never. */
void io_mem_fail_at(struct io_mem *m, unsigned k);
void io_mem_fail_never(struct io_mem *m);

#endif
