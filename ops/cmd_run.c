/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_run.c - `pollux run`: one VM on this host, without any daemon. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/chaos.h"
#include "base/check.h"
#include "base/io.h"
#include "ops/cmd_run.h"
#include "ops/opt.h"
#include "ops/runner.h"
#include "ops/shadow_opt.h"
#include "storage/image_disk.h"
#include "vmm/boot/boot.h"
#include "vmm/dev/virtio_devices.h"
#include "vmm/sched/team.h"
#include "vmm/tunables.h"

enum { IMAGE_MAX = 1 << 30, NET_TEXT_MAX = 512, TIMEOUT_MAX_S = 10000000 };

struct run_options {
    const char *kernel, *firmware, *initrd, *append, *record, *load;
    const char *console;    /* file; NULL: the terminal */
    unsigned console_input; /* port that the terminal types into */
    const struct engine_ops *engine;
    enum cpu_model cpu;
    bool cpu_given;
    struct shadow_config shadow;
    bool lazy_ad_named; /* shadow.lazy_ad was asked for; else it is that of --load */
    uint64_t memory_mib, vcpus, threads, digest_every, chaos, timeout_s;
    bool stats, perf_map;
    unsigned ndisks, nnets;
    const char *disks[DISKS_MAX];
    struct hostio_net nets[NICS_MAX];
    char net_text[NICS_MAX][NET_TEXT_MAX];
    const char *save_mark, *save_path;
    uint64_t save_slice;
};

/* Everything one run opens, closed in reverse by close_all. */
struct run {
    struct run_options o;
    const struct run_image *image; /* NULL: files only */
    struct vm_config cfg;
    struct hostio *io;
    struct recording *recording;
    struct vm *vm;
};

/* --- options ------------------------------------------------------------------------------ */

/* Options that take a string and leave it at that. */
#define STRING_OPTION(field)                                               \
    static int set_##field(void *ctx, char *const *v, struct plx_err *err) \
    {                                                                      \
        (void)err;                                                         \
        ((struct run_options *)ctx)->field = v[0];                         \
        return 0;                                                          \
    }
STRING_OPTION(kernel)
STRING_OPTION(firmware)
STRING_OPTION(initrd)
STRING_OPTION(append)
STRING_OPTION(record)
STRING_OPTION(load)
#undef STRING_OPTION

#define NUMBER_OPTION(field, what, min, max)                                            \
    static int set_##field(void *ctx, char *const *v, struct plx_err *err)              \
    {                                                                                   \
        return opt_u64(v[0], what, min, max, &((struct run_options *)ctx)->field, err); \
    }
NUMBER_OPTION(memory_mib, "the memory in MiB", 1, RAM_MAX >> 20)
NUMBER_OPTION(vcpus, "the number of vCPUs", 1, VCPUS_MAX)
NUMBER_OPTION(threads, "the number of threads", 1, TEAM_THREADS_MAX)
NUMBER_OPTION(digest_every, "the number of slices", 1, UINT32_MAX)
NUMBER_OPTION(chaos, "the seed", 1, UINT64_MAX)
NUMBER_OPTION(timeout_s, "the seconds", 1, TIMEOUT_MAX_S)
#undef NUMBER_OPTION

static int set_shadow(void *ctx, char *const *v, struct plx_err *err)
{
    struct run_options *o = ctx;

    o->lazy_ad_named = o->lazy_ad_named || shadow_opt_names_lazy_ad(v[0]);
    return shadow_opt(v[0], &o->shadow, err);
}

static int set_perf_map(void *ctx, char *const *v, struct plx_err *err)
{
    (void)v;
    (void)err;
    ((struct run_options *)ctx)->perf_map = true;
    return 0;
}

static int set_stats(void *ctx, char *const *v, struct plx_err *err)
{
    (void)v;
    (void)err;
    ((struct run_options *)ctx)->stats = true;
    return 0;
}

static int set_engine(void *ctx, char *const *v, struct plx_err *err)
{
    const struct engine_ops *e = engine_find(v[0]);

    if (e == NULL) {
        return plx_fail(err, PLX_EINVAL, "no engine '%s'", v[0]);
    }
    ((struct run_options *)ctx)->engine = e;
    return 0;
}

