/* SPDX-License-Identifier: Apache-2.0
 * storage/chain.h - a chain of layers as one disk: a VHDX file, its parent, that one's parent, down
 * to one that has none, or to an image of a store (image_disk.h), the chain's *base*, which is
 * never written.
 *
 * Opening compares every link: the identifier that a child keeps (parent_linkage) is its parent's
 * DataWriteGuid, which the parent's first change after an open replaces. What does not match, is
 * missing, is its own ancestor or is open for writing elsewhere is refused; the message names the
 * files, both identifiers and how to go on. Parents are opened read-only under a shared lock, the
 * top under an exclusive one when it is written.
 *
 * Ownership and threading: of disk.h. */
#ifndef STORAGE_CHAIN_H
#define STORAGE_CHAIN_H

#include "storage/disk.h"
#include "storage/vhdx.h"

enum { CHAIN_DEPTH_MAX = 256 };

/* @flags: DISK_*. Errors: PLX_ESTALE (a link does not match), PLX_ENOENT (a file is missing),
 * PLX_EBUSY (locked elsewhere), PLX_EINVAL (a cycle, too deep, sectors of two sizes), those of
 * vhdx_open. A parent that was not closed is replayed first where it may be written. */
int chain_open(struct io_space *s, const char *path, unsigned flags, struct disk **out,
               struct plx_err *err);

/* Of a disk that chain_open made (disk_is_chain). Layer 0 is the top. Borrowed. */
bool disk_is_chain(const struct disk *d);
unsigned chain_depth(const struct disk *d); /* VHDX files */
struct vhdx *chain_layer(const struct disk *d, unsigned i);
struct disk *chain_base(const struct disk *d); /* NULL: the last layer has no parent, or a chain
                                                  opened without its parents */

/* The file that @child (at @path) calls its parent: the first of its two paths that is there.
 * An image of a store is not looked for. PLX_ENOENT names what was tried. */
int chain_parent_path(struct io_space *s, const char *path, const struct vhdx_parent *p,
                      char out[VHDX_PATH_MAX], struct plx_err *err);
/* Is @has, the identifier of the parent, the one that the child holds? */
bool chain_link_holds(const struct vhdx_parent *p, const struct disk_guid *has);
/* What a child at @child is to say about its parent at @parent: paths and @linkage. */
int chain_describe(const char *child, const char *parent, const struct disk_guid *linkage,
                   struct vhdx_parent *out, struct plx_err *err);

/* A differencing disk over the VHDX file or image (image_disk.h) @parent, of the same size and
 * sectors; @block 0: chosen. The parent is opened (and refused) as a chain is. */
int chain_create_child(struct io_space *s, const char *path, const char *parent, uint32_t block,
                       struct plx_err *err);

/* Long work tells how far it is; returning false ends it with PLX_ECANCELED. */
struct disk_progress {
    bool (*tell)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};

/* Write what the differencing disk @path changed into its parent, then empty it; it then depends
 * on the parent as it is now. Other children of that parent are refused from then on. A crash
 * leaves both readable as before or after; to do it again finishes it. */
int chain_commit(struct io_space *s, const char *path, const struct disk_progress *p,
                 struct plx_err *err);
/* Put @path on another parent without a change of its contents: where the new parent differs from
 * the old, the old's content is copied into it first. */
int chain_rebase(struct io_space *s, const char *path, const char *parent,
                 const struct disk_progress *p, struct plx_err *err);
/* Say anew where and which the parent of @path is (@parent NULL: where it was). If its identifier
 * is not the one @path holds: PLX_ESTALE, unless @force, which is logged and noted in the file. */
int chain_relink(struct io_space *s, const char *path, const char *parent, bool force,
                 struct plx_err *err);

/* Copy contents; @to is as large, or larger, and reads as zeros. */
int disk_copy(struct disk *from, struct disk *to, const struct disk_progress *p,
              struct plx_err *err);

/* Open by format: "raw", "vhdx", "image", or NULL: by the name, VHDX for .vhdx and .avhdx, an image
 * of a store for image:..., else raw (never by content, which a guest writes; a raw image that
 * looks like another format needs its format said). */
int disk_open(struct io_space *s, const char *path, const char *format, unsigned flags,
              struct disk **out, struct plx_err *err);
const char *disk_format_of(const char *path); /* by the name */

#endif
