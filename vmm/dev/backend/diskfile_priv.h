/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/diskfile_priv.h - a disk and its requests; for diskfile.c, which orders them, and
 * diskfile_work.c, which carries them out. */
#ifndef VMM_DEV_BACKEND_DISKFILE_PRIV_H
#define VMM_DEV_BACKEND_DISKFILE_PRIV_H

#include <pthread.h>

#include "vmm/dev/backend/diskfile.h"
#include "vmm/dev/backend/overlay.h"

enum {
    DISK_WORKERS = 2,
    DISK_WORKERS_BASE = 8,
    /* reads of a base may wait long */ SECTOR = 512,
    SCRUB_BUF = 16 * OVERLAY_BLOCK
};

enum request_state { WAITING, RUNNING, DONE };

struct request {
    struct request *next;
    uint64_t id;
    enum disk_op op;
    uint64_t off, bytes; /* of the disk; bytes 0: a flush */
    uint8_t *data;       /* of bytes; NULL for flush, discard, zero */
    enum request_state state;
    bool reported;
    int error;    /* errno; 0: done well */
    bool damaged; /* the block did not match its checksum */
    uint64_t block;
    uint64_t finish_seq;
};

struct diskfile {
    const struct disk_base *base; /* NULL: fd */
    struct diskfile_image image;  /* @base is its base, if the opener opened it */
    int fd;                       /* base, or the image itself */
    struct overlay *overlay;
    char *path;
    bool readonly;
    uint64_t bytes;
    int event;
    pthread_t threads[DISK_WORKERS_BASE];
    unsigned nthreads;
    pthread_mutex_t lock; /* of all below and the states of requests */
    pthread_cond_t work, finished;
    bool stopping;
    struct request *first, **last;
    uint64_t finish_seq;
    unsigned failed;
    struct {
        struct request r;   /* bytes 0: a pass is over, settle */
        uint8_t *buf;       /* of SCRUB_BUF, for the worker that runs it */
        uint64_t period_ns; /* of the configuration */
        uint64_t next;      /* block */
        uint64_t due_ns;
        bool queued;
        bool waited_for; /* one worker sleeps until it is due */
        bool failed;     /* found damage: once is enough */
    } scrub;
};

/* On a worker, unlocked. 0 or -1 with errno; of a damaged block also says which. */
int disk_carry_out(struct diskfile *d, struct request *r);

#endif
