/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_image_util.c - what the verbs of `pollux image` share: progress, texts, sources. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "ops/cmd_image.h"
#include "ops/json.h"
#include "storage/chain.h"
#include "storage/image_disk.h"

#define METER_NS UINT64_C(200000000)
enum { PATH_CAP = 4096 };

volatile int image_interrupted;

static void on_signal(int signo)
{
    (void)signo;
    image_interrupted = 1;
}

void image_catch_signals(void)
{
    struct sigaction quit = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};

    (void)sigaction(SIGINT, &quit, NULL);
    (void)sigaction(SIGTERM, &quit, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
}

const char *image_store_path(const struct image_args *a)
{
    return a->store != NULL ? a->store : image_store_default();
}

const char *image_scratch(void)
{
    const char *tmp = getenv("TMPDIR");

    return tmp != NULL ? tmp : "/tmp";
}

/* --- texts ---------------------------------------------------------------------------------- */

const char *image_size_text(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int u = 0;

    while (v >= 1024 && u < 4) {
        v /= 1024;
        u++;
    }
    (void)snprintf(out, 32, v < 10 && u > 0 ? "%.1f %s" : "%.0f %s", v, units[u]);
    return out;
}

const char *image_time_text(uint64_t ns, char out[32])
{
    time_t t = (time_t)(ns / 1000000000);
    struct tm tm;

    if (gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%d %H:%M", &tm) == 0) {
        (void)snprintf(out, 32, "?");
    }
    return out;
}

/* --- progress ------------------------------------------------------------------------------- */

void image_meter_start(struct image_meter *m, const char *what, bool quiet)
{
    *m = (struct image_meter){
        .what = what, .quiet = quiet || isatty(STDERR_FILENO) == 0, .started_ns = clock_mono_ns()};
}

double image_meter_seconds(const struct image_meter *m)
{
    return (double)(clock_mono_ns() - m->started_ns) / 1e9;
}

int image_meter_tick(void *ctx, const struct image_progress *p)
{
    struct image_meter *m = ctx;
    uint64_t now = clock_mono_ns();
    char done[32], total[32], rate[32];

    if (!m->quiet && now - m->last_ns >= METER_NS) {
        double s = image_meter_seconds(m);
        m->last_ns = now;
        m->shown = true;
        (void)fprintf(stderr, "\r%s: %s of %s, %s/s, %u %% shared\033[K", m->what,
                      image_size_text(p->bytes, done), image_size_text(p->total, total),
                      image_size_text((uint64_t)((double)p->bytes / (s > 0 ? s : 1)), rate),
                      (unsigned)(p->data_bytes == 0 ? 0 : p->shared_bytes * 100 / p->data_bytes));
    }
    return image_interrupted;
}

void image_meter_end(struct image_meter *m)
{
    if (m->shown) {
        (void)fputs("\r\033[K", stderr);
    }
}

/* --- sources -------------------------------------------------------------------------------- */

extern char **environ;

/* What we do not read ourselves becomes a raw file first. */
static int convert(const char *path, const char *format, const char *scratch, struct plx_err *err)
{
    char *const argv[] = {
        (char *)(uintptr_t) "qemu-img", (char *)(uintptr_t) "convert", (char *)(uintptr_t) "-f",
        (char *)(uintptr_t)format,      (char *)(uintptr_t) "-O",      (char *)(uintptr_t) "raw",
        (char *)(uintptr_t)path,        (char *)(uintptr_t)scratch,    NULL};
    pid_t pid;
    int status;

    int rc = posix_spawnp(&pid, "qemu-img", NULL, NULL, argv, environ);
    if (rc != 0) {
        errno = rc;
        return plx_fail_errno(err, "%s is %s: cannot run qemu-img to read it (package qemu-utils)",
                              path, format);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return plx_fail(err, PLX_EIO, "%s: qemu-img could not read it as %s", path, format);
    }
    return 0;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && strcmp(s + n - m, end) == 0;
}

int image_open_disk(const char *path, const char *format, const char *scratch, struct disk **out,
                    struct plx_err *err)
{
    char tmp[PATH_CAP];

    *out = NULL;
    if (format == NULL ? !ends_with(path, ".qcow2") : strcmp(format, "qcow2") != 0) {
        return disk_open(io_host(), path, format, 0, out, err);
    }
    (void)snprintf(tmp, sizeof tmp, "%s/convert.XXXXXX", scratch);
    int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0) {
        return plx_fail_errno(err, "cannot make a file in %s", scratch);
    }
    (void)close(fd);
    int rc = convert(path, "qcow2", tmp, err);
    if (rc == 0) {
        rc = disk_open(io_host(), tmp, "raw", 0, out, err);
    }
    (void)unlink(tmp); /* it stays until it is closed */
    return rc;
}

