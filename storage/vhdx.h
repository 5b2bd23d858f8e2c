/* SPDX-License-Identifier: Apache-2.0
 * storage/vhdx.h - one VHDX file after MS-VHDX: fixed, dynamic or differencing.
 *
 * This is a *layer*: it says what stands in this file and what its parent has to answer; chain.h
 * makes disks of layers. The rules that make a crash harmless (ARCHITECTURE.md, "Virtual disks"):
 *
 *   1. before the first change of data after an open a header with a new DataWriteGuid is durable;
 *   2. allocation and sector bitmaps change in memory, and reach the file by vhdx_flush: data
 *      durable, then the log entry durable, then in place, bitmaps before the BAT;
 *   3. space that was freed is used again only when the log says that it is free, and nothing
 *      under way still means its old owner;
 *   4. a new block's space reads as zeros before anything points to it.
 *
 * Ownership: takes over its io_file. Threading: any number of threads, except vhdx_set_* and
 * vhdx_resize, which want to be alone. */
#ifndef STORAGE_VHDX_H
#define STORAGE_VHDX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "storage/disk.h"

struct vhdx; /* opaque */

enum vhdx_type { VHDX_FIXED, VHDX_DYNAMIC, VHDX_DIFFERENCING };
const char *vhdx_type_name(enum vhdx_type type);

enum { VHDX_PATH_MAX = 4096 };

/* What a differencing file says about its parent. */
struct vhdx_parent {
    struct disk_guid linkage;
    struct disk_guid linkage2; /* as good as the first; all zero: none. Only while a commit runs */
    char relative[VHDX_PATH_MAX]; /* with slashes, from the child's folder; "" if not given */
    char absolute[VHDX_PATH_MAX]; /* "" if not given */
};

struct vhdx_create {
    enum vhdx_type type;
    uint64_t bytes;                   /* multiple of the logical sector, 1 sector to 64 TiB */
    uint32_t block;                   /* power of two, 1 to 256 MiB; 0: chosen */
    uint32_t logical_sector;          /* 512 or 4096; 0: 512 */
    uint32_t physical_sector;         /* 512 or 4096; 0: 4096 */
    const struct vhdx_parent *parent; /* of VHDX_DIFFERENCING */
};

#define VHDX_BYTES_MAX (UINT64_C(64) << 40)

/* Write an empty disk into the empty file @f (borrowed); durable when it returns.
 * Errors: PLX_EINVAL, PLX_ERANGE (of the sizes), PLX_EIO, PLX_ENOMEM. */
int vhdx_create(struct io_file *f, const struct vhdx_create *c, struct plx_err *err);

enum {
    VHDX_WRITE = 1, /* the log is replayed if it must be */
    VHDX_PEEK = 2,  /* somebody may be writing it: the log is not looked at, nor is the file judged
                       beyond its tables */
};

/* Does the file begin like a VHDX? False also on errors. */
bool vhdx_probe(struct io_file *f);
/* Errors: PLX_ECORRUPT, PLX_ETRUNCATED, PLX_EVERSION (a required part that we do not know),
 * PLX_ESTATE (read-only, and the log must be replayed first), PLX_EIO, PLX_ENOMEM. On error @f
 * stays the caller's. */
int vhdx_open(struct io_file *f, unsigned flags, struct vhdx **out, struct plx_err *err);
/* Flushes and marks the log empty. The error says what is not durable; freed in any case. */
int vhdx_close(struct vhdx *v, struct plx_err *err);

struct io_file *vhdx_file(const struct vhdx *v); /* borrowed */

struct vhdx_info {
    enum vhdx_type type;
    struct disk_geometry geo;
    struct disk_guid data_write, file_write, page83;
    bool log_active;            /* it would have to be replayed (or its writer is still there) */
    uint64_t blocks, allocated; /* allocated: with space in the file, fully or partially */
    uint64_t partial, zero, file_bytes;
    char creator[256];
};
void vhdx_get_info(struct vhdx *v, struct vhdx_info *out);
struct disk_guid vhdx_identity(struct vhdx *v); /* DataWriteGuid */
/* NULL: no differencing file. Borrowed. */
const struct vhdx_parent *vhdx_parent(const struct vhdx *v);

