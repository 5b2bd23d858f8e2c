/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_image.c - `pollux image VERB`: one table of verbs, and those that need a store only. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "ops/cmd.h"
#include "ops/cmd_image_net.h"
#include "ops/cmd_run.h"
#include "ops/json.h"
#include "storage/store_dir.h"

enum { EXIT_FAULTS = 2, RUN_ARGS_MAX = 256, REMOTE_THREADS = 4 };

/* --- options -------------------------------------------------------------------------------- */

#define STRING_OPTION(field)                                               \
    static int set_##field(void *ctx, char *const *v, struct plx_err *err) \
    {                                                                      \
        (void)err;                                                         \
        ((struct image_args *)ctx)->field = v[0];                          \
        return 0;                                                          \
    }
STRING_OPTION(store)
STRING_OPTION(cache)
STRING_OPTION(key)
STRING_OPTION(os)
STRING_OPTION(app)
STRING_OPTION(kernel)
STRING_OPTION(initrd)
STRING_OPTION(cmdline)
STRING_OPTION(chunks)
STRING_OPTION(format)
STRING_OPTION(listen)
STRING_OPTION(clients)
STRING_OPTION(overlay)
STRING_OPTION(profile_until)
STRING_OPTION(progress)
#undef STRING_OPTION

#define FLAG_OPTION(field)                                                 \
    static int set_##field(void *ctx, char *const *v, struct plx_err *err) \
    {                                                                      \
        (void)v;                                                           \
        (void)err;                                                         \
        ((struct image_args *)ctx)->field = true;                          \
        return 0;                                                          \
    }
FLAG_OPTION(json)
FLAG_OPTION(quiet)
FLAG_OPTION(repair)
FLAG_OPTION(no_profile)
FLAG_OPTION(no_background)
#undef FLAG_OPTION

#define NUMBER_OPTION(field, what, min, max)                                           \
    static int set_##field(void *ctx, char *const *v, struct plx_err *err)             \
    {                                                                                  \
        return opt_u64(v[0], what, min, max, &((struct image_args *)ctx)->field, err); \
    }
NUMBER_OPTION(avg_kib, "the average in KiB", 16, 256)
NUMBER_OPTION(threads, "the number of threads", 1, 64)
NUMBER_OPTION(cache_mib, "the size in MiB", 32, 1 << 24)
#undef NUMBER_OPTION

static int set_server(void *ctx, char *const *v, struct plx_err *err)
{
    struct image_args *a = ctx;

    if (a->nservers == IMAGE_SERVERS) {
        return plx_fail(err, PLX_ERANGE, "more than %d servers", IMAGE_SERVERS);
    }
    a->servers[a->nservers++] = v[0];
    return 0;
}

/* clang-format off */
#define OPT_STORE {"store", "DIR", "the store ($POLLUX_STORE, /var/lib/pollux/images)", set_store}
#define OPT_JSON {"json", NULL, "print JSON", set_json}
#define OPT_QUIET {"quiet", NULL, "no progress", set_quiet}
#define OPT_THREADS {"threads", "N", "threads (one per processor)", set_threads}
#define OPT_SEARCH {"os", "NAME", "only of this operating system", set_os}, {"app", "NAME", "only with this application", set_app}
#define OPT_SERVER \
    {"server", "tcp://HOST:PORT,KEY", "an image server and its public key, or a file that holds it; " \
     "may be repeated: the next one is asked when one is silent", set_server}, \
    {"key", "FILE", "our CURVE key, which the servers know", set_key}
#define OPT_CACHE {"cache", "DIR", "segments kept from one run to the next ($POLLUX_CACHE, ~/.cache/pollux/segments)", set_cache}, \
    {"cache-size", "MIB", "its limit (4096)", set_cache_mib}