/* --- printing images ------------------------------------------------------------------------ */

static void json_ref(struct json *j, const struct image_ref *r)
{
    char hex[SHA256_HEX];

    json_string(j, "name", r->name);
    json_string(j, "tag", r->tag);
    json_string(j, "os", r->os);
    json_string(j, "app", r->app);
    json_u64(j, "bytes", r->bytes);
    json_u64(j, "data_bytes", r->data_bytes);
    json_u64(j, "stored_bytes", r->stored_bytes);
    json_u64(j, "created_ns", r->created_ns);
    json_string(j, "id", sha256_hex(r->sha, hex));
    json_bool(j, "boot_profile", r->profile.len != 0);
}

int image_print_list(struct image_args *a, const struct image_ref *refs, size_t n)
{
    struct json j;

    if (a->json) {
        json_begin(&j, stdout);
        json_array(&j, "images");
        for (size_t i = 0; i < n; i++) {
            json_object(&j, NULL);
            json_ref(&j, &refs[i]);
            json_close(&j, '}');
        }
        json_close(&j, ']');
        json_end(&j);
        return 0;
    }
    (void)printf("%-32s %-14s %-20s %9s %9s %9s  %s\n", "IMAGE", "OS", "APPLICATIONS", "SIZE",
                 "DATA", "ADDED", "PUSHED");
    for (size_t i = 0; i < n; i++) {
        char name[IMAGE_NAME], size[32], data[32], added[32], when[32];
        image_name_text(refs[i].name, refs[i].tag, name);
        (void)printf("%-32s %-14s %-20s %9s %9s %9s  %s\n", name, refs[i].os, refs[i].app,
                     image_size_text(refs[i].bytes, size),
                     image_size_text(refs[i].data_bytes, data),
                     image_size_text(refs[i].stored_bytes, added),
                     image_time_text(refs[i].created_ns, when));
    }
    return 0;
}

void image_print_one(const struct image_args *a, const struct image_ref *ref,
                     const struct manifest *m, size_t profile)
{
    static const char *const streams[STREAMS] = {"disk", "kernel", "initrd"};
    char hex[SHA256_HEX], size[32], data[32], added[32], when[32];
    struct json j;

    if (a->json) {
        json_begin(&j, stdout);
        json_ref(&j, ref);
        json_string(&j, "cmdline", m->cmdline);
        json_u64(&j, "logical_sector", m->logical_sector);
        json_u64(&j, "physical_sector", m->physical_sector);
        json_string(&j, "cuts", chunk_kind_name(m->chunks));
        json_u64(&j, "segment_average", m->chunk_avg);
        for (int k = 0; k < STREAMS; k++) {
            json_object(&j, streams[k]);
            json_u64(&j, "bytes", m->streams[k].bytes);
            json_u64(&j, "segments", m->streams[k].n);
            json_u64(&j, "data_bytes", manifest_data(&m->streams[k]));
            json_close(&j, '}');
        }
        json_u64(&j, "profile_segments", profile);
        json_end(&j);
        return;
    }
    (void)printf(
        "image         %s:%s\nid            %s\nos            %s\napplications  %s\n"
        "pushed        %s UTC\nsize          %s, %s of data, %s added\n"
        "sectors       %u bytes, %u physical\nsegments      cut by %s, %u KiB on average\n",
        ref->name, ref->tag, sha256_hex(ref->sha, hex), ref->os, ref->app,
        image_time_text(ref->created_ns, when), image_size_text(ref->bytes, size),
        image_size_text(ref->data_bytes, data), image_size_text(ref->stored_bytes, added),
        m->logical_sector, m->physical_sector, chunk_kind_name(m->chunks), m->chunk_avg >> 10);
    for (int k = 0; k < STREAMS; k++) {
        if (m->streams[k].bytes != 0) {
            (void)printf("%-13s %zu segments, %s\n", streams[k], m->streams[k].n,
                         image_size_text(manifest_data(&m->streams[k]), data));
        }
    }
    if (m->cmdline[0] != '\0') {
        (void)printf("command line  %s\n", m->cmdline);
    }
    (void)printf("boot profile  %zu segments\n", profile);
}