static int set_cpu(void *ctx, char *const *v, struct plx_err *err)
{
    struct run_options *o = ctx;

    o->cpu_given = cpu_model_find(v[0], &o->cpu);
    return o->cpu_given ? 0 : plx_fail(err, PLX_EINVAL, "no CPU model '%s'", v[0]);
}

/* Which port a terminal's typing goes to, by the name the guest's kernel has for it. */
static const struct {
    const char *name;
    unsigned port;
} terminals[] = {
    {"stdio", CONSOLE_SERIAL0},
    {"stdio:ttyS0", CONSOLE_SERIAL0},
    {"stdio:hvc0", CONSOLE_VIRTIO0},
};

static int set_console(void *ctx, char *const *v, struct plx_err *err)
{
    struct run_options *o = ctx;

    o->console = v[0];
    for (unsigned i = 0; i < PLX_COUNT(terminals); i++) {
        if (strcmp(v[0], terminals[i].name) == 0) {
            o->console = NULL;
            o->console_input = terminals[i].port;
            return 0;
        }
    }
    return strncmp(v[0], "stdio:", 6) != 0
               ? 0
               : plx_fail(err, PLX_EINVAL, "stdio:ttyS0 or stdio:hvc0, not '%s'", v[0]);
}

static int set_disk(void *ctx, char *const *v, struct plx_err *err)
{
    struct run_options *o = ctx;

    if (o->ndisks == DISKS_MAX) {
        return plx_fail(err, PLX_ERANGE, "more than %d disks", DISKS_MAX);
    }
    o->disks[o->ndisks++] = v[0];
    return 0;
}

/* none | tap=IF | user[,hostfwd={tcp|udp}:[ADDRESS:]PORT-:PORT]... */
static int set_net(void *ctx, char *const *v, struct plx_err *err)
{
    struct run_options *o = ctx;
    struct hostio_net *net;
    char *text, *rest, *word;

    if (o->nnets == NICS_MAX) {
        return plx_fail(err, PLX_ERANGE, "more than %d network cards", NICS_MAX);
    }
    net = &o->nets[o->nnets];
    text = o->net_text[o->nnets];
    *net = (struct hostio_net){.fd = -1};
    if (strlen(v[0]) >= NET_TEXT_MAX) {
        return plx_fail(err, PLX_ERANGE, "more than %d characters", NET_TEXT_MAX - 1);
    }
    (void)snprintf(text, NET_TEXT_MAX, "%s", v[0]);
    word = strtok_r(text, ",", &rest);
    if (word != NULL && strcmp(word, "none") == 0) {
        net->kind = HOSTIO_NET_NONE;
    } else if (word != NULL && strncmp(word, "tap=", 4) == 0 && word[4] != 0) {
        net->kind = HOSTIO_NET_TAP;
        net->ifname = word + 4;
    } else if (word != NULL && strcmp(word, "user") == 0) {
        net->kind = HOSTIO_NET_USER;
    } else {
        return plx_fail(err, PLX_EINVAL,
                        "must be none, tap=IF or user[,hostfwd=tcp|udp:PORT-:PORT], not '%s'",
                        v[0]);
    }
    while ((word = strtok_r(NULL, ",", &rest)) != NULL) {
        if (net->kind != HOSTIO_NET_USER || strncmp(word, "hostfwd=", 8) != 0) {
            return plx_fail(err, PLX_EINVAL, "unknown part '%s'", word);
        }
        if (net->nhostfwd == HOSTIO_HOSTFWD_MAX) {
            return plx_fail(err, PLX_ERANGE, "more than %d forwarded ports", HOSTIO_HOSTFWD_MAX);
        }
        net->hostfwd[net->nhostfwd++] = word + 8;
    }
    o->nnets++;
    return 0;
}

static int set_save_at(void *ctx, char *const *v, struct plx_err *err)
{
    struct run_options *o = ctx;

    o->save_path = v[1];
    if (v[0][0] == 0) {
        return plx_fail(err, PLX_EINVAL, "the mark is empty");
    }
    if (strspn(v[0], "0123456789") == strlen(v[0])) {
        return opt_u64(v[0], "the slice", 1, UINT64_MAX, &o->save_slice, err);
    }
    o->save_mark = v[0];
    return 0;
}

