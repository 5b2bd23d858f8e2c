/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/steady.c - runs a guest with no host in it: every slice at the same rate, no pacing,
 * fixed entropy and date, no disk, no network. So each run of one guest is the same to the bit,
 * whatever --threads, --chaos and --cache say, and what a guest measures by its own clock is
 * progress, not how busy this host is.
 *
 *   steady KERNEL INITRD CMDLINE|load=STATE [engine=NAME] [vcpus=N] [threads=M] [memory=MIB]
 *          [cpu=MODEL] [rate=N] [chaos=SEED] [cache=N] [slices=N] [until=TEXT] [digests=FILE]
 *          [every=N] [perf=map]
 *
 * rate: as in a record, by default that of 5 ns per progress; the guest's timers come as often as
 * on this host at what one progress takes here.
 *
 * Prints the console; after each of its lines that begins with "work ", what happened since the
 * line before (counters of rounds, processor time of this process). Ends when the guest does, or
 * after a line with TEXT. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/io.h"
#include "vmm/boot/boot.h"
#include "vmm/sched/vm.h"
#include "vmm/tunables.h"

enum { LINE_MAX_LEN = 512 };

struct steady {
    struct vm *vm;
    char line[LINE_MAX_LEN];
    size_t len;
    struct vm_counters last;
    uint64_t last_clocked, last_progress, last_retired;
    double last_cpu;
    const char *until; /* NULL: only the guest ends the run */
    bool seen;
};

static void die(const char *what, const struct plx_err *err)
{
    (void)fprintf(stderr, "steady: %s: %s\n", what, err->msg);
    exit(1);
}

static double cpu_seconds(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void note(struct steady *s)
{
    vm_counters(s->vm, &s->last);
    s->last_clocked = vm_clocked(s->vm);
    s->last_progress = vm_progress(s->vm);
    s->last_retired = vm_retired(s->vm);
    s->last_cpu = cpu_seconds();
}

static void report(struct steady *s)
{
    struct vm_counters c;
    uint64_t clocked = vm_clocked(s->vm) - s->last_clocked;
    uint64_t progress = vm_progress(s->vm) - s->last_progress, stops = 0;
    uint64_t retired = vm_retired(s->vm) - s->last_retired;
    double cpu = cpu_seconds() - s->last_cpu;

    vm_counters(s->vm, &c);
    for (unsigned i = 0; i < vm_machine(s->vm)->cfg.vcpus; i++) {
        stops += c.vcpu[i].lacks_read + c.vcpu[i].lacks_write + c.vcpu[i].needs_serial -
                 s->last.vcpu[i].lacks_read - s->last.vcpu[i].lacks_write -
                 s->last.vcpu[i].needs_serial;
    }
    printf("  [%.1f M clocked, %.1f M run, %.2f at once; %" PRIu64 " alone (%" PRIu64
           " handed over), %" PRIu64 " parallel (%" PRIu64 " served), %" PRIu64 " shared; %" PRIu64
           " stops; pages %" PRIu64 " taken %" PRIu64 " shared %" PRIu64
           " in place; %.1f M instructions, cpu %.3f s, %.0f M/s]\n",
           (double)clocked / 1e6, (double)progress / 1e6, (double)progress / (double)clocked,
           c.rounds_alone - s->last.rounds_alone, c.handed_over - s->last.handed_over,
           c.rounds_parallel - s->last.rounds_parallel, c.rounds_served - s->last.rounds_served,
           c.rounds_shared - s->last.rounds_shared, stops,
           c.owner.to_exclusive - s->last.owner.to_exclusive,
           c.owner.to_shared - s->last.owner.to_shared, c.owner.in_place - s->last.owner.in_place,
           (double)retired / 1e6, cpu, (double)retired / 1e6 / cpu);
}

/* Of the whole run: what the translator left to the interpreter, and what the shadow tables did. */
static void print_whole(struct steady *s)
{
    struct vm_counters c;
    char forms[JIT_FORMS_TEXT];

    vm_counters(s->vm, &c);
    printf("  [interpreted: %" PRIu64 " not translated, %" PRIu64 " translated, %" PRIu64
           " cold; %s]\n",
           c.jit.called, c.jit.missed, c.jit.interpreted,
           jit_forms_text(&c.jit, forms, sizeof forms));
    printf("  [shadow:");
#define X(name, text) printf(" " #name "=%" PRIu64, c.shadow.name);
    SHADOW_COUNTERS(X)
#undef X
    printf("]\n");
}

static void print(struct steady *s, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\r') {
            continue;
        }
        if (s->len < LINE_MAX_LEN - 1) {
            s->line[s->len++] = (char)bytes[i];
        }
        if (bytes[i] != '\n') {
            continue;
        }
        s->line[s->len] = '\0';
        (void)fputs(s->line, stdout);
        if (strncmp(s->line, "work ", 5) == 0 || strstr(s->line, "pollux:") != NULL) {
            report(s);
            note(s);
        }
        s->seen = s->seen || (s->until != NULL && strstr(s->line, s->until) != NULL);
        s->len = 0;
        (void)fflush(stdout);
    }
}

static struct boot_image image(const char *path)
{
    struct plx_err err = {{0}};
    struct wbuf w;

    if (io_read_file(path, 1 << 30, &w, &err) != 0) {
        die(path, &err);
    }
    return (struct boot_image){w.data, w.len};
}

