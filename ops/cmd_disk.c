/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_disk.c - `pollux disk`: one table of verbs, and those that only look. */
#include "ops/cmd_disk.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/cmd.h"
#include "ops/json.h"
#include "storage/image_disk.h"

/* --- sizes and progress --------------------------------------------------------------------- */

int disk_size(const char *text, const char *what, uint64_t *out, struct plx_err *err)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(text, &end);
    const char *unit = *end != 0 ? strchr(units, *end & ~32) : NULL;
    double scale = 1;

    for (long i = unit == NULL ? -1 : unit - units; i >= 0; i--) {
        scale *= 1024;
    }
    end += unit != NULL;
    if (end == text || (*end != 0 && strcasecmp(end, "iB") != 0 && strcasecmp(end, "B") != 0) ||
        !(v >= 0) || v * scale > (double)(UINT64_C(1) << 50)) {
        return plx_fail(err, PLX_EINVAL, "%s '%s' is not a size (like 512M, 20G, 1.5T)", what,
                        text);
    }
    *out = (uint64_t)(v * scale);
    return 0;
}

const char *disk_size_text(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    unsigned u = 0;

    for (; v >= 1024 && u + 1 < PLX_COUNT(units); u++) {
        v /= 1024;
    }
    (void)snprintf(out, 32, u == 0 || v == (double)(uint64_t)v ? "%.0f %s" : "%.1f %s", v,
                   units[u]);
    return out;
}

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

static bool tell(void *ctx, uint64_t done, uint64_t total)
{
    struct disk_meter *m = ctx;
    uint64_t now = clock_mono_ns();
    char a[32], b[32];

    if (m->terminal && (now - m->told_ns > UINT64_C(500000000) || done == total)) {
        double s = (double)(now - m->begun_ns) / 1e9;
        m->told_ns = now;
        (void)fprintf(stderr, "\r%s: %s of %s, %3.0f %%, %.0f MiB/s \033[K", m->what,
                      disk_size_text(done, a), disk_size_text(total, b),
                      total == 0 ? 100.0 : 100.0 * (double)done / (double)total,
                      s > 0 ? (double)done / s / 1048576 : 0.0);
    }
    return interrupted == 0;
}

struct disk_progress *disk_meter_begin(struct disk_meter *m, const char *what)
{
    struct sigaction act = {.sa_handler = on_signal};

    *m = (struct disk_meter){.p = {tell, m},
                             .what = what,
                             .begun_ns = clock_mono_ns(),
                             .terminal = isatty(STDERR_FILENO) != 0};
    (void)sigaction(SIGINT, &act, NULL);
    (void)sigaction(SIGTERM, &act, NULL);
    return &m->p;
}

void disk_meter_end(struct disk_meter *m)
{
    if (m->terminal && m->told_ns != 0) {
        (void)fprintf(stderr, "\r\033[K");
    }
}

/* --- options -------------------------------------------------------------------------------- */

#define SETTER(field, value)                                               \
    static int set_##field(void *ctx, char *const *v, struct plx_err *err) \
    {                                                                      \
        (void)v;                                                           \
        (void)err;                                                         \
        ((struct disk_args *)ctx)->field = value;                          \
        return 0;                                                          \
    }
SETTER(parent, v[0])
SETTER(format, v[0])
SETTER(output_format, v[0])
SETTER(type, v[0])
SETTER(socket, v[0])
SETTER(name, v[0])
SETTER(store, v[0])
SETTER(force, true)
SETTER(repair, true)
SETTER(shrink, true)
SETTER(json, true)
SETTER(readonly, true)
SETTER(once, true)
SETTER(threads, true)

static int set_bytes(void *ctx, char *const *v, struct plx_err *err)
{
    return disk_size(v[0], "the size", &((struct disk_args *)ctx)->bytes, err);
}

static int set_block(void *ctx, char *const *v, struct plx_err *err)
{
    return disk_size(v[0], "the block size", &((struct disk_args *)ctx)->block, err);
}

static int set_sector(void *ctx, char *const *v, struct plx_err *err)
{
    return opt_u64(v[0], "the sector size", 512, 4096, &((struct disk_args *)ctx)->sector, err);
}