static const struct opt push_options[] = {
    OPT_STORE,
    {"format", "NAME", "raw, vhdx or qcow2 (by the file's name)", set_format},
    {"os", "NAME", "operating system, to find the image by", set_os},
    {"app", "NAME,...", "applications, to find the image by", set_app},
    {"kernel", "FILE", "a kernel that boots it, kept with it", set_kernel},
    {"initrd", "FILE", "the kernel's initrd", set_initrd},
    {"append", "TEXT", "the kernel's command line", set_cmdline},
    {"chunks", "KIND", "where segments end: blocks (by contents, at 4 KiB), bytes (by contents), fixed", set_chunks},
    {"average", "KIB", "average length of segments (32)", set_avg_kib},
    {"server", "tcp://HOST:PORT,KEY", "push to the store of this image server, which lets our key", set_server},
    {"key", "FILE", "our CURVE key, which the server knows", set_key},
    OPT_THREADS, OPT_QUIET, OPT_JSON, {0}};
static const struct opt list_options[] = {OPT_STORE, OPT_SERVER, OPT_SEARCH, OPT_JSON, {0}};
static const struct opt show_options[] = {OPT_STORE, OPT_JSON, {0}};
static const struct opt store_options[] = {OPT_STORE, {0}};
static const struct opt gc_options[] = {OPT_STORE, OPT_JSON, {0}};
static const struct opt verify_options[] = {
    OPT_STORE, {"repair", NULL, "first make the index again from the packs", set_repair}, OPT_JSON, {0}};
static const struct opt serve_options[] = {
    OPT_STORE,
    {"listen", "tcp://ADDRESS:PORT", "where to listen", set_listen},
    {"clients", "FILE", "the public keys that may connect, one a line", set_clients},
    {"key", "FILE", "our CURVE key", set_key}, {0}};
static const struct opt pull_options[] = {OPT_STORE, OPT_SERVER, OPT_QUIET, {0}};
static const struct opt run_options[] = {
    OPT_STORE, OPT_SERVER, OPT_CACHE,
    {"overlay", "FILE", "keep the VM's own writes here (otherwise they go when it ends)", set_overlay},
    {"profile-until", "TEXT", "end when a console prints this, and keep what was read as the image's boot profile, in the store or on a server that lets us push", set_profile_until},
    {"progress", "FILE", "a line now and then on what came, foreground and background; - is stderr", set_progress},
    {"no-profile", NULL, "do not fetch by the boot profile ahead of the guest", set_no_profile},
    {"no-background", NULL, "do not fetch what neither the guest nor its boot profile asks for", set_no_background}, {0}};
static const struct opt export_options[] = {OPT_STORE, OPT_THREADS, OPT_QUIET, {0}};
/* clang-format on */

/* --- verbs ---------------------------------------------------------------------------------- */

static int open_store(const struct image_args *a, bool create, struct store **out,
                      struct plx_err *err)
{
    return store_open(image_store_path(a), create, out, err);
}

static int split_name(const char *text, char name[IMAGE_TEXT], char tag[IMAGE_TEXT],
                      struct plx_err *err)
{
    return image_name_parse(text, name, tag, err);
}

static int report_push(const struct image_args *a, const struct image_ref *ref,
                       const struct image_progress *p, double seconds)
{
    char data[32], shared[32], added[32], size[32], rate[32], hex[SHA256_HEX];
    struct json j;

    if (a->json) {
        json_begin(&j, stdout);
        json_string(&j, "name", ref->name);
        json_string(&j, "tag", ref->tag);
        json_string(&j, "id", sha256_hex(ref->sha, hex));
        json_u64(&j, "bytes", p->bytes);
        json_u64(&j, "data_bytes", p->data_bytes);
        json_u64(&j, "shared_bytes", p->shared_bytes);
        json_u64(&j, "stored_bytes", p->stored_bytes);
        json_u64(&j, "segments", p->segments);
        json_u64(&j, "shared_segments", p->shared);
        json_u64(&j, "milliseconds", (uint64_t)(seconds * 1000));
        json_end(&j);
        return 0;
    }
    (void)printf("%s:%s: %s, %s of data, %s shared (%u %%), %s added; %.2f s, %s/s\n", ref->name,
                 ref->tag, image_size_text(p->bytes, size), image_size_text(p->data_bytes, data),
                 image_size_text(p->shared_bytes, shared),
                 (unsigned)(p->data_bytes == 0 ? 0 : p->shared_bytes * 100 / p->data_bytes),
                 image_size_text(p->stored_bytes, added), seconds,
                 image_size_text((uint64_t)((double)p->bytes / (seconds > 0 ? seconds : 1)), rate));
    return 0;
}