static const struct opt options[] = {
    {"kernel", "FILE", "a Linux bzImage, or a multiboot 1 image", set_kernel},
    {"firmware", "FILE", "a firmware image, started at the reset vector instead of a kernel",
     set_firmware},
    {"initrd", "FILE", "its initrd (multiboot: a module)", set_initrd},
    {"append", "TEXT", "its command line", set_append},
    {"memory", "MIB", "RAM of the VM (256)", set_memory_mib},
    {"vcpus", "N", "virtual processors, up to 16 (1)", set_vcpus},
    {"cpu", "MODEL", "what they are: pollux-v2 or pollux-v3 (with AVX2); (pollux-v2)", set_cpu},
    {"threads", "M", "threads that run them; no result depends on it (one a vCPU, or a core)",
     set_threads},
    {"engine", "NAME", "auto, jit, interp, or switch: both by turns (auto)", set_engine},
    {"disk", "FILE",
     "a disk, raw or VHDX (*.vhdx, with its parents and an image of a store), written in place; "
     "may be repeated",
     set_disk},
    {"net", "NET",
     "a network card: none (not connected), tap=IF (an existing TAP) or "
     "user[,hostfwd=tcp|udp:PORT-:PORT]...; may be repeated",
     set_net},
    {"console", "stdio[:ttyS0|:hvc0]|FILE",
     "where consoles print; stdio also types (Ctrl-A x quits, "
     "Ctrl-A c monitor)",
     set_console},
    {"record", "DIR", "record the run into a new directory, for `pollux replay`", set_record},
    {"digest", "N", "digest the state every N slices: into the recording, or to stderr",
     set_digest_every},
    {"save-at", "MARK|SLICE FILE",
     "save the state when a console printed MARK, or after a slice; "
     "the run ends there",
     set_save_at},
    {"load", "FILE", "go on from a saved state instead of a kernel", set_load},
    {"chaos", "SEED", "delay and drop everything that must not matter, at random", set_chaos},
    {"shadow", SHADOW_OPT_VALUES,
     "how translations are kept; with several vCPUs results depend on lazy-ad (on, 8, on, on)",
     set_shadow},
    {"stats", NULL, "print counters of rounds and vCPUs at the end", set_stats},
    {"perf-map", NULL, "name translated code for perf, in /tmp/perf-PID.map", set_perf_map},
    {"timeout", "SECONDS", "end the run after this time, with exit code 124", set_timeout_s},
    {0},
};

static const struct opt_command command = {
    .name = "pollux run",
    .arguments = "",
    .summary = "Run one VM on this host. Exit codes: 0 power-off, (v << 1) | 1 debug exit with v,\n"
               "1 usage or host error, 3 triple fault, 4 divergence, 124 timeout.",
    .options = options,
};

static int check_options(struct run_options *o, struct plx_err *err)
{
    if ((o->kernel != NULL) + (o->firmware != NULL) + (o->load != NULL) != 1) {
        return plx_fail(err, PLX_EINVAL,
                        "give one of --kernel, --firmware and --load (see pollux run --help)");
    }
    if (o->firmware != NULL && (o->initrd != NULL || o->append != NULL)) {
        return plx_fail(err, PLX_EINVAL, "--initrd and --append do not go with --firmware");
    }
    if (o->load != NULL &&
        (o->initrd != NULL || o->append != NULL || o->memory_mib != 0 || o->vcpus != 0)) {
        return plx_fail(
            err, PLX_EINVAL,
            "--initrd, --append, --memory and --vcpus do not go with --load: the state has them");
    }
    if (o->vcpus == 0) {
        o->vcpus = 1;
    }
    if (o->firmware != NULL) {
        o->kernel = o->firmware; /* one image or the other: it is recognised by what it holds */
    }
    if (o->memory_mib == 0) {
        o->memory_mib = 256;
    }
    if (o->engine == NULL) {
        o->engine = engine_find("auto");
    }
    return 0;
}

/* --- building the VM ------------------------------------------------------------------------ */

/* Locally administered addresses, one a card. */
static void default_mac(unsigned nic, uint8_t mac[6])
{
    static const uint8_t base[6] = {0x52, 0x54, 0x00, 0x70, 0x78, 0x01};

    memcpy(mac, base, sizeof base);
    mac[5] = (uint8_t)(mac[5] + nic);
}