/* Makes the VM and gives it what it begins with: the state @load, or the kernel argv[1] to [3]. */
static void start(struct steady *s, const struct vm_config *cfg, const char *load, char **argv)
{
    struct boot_config boot = {0};
    struct plx_err err = {{0}};

    if (vm_create(cfg, &s->vm, &err) != 0) {
        die("cannot start", &err);
    }
    if (load != NULL) {
        if (vm_load(s->vm, load, &err) != 0) {
            die(load, &err);
        }
    } else {
        boot.kernel = image(argv[1]);
        boot.initrd = image(argv[2]);
        boot.cmdline = argv[3];
        if (boot_load(vm_machine(s->vm), &vm_vcpu(s->vm, 0)->c, &boot, &err) != 0) {
            die("cannot start", &err);
        }
        cfg->engine->state_changed(vm_vcpu(s->vm, 0));
    }
    note(s);
}

int main(int argc, char **argv)
{
    static const uint8_t entropy[32] = "thirty-two bytes of entropy.....";
    static struct steady s;
    const struct input inputs[2] = {
        {.kind = INPUT_ENTROPY, .data = entropy, .len = sizeof entropy},
        {.kind = INPUT_WALLCLOCK, .arg = UINT64_C(1700000000000000000)}};
    struct vm_config cfg = {.machine = {.memory = 256 << 20, .vcpus = 1},
                            .engine = engine_find("auto")};
    const char *load = argc > 1 && strncmp(argv[1], "load=", 5) == 0 ? argv[1] + 5 : NULL;
    struct output_list out;
    struct plx_err err = {{0}};
    uint64_t slices = UINT64_MAX, every = 64;
    FILE *digests = NULL;
    uint32_t rate = 5 * RATE_ONE;

    if (argc < (load != NULL ? 2 : 4)) {
        (void)fprintf(stderr, "usage: steady KERNEL INITRD CMDLINE|load=STATE [NAME=VALUE]...\n");
        return 1;
    }
    if (load != NULL && vm_load_config(load, &cfg.machine, &err) != 0) {
        die(load, &err);
    }
    for (int i = load != NULL ? 2 : 4; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        uint64_t n = value == NULL ? 0 : strtoull(value + 1, NULL, 10);
        if (strncmp(argv[i], "vcpus=", 6) == 0) {
            cfg.machine.vcpus = (unsigned)n;
        } else if (strncmp(argv[i], "threads=", 8) == 0) {
            cfg.threads = (unsigned)n;
        } else if (strncmp(argv[i], "engine=", 7) == 0) {
            cfg.engine = engine_find(value + 1);
        } else if (strncmp(argv[i], "until=", 6) == 0) {
            s.until = value + 1;
        } else if (strncmp(argv[i], "memory=", 7) == 0) {
            cfg.machine.memory = n << 20;
        } else if (strncmp(argv[i], "cpu=", 4) == 0 &&
                   cpu_model_find(value + 1, &cfg.machine.cpu)) {
            continue;
        } else if (strncmp(argv[i], "chaos=", 6) == 0) {
            cfg.chaos = n;
        } else if (strncmp(argv[i], "cache=", 6) == 0) {
            cfg.cache_entries = (unsigned)n;
        } else if (strncmp(argv[i], "slices=", 7) == 0) {
            slices = n;
        } else if (strncmp(argv[i], "rate=", 5) == 0 && n >= 1 && n <= RATE_MAX) {
            rate = (uint32_t)n;
        } else if (strncmp(argv[i], "every=", 6) == 0 && n > 0) {
            every = n;
        } else if (strncmp(argv[i], "digests=", 8) == 0) {
            digests = fopen(value + 1, "we");
        } else if (strcmp(argv[i], "perf=map") == 0) {
            if (jit_perf_map(&err) != 0) {
                die(argv[i], &err);
            }
        } else {
            (void)fprintf(stderr, "steady: what is %s?\n", argv[i]);
            return 1;
        }
    }
    if (cfg.engine == NULL) {
        (void)fprintf(stderr, "steady: there is no such engine\n");
        return 1;
    }
    start(&s, &cfg, load, argv);
    output_list_init(&out);
    while (!vm_stopped(s.vm, NULL, NULL) && vm_seq(s.vm) < slices && !s.seen) {
        uint64_t now = vm_now(s.vm), timer = vm_next_timer(s.vm);
        struct record r = {.seq = vm_seq(s.vm) + 1,
                           .start_ns = vm_idle(s.vm) && timer > now ? timer : now,
                           .span_ns = SLICE_SPAN_NS,
                           .rate = rate,
                           .inputs = inputs,
                           .ninputs = vm_seq(s.vm) == 0 ? 2 : 0};
        if (r.start_ns == UINT64_MAX) {
            (void)fprintf(stderr, "steady: nothing will ever wake the guest\n");
            break;
        }
        output_list_clear(&out);
        if (vm_slice(s.vm, &r, &out, &err) != 0) {
            die("slice", &err);
        }
        for (size_t i = 0; i < out.n; i++) {
            if (out.items[i].kind == OUTPUT_CONSOLE) {
                print(&s, output_data(&out, &out.items[i]), out.items[i].len);
            }
        }
        if (digests != NULL && r.seq % every == 0) {
            struct vm_digest d;
            char hex[HASH128_HEX];
            vm_digest(s.vm, 0, &d, NULL, NULL);
            (void)fprintf(digests, "%" PRIu64 " %s\n", d.seq, hash128_hex(d.all, hex));
        }
    }
    print_whole(&s);
    printf("%" PRIu64 " slices, %" PRIu64 " virtual ms\n", vm_seq(s.vm), vm_now(s.vm) / 1000000);
    output_list_free(&out);
    vm_destroy(s.vm);
    return digests != NULL && fclose(digests) != 0 ? 1 : 0;
}