/* A server's answers take a while: more threads than processors ask meanwhile. */
static unsigned push_threads(const struct image_args *a)
{
    unsigned n = image_threads((unsigned)a->threads);

    return a->nservers > 0 && a->threads == 0 && n < REMOTE_THREADS ? REMOTE_THREADS : n;
}

static int verb_push(struct image_args *a, struct plx_err *err)
{
    char name[IMAGE_TEXT], tag[IMAGE_TEXT];
    struct image_push cfg = {.name = name,
                             .tag = tag,
                             .os = a->os,
                             .app = a->app,
                             .kernel = a->kernel,
                             .initrd = a->initrd,
                             .cmdline = a->cmdline,
                             .threads = push_threads(a),
                             .now_ns = clock_wall_ns(),
                             .progress = image_meter_tick};
    enum chunk_kind kind = CHUNK_BLOCKS;
    struct image_progress p;
    struct image_ref ref;
    struct image_meter meter;
    struct image_target target = {.store = NULL};
    struct disk *disk = NULL;
    int rc = split_name(a->args[1], name, tag, err);

    if (rc == 0 && a->chunks != NULL && !chunk_kind_parse(a->chunks, &kind)) {
        rc = plx_fail(err, PLX_EINVAL, "--chunks is blocks, bytes or fixed, not '%s'", a->chunks);
    }
    if (rc == 0) {
        uint64_t avg = a->avg_kib == 0 ? CHUNK_AVERAGE : a->avg_kib << 10;
        rc = chunk_params(kind, (uint32_t)avg, &cfg.chunks, err);
    }
    if (rc == 0) {
        rc = image_target_open(a, &target, err);
    }
    if (rc == 0) {
        rc = image_open_disk(a->args[0], a->format,
                             a->nservers > 0 ? image_scratch() : image_store_path(a), &disk, err);
    }
    if (rc == 0) {
        image_meter_start(&meter, a->args[1], a->quiet);
        cfg.ctx = &meter;
        rc = image_push(target.store, &cfg, disk, &ref, &p, err);
        image_meter_end(&meter);
    }
    if (rc == 0) {
        rc = report_push(a, &ref, &p, image_meter_seconds(&meter));
        image_ref_free(&ref);
    }
    (void)disk_close(disk, NULL);
    image_target_close(&target);
    return rc;
}

struct listing {
    const struct image_args *a;
    struct image_ref *refs;
    size_t n, cap;
};

static int add_to_list(void *ctx, const char *name, const struct image_ref *ref)
{
    struct listing *l = ctx;
    const char *pattern = l->a->nargs > 0 ? l->a->args[0] : NULL;

    if (ref == NULL) {
        (void)fprintf(stderr, "pollux: image %s is damaged (`pollux image verify`)\n", name);
        return 0;
    }
    if (!image_matches(ref, pattern, l->a->os, l->a->app)) {
        return 0;
    }
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 32 : 2 * l->cap;
        struct image_ref *refs = plx_realloc(l->refs, cap * sizeof *refs);
        if (refs == NULL) {
            return PLX_ENOMEM;
        }
        l->refs = refs;
        l->cap = cap;
    }
    int rc = image_ref_copy(ref, &l->refs[l->n]);
    l->n += rc == 0;
    return rc;
}