static const struct opt create_options[] = {
    {"size", "SIZE", "of the disk: 20G, 1.5T, ...; a child has its parent's", set_bytes},
    {"type", "TYPE", "dynamic (the default) or fixed", set_type},
    {"parent", "FILE", "a differencing disk over this VHDX, or image:[STORE#]NAME[:TAG]",
     set_parent},
    {"block", "SIZE", "unit of allocation, 1M to 256M", set_block},
    {"sector", "BYTES", "logical sectors of 512 (the default) or 4096 bytes", set_sector},
    {0},
};
static const struct opt look_options[] = {
    {"format", "FORMAT", "vhdx, raw or image; by default by the name", set_format},
    {"json", NULL, "print JSON", set_json},
    {0},
};
static const struct opt check_options[] = {
    {"repair", NULL, "replay the log and make damaged copies of tables whole", set_repair},
    {0},
};
static const struct opt parent_options[] = {
    {"parent", "FILE", "the new parent, also image:[STORE#]NAME[:TAG]", set_parent},
    {0},
};
static const struct opt relink_options[] = {
    {"parent", "FILE", "where the parent is; by default where it was", set_parent},
    {"force", NULL, "although its contents changed; noted in the file", set_force},
    {0},
};
static const struct opt no_options[] = {{0}};
static const struct opt resize_options[] = {
    {"size", "SIZE", "the new size", set_bytes},
    {"shrink", NULL, "smaller; what is beyond is lost", set_shrink},
    {0},
};
static const struct opt convert_options[] = {
    {"format", "FORMAT", "of FROM: vhdx, raw, image, qcow2, ...; by default by the name",
     set_format},
    {"to", "FORMAT", "of TO: vhdx, raw, qcow2, ...; by default by the name", set_output_format},
    {"type", "TYPE", "of a VHDX: dynamic (the default) or fixed", set_type},
    {"block", "SIZE", "of a VHDX: unit of allocation", set_block},
    {0},
};
static const struct opt serve_options[] = {
    {"socket", "PATH", "the unix socket to listen at", set_socket},
    {"format", "FORMAT", "vhdx, raw or image; by default by the name", set_format},
    {"store", "DIR", "FILE is an image NAME[:TAG] of this store, read-only", set_store},
    {"name", "NAME", "of the export; \"\" by default", set_name},
    {"readonly", NULL, "refuse changes, and share the file with other readers", set_readonly},
    {"once", NULL, "end when the last client has gone", set_once},
    {"threads", NULL, "threads even where there is io_uring", set_threads},
    {0},
};

static const struct {
    int (*run)(struct disk_args *a, struct plx_err *err);
    struct opt_command command;
} verbs[] = {
    {disk_verb_create,
     {"pollux disk create", "FILE", "Make an empty VHDX disk, or a differencing one over --parent.",
      create_options, 1, 1}},
    {disk_verb_info,
     {"pollux disk info", "FILE",
      "What a disk is: type, size, identifiers, parent, notes. Also of one that is in use.",
      look_options, 1, 1}},
    {disk_verb_check,
     {"pollux disk check", "FILE...",
      "Judge VHDX files and the chains below them. Exit codes: 0 well, 1 damaged or refused.",
      check_options, 1, 1000}},
    {disk_verb_chain,
     {"pollux disk chain", "FILE", "The layers of a disk, top first, and whether each link holds.",
      look_options, 1, 1}},
    {disk_verb_commit,
     {"pollux disk commit", "FILE",
      "Write what a differencing disk changed into its parent, and empty it. Other children of\n"
      "that parent are refused from then on.",
      no_options, 1, 1}},
    {disk_verb_rebase,
     {"pollux disk rebase", "FILE",
      "Put a differencing disk on another parent without a change of what it shows.",
      parent_options, 1, 1}},
    {disk_verb_relink,
     {"pollux disk relink", "FILE",
      "Say anew where the parent of a differencing disk is. A parent whose contents changed since\n"
      "is refused without --force, because the disk may then show what it never held.",
      relink_options, 1, 1}},
    {disk_verb_convert,
     {"pollux disk convert", "FROM TO",
      "Copy a disk (a chain: all of its layers) into a new file. Formats other than VHDX and raw\n"
      "are read and written by qemu-img.",
      convert_options, 2, 2}},
    {disk_verb_resize,
     {"pollux disk resize", "FILE", "Make a VHDX disk larger, or with --shrink smaller.",
      resize_options, 1, 1}},
    {disk_verb_map,
     {"pollux disk map", "FILE", "What of a disk holds data, and in which layer.", look_options, 1,
      1}},
    {disk_verb_serve,
     {"pollux disk serve", "FILE",
      "Serve a disk by NBD on a unix socket (for qemu: nbd+unix:///?socket=PATH) until a signal.",
      serve_options, 1, 1}},
};