static int configure_fresh(struct run *r, struct plx_err *err)
{
    struct machine_config *m = &r->cfg.machine;

    (void)err;
    *m = (struct machine_config){.memory = r->o.memory_mib << 20,
                                 .vcpus = (unsigned)r->o.vcpus,
                                 .cpu = r->o.cpu,
                                 .ndisks = r->o.ndisks,
                                 .nnics = r->o.nnets};
    for (unsigned i = 0; i < m->nnics; i++) {
        default_mac(i, m->nics[i].mac);
    }
    for (unsigned i = 0; i < m->ndisks; i++) {
        m->disks[i].sectors = hostio_disk_sectors(r->io, i);
    }
    return 0;
}

/* The state says what the machine is; what was given must fit. */
static int check_loaded(const struct run *r, struct plx_err *err)
{
    const struct machine_config *m = &r->cfg.machine;

    if (r->o.cpu_given && m->cpu != r->o.cpu) {
        return plx_fail(err, PLX_EINVAL, "%s was saved with CPU model %s, --cpu says %s", r->o.load,
                        cpu_model_name(m->cpu), cpu_model_name(r->o.cpu));
    }
    if (m->ndisks != r->o.ndisks) {
        return plx_fail(err, PLX_EINVAL, "%s was saved with %u disks, --disk was given %u times",
                        r->o.load, m->ndisks, r->o.ndisks);
    }
    for (unsigned i = 0; i < m->ndisks; i++) {
        if (m->disks[i].sectors != hostio_disk_sectors(r->io, i)) {
            return plx_fail(err, PLX_EINVAL,
                            "%s was saved with a disk %u of %" PRIu64 " sectors, %s has %" PRIu64,
                            r->o.load, i, m->disks[i].sectors, r->o.disks[i],
                            hostio_disk_sectors(r->io, i));
        }
    }
    return 0;
}

static int open_host(struct run *r, struct plx_err *err)
{
    struct hostio_config h = {.nnics = r->o.nnets, .ndisks = r->o.ndisks};
    bool stdio = r->o.console == NULL;

    for (unsigned i = 0; i < NICS_MAX; i++) {
        h.nets[i] =
            i < r->o.nnets ? r->o.nets[i] : (struct hostio_net){.kind = HOSTIO_NET_NONE, .fd = -1};
    }
    if (r->o.load != NULL) { /* cards of the state that were not given are not connected */
        if (r->o.nnets > r->cfg.machine.nnics) {
            return plx_fail(err, PLX_EINVAL,
                            "%s was saved with %u network cards, --net was given %u "
                            "times",
                            r->o.load, r->cfg.machine.nnics, r->o.nnets);
        }
        h.nnics = r->cfg.machine.nnics;
    }
    for (unsigned i = 0; i < r->o.ndisks; i++) {
        h.disks[i].path = r->o.disks[i];
        if (i == 0 && r->image != NULL) {
            h.disks[i].base = r->image->base;
            h.disks[i].overlay = r->image->overlay;
            h.disks[i].create_overlay = r->image->create_overlay;
        }
        if (r->recording != NULL) {
            h.disks[i].overlay = recording_overlay(r->recording, i);
            h.disks[i].create_overlay = true;
        }
    }
    h.console = stdio ? HOSTIO_CONSOLE_STDIO : HOSTIO_CONSOLE_FILE;
    h.console_path = r->o.console;
    h.console_ports = 1u << CONSOLE_SERIAL0 | 1u << CONSOLE_VIRTIO0;
    h.console_input = r->o.console_input;
    return hostio_create(&h, &r->io, err);
}

static int open_recording(struct run *r, struct plx_err *err)
{
    struct recording_config c = {.dir = r->o.record,
                                 .kernel = r->o.kernel,
                                 .initrd = r->o.initrd,
                                 .cmdline = r->o.append,
                                 .state = r->o.load};

    if (r->o.record == NULL) {
        return 0;
    }
    for (unsigned i = 0; i < r->o.ndisks; i++) {
        c.disks[i] = r->o.disks[i];
        if (image_disk_path(c.disks[i])) {
            return plx_fail(err, PLX_ENOTSUP,
                            "--record does not go with %s: make a disk over it (`pollux disk "
                            "create --parent %s`), or `pollux image export` it",
                            c.disks[i], c.disks[i]);
        }
    }
    return recording_create(&c, &r->recording, err);
}