static int verb_list(struct image_args *a, struct plx_err *err)
{
    struct listing l = {.a = a};
    struct store *s;

    if (a->nservers > 0) {
        return image_list_remote(a, err);
    }
    int rc = open_store(a, false, &s, err);
    if (rc != 0) {
        return rc;
    }
    rc = image_each(s, add_to_list, &l, err);
    if (rc == 0) {
        rc = image_print_list(a, l.refs, l.n);
    } else if (rc == PLX_ENOMEM) {
        rc = plx_fail(err, rc, "out of memory for a list of images");
    }
    for (size_t i = 0; i < l.n; i++) {
        image_ref_free(&l.refs[i]);
    }
    plx_free(l.refs);
    store_close(s);
    return rc;
}

/* Opens the store and finds the image of the first argument. */
static int find(const struct image_args *a, struct store **s, struct image_ref *ref,
                struct plx_err *err)
{
    char name[IMAGE_TEXT], tag[IMAGE_TEXT];
    int rc = split_name(a->args[0], name, tag, err);

    if (rc == 0) {
        rc = open_store(a, false, s, err);
    }
    if (rc == 0 && (rc = image_find(*s, name, tag, ref, err)) != 0) {
        store_close(*s);
    }
    return rc;
}

static int verb_show(struct image_args *a, struct plx_err *err)
{
    struct image_ref ref;
    struct manifest m;
    struct store *s;
    uint32_t *order;
    size_t n;
    int rc = find(a, &s, &ref, err);

    if (rc != 0) {
        return rc;
    }
    rc = image_manifest(s, &ref, &m, err);
    if (rc == 0) {
        rc = image_profile(s, &ref, m.streams[STREAM_DISK].n, &order, &n, err);
        if (rc == 0) {
            image_print_one(a, &ref, &m, n);
            plx_free(order);
        }
        manifest_free(&m);
    }
    image_ref_free(&ref);
    store_close(s);
    return rc;
}

static int verb_tag(struct image_args *a, struct plx_err *err)
{
    char name[IMAGE_TEXT], tag[IMAGE_TEXT];
    struct image_ref ref;
    struct store *s;
    int rc = split_name(a->args[1], name, tag, err);

    if (rc == 0) {
        rc = find(a, &s, &ref, err);
    }
    if (rc != 0) {
        return rc;
    }
    rc = image_tag(s, &ref, name, tag, err);
    image_ref_free(&ref);
    store_close(s);
    return rc;
}

static int verb_rm(struct image_args *a, struct plx_err *err)
{
    char name[IMAGE_TEXT], tag[IMAGE_TEXT];
    struct store *s;
    int rc = 0;

    for (int i = 0; i < a->nargs && rc == 0; i++) {
        rc = split_name(a->args[i], name, tag, err);
    }
    if (rc == 0) {
        rc = open_store(a, false, &s, err);
    }
    if (rc != 0) {
        return rc;
    }
    for (int i = 0; i < a->nargs && rc == 0; i++) {
        (void)split_name(a->args[i], name, tag, err);
        rc = image_remove(s, name, tag, err);
    }
    store_close(s);
    return rc;
}

static int verb_gc(struct image_args *a, struct plx_err *err)
{
    struct seg_sweep swept;
    struct store *s;
    struct json j;
    char live[32], dropped[32], freed[32];
    int rc = open_store(a, false, &s, err);

    if (rc != 0) {
        return rc;
    }
    rc = image_gc(s, &swept, err);
    store_close(s);
    if (rc == 0 && a->json) {
        json_begin(&j, stdout);
        json_u64(&j, "live", swept.live);
        json_u64(&j, "live_bytes", swept.live_bytes);
        json_u64(&j, "dropped", swept.dropped);
        json_u64(&j, "dropped_bytes", swept.dropped_bytes);
        json_u64(&j, "freed_bytes", swept.freed_bytes);
        json_end(&j);
    } else if (rc == 0) {
        (void)printf("%" PRIu64 " segments (%s) stay, %" PRIu64 " (%s) dropped, %s freed\n",
                     swept.live, image_size_text(swept.live_bytes, live), swept.dropped,
                     image_size_text(swept.dropped_bytes, dropped),
                     image_size_text(swept.freed_bytes, freed));
    }
    return rc;
}