static const char *verb_name(size_t i)
{
    return strrchr(verbs[i].command.name, ' ') + 1;
}

static void usage(FILE *to)
{
    (void)fprintf(to, "usage: pollux disk VERB [options] FILE...\n\nverbs:\n");
    for (size_t i = 0; i < PLX_COUNT(verbs); i++) {
        const char *text = verbs[i].command.summary;
        (void)fprintf(to, "  %-12s%.*s\n", verb_name(i), (int)strcspn(text, ".\n"), text);
    }
    (void)fprintf(to, "\n`pollux disk VERB --help` lists a verb's options\n");
}

int cmd_disk(int argc, char **argv)
{
    struct disk_args a = {0};
    struct plx_err err = {{0}};
    size_t i = 0;
    int first, rc;

    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_ERROR : EXIT_OK;
    }
    while (i < PLX_COUNT(verbs) && strcmp(argv[1], verb_name(i)) != 0) {
        i++;
    }
    if (i == PLX_COUNT(verbs)) {
        (void)fprintf(stderr, "pollux: no verb 'disk %s' (see pollux disk --help)\n", argv[1]);
        return EXIT_ERROR;
    }
    rc = opt_parse(&verbs[i].command, &a, argc - 1, argv + 1, &first, &err);
    if (rc == OPT_HELP) {
        return EXIT_OK;
    }
    if (rc == 0) {
        a.argv = argv + 1 + first;
        a.argc = argc - 1 - first;
        rc = verbs[i].run(&a, &err);
    }
    if (rc != 0) {
        (void)fprintf(stderr, "pollux: %s\n", err.msg[0] != 0 ? err.msg : plx_strerror(rc));
    }
    return rc == 0 ? EXIT_OK : EXIT_ERROR;
}

/* --- looking -------------------------------------------------------------------------------- */

static void json_guid(struct json *j, const char *key, const struct disk_guid *g)
{
    char text[DISK_GUID_TEXT];
    json_string(j, key, disk_guid_text(g, text));
}

static void print_notes(struct vhdx *v, struct json *j)
{
    struct wbuf notes;
    struct plx_err err;

    if (vhdx_notes(v, &notes, &err) == 0 && notes.len != 0) {
        wbuf_u8(&notes, 0);
        char *save = NULL, *text = (char *)notes.data;
        if (j != NULL) {
            json_array(j, "notes");
        }
        for (char *line = strtok_r(text, "\n", &save); line != NULL;
             line = strtok_r(NULL, "\n", &save)) {
            if (j != NULL) {
                json_string(j, NULL, line);
            } else {
                printf("note          %s\n", line);
            }
        }
        if (j != NULL) {
            json_close(j, ']');
        }
    }
    wbuf_free(&notes);
}

static void print_vhdx(struct vhdx *v, struct json *j)
{
    const struct vhdx_parent *p = vhdx_parent(v);
    char text[DISK_GUID_TEXT], a[32], b[32];
    struct vhdx_info i;

    vhdx_get_info(v, &i);
    if (j != NULL) {
        json_string(j, "type", vhdx_type_name(i.type));
        json_u64(j, "block", i.geo.block);
        json_u64(j, "logical-sector", i.geo.logical_sector);
        json_u64(j, "physical-sector", i.geo.physical_sector);
        json_u64(j, "blocks", i.blocks);
        json_u64(j, "allocated", i.allocated);
        json_u64(j, "partial", i.partial);
        json_u64(j, "file-bytes", i.file_bytes);
        json_guid(j, "identifier", &i.data_write);
        json_guid(j, "disk", &i.page83);
        json_bool(j, "open-or-not-closed", i.log_active);
        json_string(j, "creator", i.creator);
        if (p != NULL) {
            json_object(j, "parent");
            json_guid(j, "identifier", &p->linkage);
            json_string(j, "relative", p->relative);
            json_string(j, "absolute", p->absolute);
            json_close(j, '}');
        }
    } else {
        printf("type          %s\nblocks        %" PRIu64 " of %s, %" PRIu64 " in the file",
               vhdx_type_name(i.type), i.blocks, disk_size_text(i.geo.block, a), i.allocated);
        printf(i.partial != 0 ? " (%" PRIu64 " of them in part)\n" : "\n", i.partial);
        printf("file          %s\nsectors       %u logical, %u physical\n",
               disk_size_text(i.file_bytes, b), i.geo.logical_sector, i.geo.physical_sector);
        printf("identifier    %s\n", disk_guid_text(&i.data_write, text));
        printf("creator       %s\n", i.creator);
        if (i.log_active) {
            printf("state         open for writing, or was not closed\n");
        }
        if (p != NULL) {
            printf("parent        %s\nits id was    %s\n",
                   p->relative[0] != 0 ? p->relative : p->absolute,
                   disk_guid_text(&p->linkage, text));
        }
    }
    print_notes(v, j);
}