static int boot(struct run *r, struct plx_err *err)
{
    struct wbuf kernel, initrd;
    struct boot_config b = {.cmdline = r->o.append};
    bool own = r->image != NULL && r->o.kernel == r->image->name;
    int rc = 0;

    wbuf_init(&kernel);
    wbuf_init(&initrd);
    if (own) {
        b.kernel = (struct boot_image){r->image->kernel, r->image->kernel_len};
        b.initrd = (struct boot_image){r->image->initrd, r->image->initrd_len};
    } else {
        rc = io_read_file(r->o.kernel, IMAGE_MAX, &kernel, err);
        b.kernel = (struct boot_image){kernel.data, kernel.len};
    }
    if (rc != 0) {
        return plx_err_wrap(err, rc, "kernel");
    }
    if (r->o.initrd != NULL) {
        rc = io_read_file(r->o.initrd, IMAGE_MAX, &initrd, err);
        if (rc != 0) {
            (void)plx_err_wrap(err, rc, "initrd");
        }
        b.initrd =
            (struct boot_image){initrd.len == 0 ? (const void *)"" : initrd.data, initrd.len};
    }
    if (rc == 0) {
        rc = boot_load(vm_machine(r->vm), &vm_vcpu(r->vm, 0)->c, &b, err);
    }
    if (rc == 0) {
        r->cfg.engine->state_changed(vm_vcpu(r->vm, 0));
    }
    wbuf_free(&initrd);
    wbuf_free(&kernel);
    return rc;
}

static int load(struct run *r, struct plx_err *err)
{
    struct output_list again;
    int rc = vm_load(r->vm, r->o.load, err);

    if (rc != 0) {
        return rc;
    }
    bool lazy = vm_lazy_ad(r->vm);
    if (r->o.lazy_ad_named && r->cfg.machine.vcpus > 1 && r->o.shadow.lazy_ad != lazy) {
        return plx_fail(err, PLX_EINVAL, "%s was saved with lazy-ad=%s, not %s", r->o.load,
                        lazy ? "on" : "off", lazy ? "off" : "on");
    }
    output_list_init(&again);
    virtio_blk_reissue(vm_machine(r->vm), &again);
    rc = hostio_submit(r->io, &again, err);
    output_list_free(&again);
    return rc;
}

static int open_all(struct run *r, struct plx_err *err)
{
    int rc = 0;

    r->cfg.engine = r->o.engine;
    r->cfg.chaos = r->o.chaos;
    r->cfg.shadow = &r->o.shadow;
    r->cfg.threads = (unsigned)r->o.threads;
    if (r->o.load != NULL) {
        rc = vm_load_config(r->o.load, &r->cfg.machine, err);
    }
    if (rc == 0) {
        rc = open_recording(r, err);
    }
    if (rc == 0) {
        rc = open_host(r, err);
    }
    if (rc == 0) {
        rc = r->o.load != NULL ? check_loaded(r, err) : configure_fresh(r, err);
    }
    if (rc == 0) {
        r->cfg.host = (struct machine_host){.disk_result = hostio_disk_result, .ctx = r->io};
        rc = vm_create(&r->cfg, &r->vm, err);
    }
    if (rc == 0) {
        rc = r->o.load != NULL ? load(r, err) : boot(r, err);
    }
    if (rc == 0 && r->recording != NULL) {
        rc = recording_begin(r->recording, r->vm, &r->cfg, err);
    }
    return rc;
}

static int close_all(struct run *r, struct plx_err *err)
{
    vm_destroy(r->vm);
    if (r->image != NULL) {
        r->image->stopping(r->image->ctx);
    }
    hostio_destroy(r->io); /* the terminal is itself again */
    return recording_close(r->recording, err);
}