static void print_damage(void *ctx, const char *text)
{
    (void)ctx;
    (void)fprintf(stderr, "pollux: %s\n", text);
}

static int verb_verify(struct image_args *a, struct plx_err *err)
{
    struct image_progress p;
    struct store *s;
    struct json j;
    uint64_t faults, found;
    char stored[32];
    int rc = 0;

    if (a->repair) {
        rc = store_dir_reindex(image_store_path(a), &found, err);
    }
    if (rc == 0) {
        rc = open_store(a, false, &s, err);
    }
    if (rc != 0) {
        return rc;
    }
    rc = image_verify(s, print_damage, NULL, &faults, &p, err);
    store_close(s);
    if (rc != 0) {
        return rc == PLX_ECORRUPT ? plx_err_wrap(err, rc, "try --repair") : rc;
    }
    if (a->json) {
        json_begin(&j, stdout);
        json_u64(&j, "segments", p.segments);
        json_u64(&j, "stored_bytes", p.stored_bytes);
        json_u64(&j, "faults", faults);
        json_end(&j);
    } else {
        (void)printf("%" PRIu64 " segments (%s) checked, %" PRIu64 " faults\n", p.segments,
                     image_size_text(p.stored_bytes, stored), faults);
    }
    return faults == 0 ? 0 : EXIT_FAULTS;
}

static int verb_export(struct image_args *a, struct plx_err *err)
{
    struct image_meter meter;
    struct image_ref ref;
    struct manifest m;
    struct store *s;
    int rc = find(a, &s, &ref, err);

    if (rc != 0) {
        return rc;
    }
    rc = image_manifest(s, &ref, &m, err);
    if (rc == 0) {
        int fd = open(a->args[1], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0) {
            rc = plx_fail_errno(err, "cannot create %s", a->args[1]);
        } else {
            image_meter_start(&meter, a->args[0], a->quiet);
            rc = image_export(s, &m.streams[STREAM_DISK], fd, (unsigned)a->threads,
                              image_meter_tick, &meter, err);
            image_meter_end(&meter);
            if (rc == 0 && fsync(fd) != 0) {
                rc = plx_fail_errno(err, "cannot write %s", a->args[1]);
            }
            (void)close(fd);
            if (rc != 0) {
                (void)unlink(a->args[1]);
            }
        }
        manifest_free(&m);
    }
    image_ref_free(&ref);
    store_close(s);
    return rc;
}

/* --- the table ------------------------------------------------------------------------------ */

/* clang-format off */
static const struct verb {
    const char *name, *arguments, *summary;
    const struct opt *options;
    int min_args, max_args;
    int (*run)(struct image_args *a, struct plx_err *err);
} verbs[] = {
    {"push", "FILE NAME[:TAG]", "Put a disk (raw, VHDX with its chain, or qcow2) into the store, or a server's, under a name.", push_options, 2, 2, verb_push},
    {"list", "[PATTERN]", "The images of a store or a server.", list_options, 0, 1, verb_list},
    {"search", "[PATTERN]", "The images of a store or a server with PATTERN in their names, of an operating system, with an application.", list_options, 0, 1, verb_list},
    {"show", "NAME[:TAG]", "One image.", show_options, 1, 1, verb_show},
    {"tag", "NAME[:TAG] NAME[:TAG]", "Give an image another name as well.", store_options, 2, 2, verb_tag},
    {"rm", "NAME[:TAG]...", "Remove names; gc then frees what no other image shares.", store_options, 1, 256, verb_rm},
    {"gc", "", "Drop the segments that no image leads to. Safe while others push and run.", gc_options, 0, 0, verb_gc},
    {"verify", "", "Read and check everything. Exit code 2: faults were found and named.", verify_options, 0, 0, verb_verify},
    {"pull", "NAME[:TAG]", "Bring an image from a server into the store.", pull_options, 1, 1, image_pull},
    {"run", "NAME[:TAG] [OPTIONS OF pollux run]", "Run a VM on an image of the store, or of a server while it downloads. Takes the options of `pollux run` as well.", run_options, 1, 1, image_run},
    {"serve", "", "Serve the images of a store to other hosts.", serve_options, 0, 0, image_serve},
    {"export", "NAME[:TAG] FILE", "Write an image as a raw file.", export_options, 2, 2, verb_export},
};
/* clang-format on */