int disk_verb_info(struct disk_args *a, struct plx_err *err)
{
    struct disk *d;
    struct json j;
    char text[32];
    int rc = disk_open(io_host(), a->argv[0], a->format, DISK_NO_LOCK | DISK_NO_PARENTS, &d, err);

    if (rc != 0) {
        return rc;
    }
    if (a->json) {
        json_begin(&j, stdout);
        json_string(&j, "file", a->argv[0]);
        json_string(&j, "format", d->ops->format);
        json_u64(&j, "size", d->geo.bytes);
    } else {
        printf("file          %s\nformat        %s\nsize          %s (%" PRIu64 " bytes)\n",
               a->argv[0], d->ops->format, disk_size_text(d->geo.bytes, text), d->geo.bytes);
    }
    if (disk_is_chain(d)) {
        print_vhdx(chain_layer(d, 0), a->json ? &j : NULL);
    }
    if (a->json) {
        json_end(&j);
    }
    return disk_close(d, err);
}

/* One layer of `chain`; @child: the one above, or NULL. @allocated: bytes of blocks. */
static void print_layer(const char *type, const char *path, uint64_t bytes, uint64_t allocated,
                        const struct disk_guid *id, struct vhdx *child, struct json *j)
{
    char text[DISK_GUID_TEXT], size[32];
    bool holds = child == NULL || chain_link_holds(vhdx_parent(child), id);

    if (j != NULL) {
        json_object(j, NULL);
        json_string(j, "file", path);
        json_string(j, "type", type);
        json_u64(j, "size", bytes);
        json_guid(j, "identifier", id);
        json_u64(j, "allocated-bytes", allocated);
        if (child != NULL) {
            json_bool(j, "link-holds", holds);
        }
        json_close(j, '}');
        return;
    }
    printf("%-12s  %9s  %s  %s%s\n", type, disk_size_text(bytes, size), disk_guid_text(id, text),
           path, holds ? "" : "  CHANGED since its child was made");
}

static void print_file(struct vhdx *v, struct vhdx *child, struct json *j)
{
    struct disk_guid id = vhdx_identity(v);
    struct vhdx_info i;

    vhdx_get_info(v, &i);
    print_layer(vhdx_type_name(i.type), vhdx_file(v)->path, i.geo.bytes, i.allocated * i.geo.block,
                &id, child, j);
}

static int print_base(struct disk *base, struct vhdx *child, struct json *j, struct plx_err *err)
{
    struct disk_guid id;
    uint64_t data = 0;
    int rc = disk_identity(base, &id, err);

    for (uint64_t off = 0; rc == 0 && off < base->geo.bytes;) {
        struct disk_extent e;
        rc = disk_map(base, off, base->geo.bytes - off, &e, err);
        data += rc == 0 && e.kind == DISK_EXTENT_DATA ? e.len : 0;
        off += rc == 0 ? e.len : 0;
    }
    if (rc == 0) {
        print_layer("image", base->path, base->geo.bytes, data, &id, child, j);
    }
    return rc;
}

int disk_verb_chain(struct disk_args *a, struct plx_err *err)
{
    struct disk *d;
    struct json j;
    struct plx_err verdict;
    /* Shown as far as it can be opened; the verdict is that of a real opening. */
    int rc = chain_open(io_host(), a->argv[0], DISK_NO_LOCK | DISK_NO_CHECK, &d, err);

    if (rc != 0) {
        return rc;
    }
    if (a->json) {
        json_begin(&j, stdout);
        json_array(&j, "layers");
    }
    for (unsigned i = 0; i < chain_depth(d); i++) {
        print_file(chain_layer(d, i), i == 0 ? NULL : chain_layer(d, i - 1), a->json ? &j : NULL);
    }
    if (chain_base(d) != NULL) {
        rc =
            print_base(chain_base(d), chain_layer(d, chain_depth(d) - 1), a->json ? &j : NULL, err);
    }
    if (a->json) {
        json_close(&j, ']');
        json_end(&j);
    }
    (void)disk_close(d, NULL);
    if (rc != 0) {
        return rc;
    }
    rc = chain_open(io_host(), a->argv[0], DISK_NO_LOCK, &d, &verdict);
    if (rc == 0) {
        return disk_close(d, err);
    }
    return plx_fail(err, rc, "%s", verdict.msg);
}