/* --- running -------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_signal(int signo)
{
    (void)signo;
    interrupted = 1;
}

static void catch_signals(void)
{
    struct sigaction quit = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};

    (void)sigaction(SIGINT, &quit, NULL);
    (void)sigaction(SIGTERM, &quit, NULL);
    (void)sigaction(SIGHUP, &quit, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
}

static int exit_code(const struct runner_result *result, const char *where)
{
    switch (result->end) {
    case RUNNER_QUIT:
    case RUNNER_SAVED:
        return EXIT_OK;
    case RUNNER_TIMEOUT:
        (void)fprintf(stderr, "pollux: timeout: %s\n", where);
        return EXIT_TIMEOUT;
    case RUNNER_STOPPED:
        break;
    }
    switch (result->event) {
    case POWER_OFF:
        return EXIT_OK;
    case POWER_RESET:
        (void)fprintf(stderr, "pollux: the guest reset the machine: %s\n", where);
        return EXIT_OK;
    case POWER_DEBUG_EXIT:
        return (int)(result->code & 0xff);
    case POWER_TRIPLE_FAULT:
        (void)fprintf(stderr, "pollux: triple fault: %s\n", where);
        return EXIT_TRIPLE_FAULT;
    }
    return EXIT_ERROR;
}

static int fail(int rc, const struct plx_err *err)
{
    (void)fprintf(stderr, "pollux: %s\n", err->msg[0] != 0 ? err->msg : plx_strerror(rc));
    return rc == PLX_EDIVERGED ? EXIT_DIVERGED : EXIT_ERROR;
}

const struct opt *cmd_run_options(void)
{
    return options;
}

/* The image is the first disk, and boots itself unless a kernel or a state is given. */
static int use_image(struct run *r, struct plx_err *err)
{
    struct run_options *o = &r->o;

    if (o->record != NULL) {
        return plx_fail(
            err, PLX_ENOTSUP,
            "--record does not go with an image: `pollux image export` it and run that");
    }
    if (o->ndisks == DISKS_MAX) {
        return plx_fail(err, PLX_ERANGE, "more than %d disks", DISKS_MAX);
    }
    memmove(o->disks + 1, o->disks, o->ndisks * sizeof *o->disks);
    o->disks[0] = r->image->name;
    o->ndisks++;
    if (o->kernel == NULL && o->firmware == NULL && o->load == NULL) {
        if (r->image->kernel_len == 0) {
            return plx_fail(err, PLX_EINVAL, "image %s has no kernel: give --kernel",
                            r->image->name);
        }
        o->kernel = r->image->name;
    }
    if (o->load == NULL && o->firmware == NULL && o->append == NULL) {
        o->append = r->image->cmdline;
    }
    return 0;
}

int cmd_run(int argc, char **argv)
{
    return cmd_run_image(argc, argv, NULL);
}

int cmd_run_image(int argc, char **argv, const struct run_image *image)
{
    struct run r = {.image = image, .o.shadow = SHADOW_DEFAULT};
    struct plx_err err = {{0}}, close_err = {{0}};
    struct runner_config rc_cfg = {0};
    struct runner_result result = {0};
    char where[256] = "";
    int first, rc, close_rc;

    rc = opt_parse(&command, &r.o, argc, argv, &first, &err);
    if (rc == OPT_HELP) {
        return EXIT_OK;
    }
    if (rc == 0 && image != NULL) {
        rc = use_image(&r, &err);
    }
    if (rc == 0) {
        rc = check_options(&r.o, &err);
    }
    if (rc == 0 && r.o.perf_map) {
        rc = jit_perf_map(&err);
    }
    if (rc != 0) {
        return fail(rc, &err);
    }
    catch_signals();
    chaos_start(r.o.chaos);
    rc = open_all(&r, &err);
    if (rc == 0) {
        rc_cfg = (struct runner_config){
            .vm = r.vm,
            .io = r.io,
            .recording = r.recording,
            .digest_every = r.o.digest_every != 0 ? r.o.digest_every
                            : r.recording != NULL ? DIGEST_EVERY_SLICES
                                                  : 0,
            .print_digests = r.o.digest_every != 0 && r.recording == NULL,
            .save_path = r.o.save_path,
            .save_mark = image != NULL && image->until != NULL ? image->until : r.o.save_mark,
            .save_slice = r.o.save_slice,
            .timeout_ns = r.o.timeout_s * UINT64_C(1000000000),
            .console_input = r.o.console_input,
            .interrupted = &interrupted,
        };
        rc = runner_run(&rc_cfg, &result, &err);
        runner_describe(r.vm, where, sizeof where);
        if (r.o.stats) {
            runner_print_counters(r.vm, stderr);
        }
    }
    if (chaos_on) {
        char line[CHAOS_SUMMARY];

        (void)fprintf(stderr, "chaos: %s\n", chaos_summary(line));
    }
    close_rc = close_all(&r, &close_err);
    if (rc == 0 && close_rc != 0) {
        rc = close_rc;
        err = close_err;
    }
    return rc != 0 ? fail(rc, &err) : exit_code(&result, where);
}