static void usage(FILE *to)
{
    (void)fprintf(to, "usage: pollux image VERB [options]\n\nverbs:\n");
    for (unsigned i = 0; i < PLX_COUNT(verbs); i++) {
        (void)fprintf(to, "  %-8s%s\n", verbs[i].name, verbs[i].summary);
    }
    (void)fprintf(to, "\n`pollux image VERB --help` lists a verb's options\n");
}

/* How many values follow an option of a table; -1: it is none of the table's. */
static int values_of(const struct opt *table, const char *arg)
{
    size_t len = strcspn(arg + 2, "=");

    for (; table->name != NULL; table++) {
        if (strlen(table->name) == len && strncmp(arg + 2, table->name, len) == 0) {
            return arg[2 + len] == '=' || table->values == NULL ? 0
                   : strchr(table->values, ' ') != NULL         ? 2
                                                                : 1;
        }
    }
    return -1;
}

/* `image run` takes the options of two tables: those of `pollux run` go to a line of their own. */
static void split_run(struct image_args *a, const struct opt *own, int *argc, char **argv)
{
    static char *run_argv[RUN_ARGS_MAX];
    int kept = 1;

    run_argv[a->nrun_args++] = (char *)(uintptr_t) "run";
    for (int i = 1; i < *argc; i++) {
        bool dashes = strncmp(argv[i], "--", 2) == 0;
        int ours = dashes ? values_of(own, argv[i]) : 0;
        int of_run = dashes && ours < 0 ? values_of(cmd_run_options(), argv[i]) : -1;
        int n = of_run >= 0 ? of_run : ours > 0 ? ours : 0;
        for (int k = 0; k <= n && i + k < *argc; k++) {
            if (of_run < 0) {
                argv[kept++] = argv[i + k];
            } else if (a->nrun_args < RUN_ARGS_MAX - 1) {
                run_argv[a->nrun_args++] = argv[i + k];
            }
        }
        i += n;
    }
    run_argv[a->nrun_args] = NULL;
    argv[kept] = NULL;
    *argc = kept;
    a->run_args = run_argv;
}

static int run_verb(const struct verb *v, int argc, char **argv)
{
    char name[64];
    struct opt_command command = {.name = name,
                                  .arguments = v->arguments,
                                  .summary = v->summary,
                                  .options = v->options,
                                  .min_args = v->min_args,
                                  .max_args = v->max_args};
    struct image_args a = {.verb = v->name};
    struct plx_err err = {{0}};
    int first;

    (void)snprintf(name, sizeof name, "pollux image %s", v->name);
    if (v->run == image_run) {
        split_run(&a, v->options, &argc, argv);
    }
    int rc = opt_parse(&command, &a, argc, argv, &first, &err);
    if (rc == OPT_HELP) {
        return EXIT_OK;
    }
    if (rc == 0) {
        a.args = argv + first;
        a.nargs = argc - first;
        image_catch_signals();
        rc = v->run(&a, &err);
    }
    if (rc < 0) {
        (void)fprintf(stderr, "pollux: %s\n", err.msg[0] != '\0' ? err.msg : plx_strerror(rc));
        return EXIT_ERROR;
    }
    return rc;
}

int cmd_image(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return EXIT_ERROR;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        usage(stdout);
        return EXIT_OK;
    }
    for (unsigned i = 0; i < PLX_COUNT(verbs); i++) {
        if (strcmp(argv[1], verbs[i].name) == 0) {
            return run_verb(&verbs[i], argc - 1, argv + 1);
        }
    }
    (void)fprintf(stderr, "pollux: no verb '%s' (see pollux image --help)\n", argv[1]);
    return EXIT_ERROR;
}