/* --- where things are ------------------------------------------------------------------------ */

enum vhdx_where {
    VHDX_HERE,   /* at file_off */
    VHDX_ZEROS,  /* nowhere: zeros */
    VHDX_PARENT, /* ask the parent */
};
struct vhdx_run {
    enum vhdx_where where;
    uint64_t len; /* at most what was asked for, at least 512 */
    uint64_t file_off;
};
/* The first run from @off on, at most @len long. */
int vhdx_map(struct vhdx *v, uint64_t off, uint64_t len, struct vhdx_run *out, struct plx_err *err);

/* Space that is mapped is not given to another block between these two. */
unsigned vhdx_enter(struct vhdx *v);
void vhdx_leave(struct vhdx *v, unsigned token);

/* --- changes -------------------------------------------------------------------------------- */

/* A write: begin says where the first bytes go, the caller puts them there, end makes them seen
 * (@well: they were written). In whole logical sectors. Between begin and end the caller is in
 * vhdx_enter. */
struct vhdx_write {
    uint64_t off, len; /* of the disk; len at most what was asked for */
    uint64_t file_off;
    uint64_t entry; /* of the block, when it began */
};
int vhdx_write_begin(struct vhdx *v, uint64_t off, uint64_t len, struct vhdx_write *w,
                     struct plx_err *err);
/* As vhdx_write_begin where that needs neither I/O nor an allocation; else false. */
bool vhdx_write_fast(struct vhdx *v, uint64_t off, uint64_t len, struct vhdx_write *w);
int vhdx_write_end(struct vhdx *v, const struct vhdx_write *w, bool well, struct plx_err *err);
int vhdx_zero(struct vhdx *v, uint64_t off, uint64_t len, bool discard, struct plx_err *err);
int vhdx_flush(struct vhdx *v, struct plx_err *err);

/* --- metadata ------------------------------------------------------------------------------- */

/* All durable when they return, through the log; the file is open for writing. */
/* Give the contents the new DataWriteGuid @id now. */
int vhdx_renew(struct vhdx *v, const struct disk_guid *id, struct plx_err *err);
int vhdx_set_parent(struct vhdx *v, const struct vhdx_parent *p, struct plx_err *err);
/* Larger; or smaller, and what was beyond is gone. Errors: PLX_ERANGE, PLX_EINVAL, ... */
int vhdx_resize(struct vhdx *v, uint64_t bytes, struct plx_err *err);
/* Forget all blocks: everything is the parent's again. Differencing files only. */
int vhdx_empty(struct vhdx *v, struct plx_err *err);
/* Lines kept in the file about what was done to it by force. PLX_ENOTSUP: no room. */
int vhdx_note(struct vhdx *v, const char *line, struct plx_err *err);
/* The lines, or "" ; @out is initialised here. */
int vhdx_notes(struct vhdx *v, struct wbuf *out, struct plx_err *err);

/* --- judging -------------------------------------------------------------------------------- */

struct vhdx_report {
    uint64_t blocks, allocated, leaked_units; /* leaked: MiB of the file that nothing points to */
    unsigned warnings;
    char warning[PLX_ERR_MSG_MAX]; /* the last */
};
/* What vhdx_open judged already, and more: both headers and region tables, bits of the bitmaps
 * beyond the disk, space nothing points to. Warnings do not make it fail. */
int vhdx_check(struct vhdx *v, struct vhdx_report *out, struct plx_err *err);
/* Write damaged copies of header and region table anew from the whole ones. */
int vhdx_repair(struct vhdx *v, struct plx_err *err);

#endif