int disk_verb_map(struct disk_args *a, struct plx_err *err)
{
    struct disk_extent run = {.len = 0}, e;
    struct disk *d;
    struct json j;
    int rc = disk_open(io_host(), a->argv[0], a->format, 0, &d, err);

    if (rc != 0) {
        return rc;
    }
    if (a->json) {
        json_begin(&j, stdout);
        json_array(&j, "extents");
    } else {
        printf("%16s %16s  %-5s %5s %16s  %s\n", "offset", "length", "what", "layer", "at", "file");
    }
    for (uint64_t off = 0; off <= d->geo.bytes && rc == 0; off += e.len) {
        bool end = off == d->geo.bytes;
        e = (struct disk_extent){.len = 1};
        rc = end ? 0 : disk_map(d, off, d->geo.bytes - off, &e, err);
        if (rc == 0 && !end && run.len != 0 && e.kind == run.kind && e.depth == run.depth &&
            (e.kind == DISK_EXTENT_ZERO || e.file_off == run.file_off + run.len)) {
            run.len += e.len;
            continue;
        }
        if (rc == 0 && run.len != 0 && a->json) {
            json_object(&j, NULL);
            json_u64(&j, "start", run.off);
            json_u64(&j, "length", run.len);
            json_bool(&j, "data", run.kind == DISK_EXTENT_DATA);
            json_u64(&j, "depth", run.depth);
            if (run.file != NULL) {
                json_string(&j, "file", run.file->path);
                json_u64(&j, "offset", run.file_off);
            }
            json_close(&j, '}');
        } else if (rc == 0 && run.len != 0) {
            printf(run.file == NULL ? "%16" PRIu64 " %16" PRIu64 "  %-5s %5u\n"
                                    : "%16" PRIu64 " %16" PRIu64 "  %-5s %5u %16" PRIu64 "  %s\n",
                   run.off, run.len, run.kind == DISK_EXTENT_DATA ? "data" : "zero", run.depth,
                   run.file_off, run.file != NULL ? run.file->path : "");
        }
        run = e;
    }
    if (a->json) {
        json_close(&j, ']');
        json_end(&j);
    }
    (void)disk_close(d, NULL);
    return rc;
}

static int check_one(const char *path, bool repair, struct plx_err *err)
{
    struct disk *d;
    char text[32];
    unsigned warnings = 0;

    if (image_disk_path(path)) {
        return plx_fail(err, PLX_EINVAL, "%s is in a store: `pollux image verify` checks that",
                        path);
    }
    int rc = chain_open(io_host(), path, repair ? DISK_FOR_WRITE : 0, &d, err);

    for (unsigned i = 0; rc == 0 && i < chain_depth(d); i++) {
        struct vhdx *v = chain_layer(d, i);
        struct vhdx_report r;
        if (repair && i == 0) {
            rc = vhdx_repair(v, err);
        }
        if (rc == 0) {
            rc = vhdx_check(v, &r, err);
        }
        if (rc == 0) {
            warnings += r.warnings;
            printf("%s: %" PRIu64 " of %" PRIu64 " blocks in the file, %s free in it\n",
                   vhdx_file(v)->path, r.allocated, r.blocks,
                   disk_size_text(r.leaked_units << 20, text));
            if (r.warnings != 0) {
                printf("%s (pollux disk check --repair)\n", r.warning);
            }
        }
    }
    if (rc == 0) {
        rc = disk_close(d, err);
    }
    return rc == 0 && warnings != 0
               ? plx_fail(err, PLX_ECORRUPT, "%s: %u copies are damaged", path, warnings)
               : rc;
}

int disk_verb_check(struct disk_args *a, struct plx_err *err)
{
    int rc = 0;

    for (int i = 0; i < a->argc; i++) {
        struct plx_err one;
        int bad = check_one(a->argv[i], a->repair, &one);
        if (bad != 0 && rc != 0) {
            (void)fprintf(stderr, "pollux: %s\n", err->msg);
        }
        if (bad != 0) {
            rc = plx_fail(err, bad, "%s", one.msg);
        }
    }
    return rc;
}
