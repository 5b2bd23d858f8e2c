/* SPDX-License-Identifier: Apache-2.0
 * ops/runner.c - the loop of `pollux run` (runner.h). */
#include "ops/runner.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/chaos.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "ops/monitor.h"
#include "ops/shadow_opt.h"
#include "vmm/sched/pacer.h"
#include "vmm/tunables.h"

#define MAX_WAIT_NS  UINT64_C(500000000) /* so that a signal or the time limit is seen soon */
#define LONG_WAIT_NS UINT64_C(50000000)  /* before this the log is made durable */
enum { ENTROPY_BYTES = 64 };

/* Finds a text in what one console port prints, across slices. */
struct mark {
    const char *text;
    size_t matched[CONSOLE_PORTS]; /* length of the longest prefix of text that ends the output */
    size_t *fallback;              /* of the Knuth-Morris-Pratt search */
    bool seen;
};

struct runner {
    const struct runner_config *cfg;
    struct runner_result *result;
    struct input_batch batch; /* for the next record */
    struct output_list out;
    struct pacer pacer;
    struct mark mark;
    uint64_t deadline_ns;
    uint64_t digests, digest_ns; /* taken, and their processor time */
    bool done;
};

static int mark_init(struct mark *m, const char *text, struct plx_err *err)
{
    size_t len = text == NULL ? 0 : strlen(text);

    m->text = text;
    if (len == 0) {
        return 0;
    }
    m->fallback = plx_calloc(len + 1, sizeof *m->fallback);
    if (m->fallback == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    for (size_t i = 1, k = 0; i < len; i++) {
        while (k > 0 && text[i] != text[k]) {
            k = m->fallback[k];
        }
        k += text[i] == text[k];
        m->fallback[i + 1] = k;
    }
    return 0;
}

static void mark_feed(struct mark *m, unsigned port, const uint8_t *bytes, size_t len)
{
    size_t k;

    if (m->text == NULL || port >= CONSOLE_PORTS) {
        return;
    }
    k = m->matched[port];
    for (size_t i = 0; i < len && !m->seen; i++) {
        while (k > 0 && (char)bytes[i] != m->text[k]) {
            k = m->fallback[k];
        }
        k += (char)bytes[i] == m->text[k];
        m->seen = m->text[k] == 0;
    }
    m->matched[port] = k;
}

void runner_describe(struct vm *vm, char *out, size_t cap)
{
    const struct cpu *c = &vm_vcpu(vm, 0)->c;

    (void)snprintf(out, cap,
                   "slice %" PRIu64 ", virtual time %" PRIu64 ".%03u s, %" PRIu64
                   " instructions, %s, rip 0x%" PRIx64,
                   vm_seq(vm), vm_now(vm) / 1000000000, (unsigned)(vm_now(vm) / 1000000 % 1000),
                   vm_retired(vm), vm_idle(vm) ? "idle" : "busy", c->rip);
}

void runner_print_counters(struct vm *vm, FILE *to)
{
    struct vm_counters c;

    vm_counters(vm, &c);
    (void)fprintf(
        to,
        "rounds: %" PRIu64 " alone (%" PRIu64 " handed over), %" PRIu64 " parallel (%" PRIu64
        " served), %" PRIu64 " shared; instructions: %" PRIu64 " parallel, %" PRIu64
        " serial; %u threads, %" PRIu64 " parts together, %" PRIu64 " waits slept\n",
        c.rounds_alone, c.handed_over, c.rounds_parallel, c.rounds_served, c.rounds_shared,
        c.parallel_retired, c.serial_retired, c.threads, c.parts_together, c.waits_slept);
    (void)fprintf(to,
                  "rounds ended: %" PRIu64 " clock, %" PRIu64 " halt, %" PRIu64 " blocked, %" PRIu64
                  " yield, %" PRIu64 " budget\n",
                  c.ended.clock, c.ended.halt, c.ended.blocked, c.ended.yield, c.ended.budget);
    if (c.owner.to_exclusive != 0) {
        (void)fprintf(to,
                      "pages: %" PRIu64 " to one vCPU, %" PRIu64 " to all, %" PRIu64
                      " writes in place, %" PRIu64 " cooled\n",
                      c.owner.to_exclusive, c.owner.to_shared, c.owner.in_place, c.owner.cooled);
    }
    for (unsigned i = 0; i < vm_machine(vm)->cfg.vcpus; i++) {
        const struct vm_vcpu_counters *v = &c.vcpu[i];

        (void)fprintf(to,
                      "vcpu%u: %" PRIu64 " instructions; stops: %" PRIu64 " read, %" PRIu64
                      " write, %" PRIu64 " serial, %" PRIu64 " halt, %" PRIu64 " yield\n",
                      i, vm_vcpu(vm, i)->c.retired, v->lacks_read, v->lacks_write, v->needs_serial,
                      v->halts, v->yields);
    }
    shadow_print_counters(&c.shadow, to);
    char forms[JIT_FORMS_TEXT];
    (void)fprintf(
        to,
        "interpreted: %" PRIu64 " not translated, %" PRIu64 " translated but for what they "
        "met, %" PRIu64 " in cold blocks; not translated: %s\n",
        c.jit.called, c.jit.missed, c.jit.interpreted, jit_forms_text(&c.jit, forms, sizeof forms));
}

static void end(struct runner *r, enum runner_end how)
{
    r->result->end = how;
    r->done = true;
}

static int save(struct runner *r, const char *path, struct plx_err *err)
{
    int rc = hostio_drain(r->cfg->io, err);

    return rc != 0 ? rc : vm_save(r->cfg->vm, path, err);
}

/* What every run begins with: the guest's seed, and what its clock shows. */
static int first_inputs(struct runner *r, struct plx_err *err)
{
    uint8_t entropy[ENTROPY_BYTES];
    const struct input inputs[] = {
        {.kind = INPUT_ENTROPY, .data = entropy, .len = sizeof entropy},
        {.kind = INPUT_WALLCLOCK, .arg = clock_wall_ns()},
    };

    host_random(entropy, sizeof entropy);
    for (unsigned i = 0; i < PLX_COUNT(inputs); i++) {
        int rc = input_batch_add(&r->batch, &inputs[i]);

        if (rc != 0) {
            return plx_fail(err, rc, "out of memory");
        }
    }
    return 0;
}

static int take_digest(struct runner *r, struct plx_err *err)
{
    const uint64_t scrub_slices = SCRUB_NS / SLICE_SPAN_NS / r->cfg->digest_every;
    struct vm *vm = r->cfg->vm;
    struct vm_digest d;
    const struct digest_page *pages;
    size_t npages;
    char hex[HASH128_HEX];
    uint64_t began = clock_thread_cpu_ns();

    vm_digest(vm, ram_pages(vm_machine(vm)->ram) / (scrub_slices + 1) + 1, &d, &pages, &npages);
    r->digest_ns += clock_thread_cpu_ns() - began;
    r->digests++;
    if (r->cfg->print_digests) {
        (void)fprintf(stderr, "digest %" PRIu64 " %s\n", d.seq, hash128_hex(d.all, hex));
    }
    return r->cfg->recording == NULL ? 0
                                     : recording_digest(r->cfg->recording, &d, pages, npages, err);
}

static int after_slice(struct runner *r, struct plx_err *err)
{
    const struct runner_config *cfg = r->cfg;
    uint64_t seq = vm_seq(cfg->vm);
    int rc;

    for (size_t i = 0; i < r->out.n; i++) {
        const struct output *o = &r->out.items[i];

        if (o->kind == OUTPUT_CONSOLE) {
            mark_feed(&r->mark, o->dev, output_data(&r->out, o), o->len);
        }
    }
    chaos_delay(CHAOS_RAN);
    rc = hostio_submit(cfg->io, &r->out, err);
    if (rc == 0) {
        chaos_delay(CHAOS_RELEASE);
        rc = hostio_release(cfg->io, &r->out, err);
    }
    if (rc == 0 && cfg->digest_every != 0 && seq % cfg->digest_every == 0) {
        rc = take_digest(r, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (vm_stopped(cfg->vm, &r->result->event, &r->result->code)) {
        end(r, RUNNER_STOPPED);
    } else if (cfg->save_path != NULL &&
               (cfg->save_mark != NULL ? r->mark.seen : seq == cfg->save_slice)) {
        end(r, RUNNER_SAVED);
        return save(r, cfg->save_path, err);
    } else if (cfg->save_path == NULL && r->mark.seen) {
        end(r, RUNNER_QUIT);
    }
    return 0;
}

static int run_slice(struct runner *r, const struct pacer_step *step, struct plx_err *err)
{
    const struct runner_config *cfg = r->cfg;
    struct record record = {.seq = vm_seq(cfg->vm) + 1,
                            .start_ns = step->start_ns,
                            .span_ns = step->span_ns,
                            .rate = step->rate};
    int rc = 0;

    if (step->jump) {
        rc = input_batch_add(&r->batch, &(struct input){.kind = INPUT_JUMP});
        if (rc != 0) {
            return plx_fail(err, rc, "out of memory");
        }
    }
    record.ninputs = (uint32_t)r->batch.n;
    record.inputs = r->batch.items;
    if (cfg->recording != NULL) {
        rc = recording_append(cfg->recording, &record, err);
    }
    output_list_clear(&r->out);
    chaos_delay(CHAOS_SEALED);
    if (rc == 0) {
        rc = vm_slice(cfg->vm, &record, &r->out, err);
    }
    input_batch_clear(&r->batch);
    return rc != 0 ? rc : after_slice(r, err);
}

static void print_raw(void *ctx, const char *text)
{
    (void)ctx;
    (void)io_write_full(STDOUT_FILENO, text, strlen(text));
}

static void monitor_info(struct runner *r)
{
    struct hostio_stats s;
    char line[256];

    runner_describe(r->cfg->vm, line, sizeof line);
    print_raw(NULL, line);
    hostio_stats(r->cfg->io, &s);
    (void)snprintf(line, sizeof line,
                   "\r\nnet: %" PRIu64 " frames in, %" PRIu64 " out, %" PRIu64
                   " dropped; disks: %" PRIu64 " requests\r\n",
                   s.net_rx, s.net_tx, s.net_tx_dropped, s.disk_requests);
    print_raw(NULL, line);
    (void)snprintf(line, sizeof line, "digests: %" PRIu64 " in %" PRIu64 " us of a processor\r\n",
                   r->digests, r->digest_ns / 1000);
    print_raw(NULL, line);
    fflush(stdout);
    runner_print_counters(r->cfg->vm, stdout);
    fflush(stdout);
    if (r->cfg->recording != NULL) {
        (void)snprintf(line, sizeof line, "log: %" PRIu64 " bytes\r\n",
                       recording_log_bytes(r->cfg->recording));
        print_raw(NULL, line);
    }
}

/* One command line's worth of the monitor; true when the VM goes on (or ends). */
static bool monitor_act(struct runner *r, struct monitor *m, enum monitor_action action)
{
    struct plx_err err;

    switch (action) {
    case MONITOR_MORE:
        return false;
    case MONITOR_INFO:
        monitor_info(r);
        break;
    case MONITOR_SAVE: /* a failure is the user's to see; the VM goes on */
        if (save(r, m->argument, &err) != 0) {
            print_raw(NULL, err.msg);
        } else {
            print_raw(NULL, "saved");
        }
        break;
    case MONITOR_CONTINUE:
        return true;
    case MONITOR_QUIT:
        end(r, RUNNER_QUIT);
        return true;
    }
    monitor_open(m);
    return false;
}

/* The VM stands; typed bytes go to the monitor, every other input waits for the next record. */
static int monitor(struct runner *r, struct plx_err *err)
{
    struct monitor m = {.print = print_raw};
    struct input_batch typed;
    bool leave = false;
    int rc = 0;

    input_batch_init(&typed);
    monitor_open(&m);
    while (!leave && rc == 0 && (r->cfg->interrupted == NULL || *r->cfg->interrupted == 0)) {
        input_batch_clear(&typed);
        rc = hostio_poll(r->cfg->io, MAX_WAIT_NS, &typed, err);
        if ((hostio_events(r->cfg->io) & HOSTIO_QUIT) != 0) {
            end(r, RUNNER_QUIT);
            leave = true;
        }
        for (size_t i = 0; i < typed.n && rc == 0; i++) {
            const struct input *in = &typed.items[i];

            if (in->kind != INPUT_CONSOLE_RX || in->dev != r->cfg->console_input) {
                rc = input_batch_add(&r->batch, in);
                continue;
            }
            for (size_t at = 0, used; at < in->len && !leave; at += used) {
                leave = monitor_act(r, &m, monitor_feed(&m, in->data + at, in->len - at, &used));
            }
        }
    }
    input_batch_free(&typed);
    print_raw(NULL, "\r\n");
    pacer_init(&r->pacer, clock_mono_ns(), vm_now(r->cfg->vm)); /* it was not the guest's time */
    return rc;
}

static int events(struct runner *r, struct plx_err *err)
{
    unsigned e = hostio_events(r->cfg->io);

    if ((e & HOSTIO_QUIT) != 0 || (r->cfg->interrupted != NULL && *r->cfg->interrupted != 0)) {
        end(r, RUNNER_QUIT);
    } else if (clock_mono_ns() >= r->deadline_ns) {
        end(r, RUNNER_TIMEOUT);
    } else if ((e & HOSTIO_MONITOR) != 0) {
        return monitor(r, err);
    }
    return 0;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int loop(struct runner *r, struct plx_err *err)
{
    const struct runner_config *cfg = r->cfg;
    uint64_t wait = 0;
    int rc = first_inputs(r, err);

    while (rc == 0 && !r->done) {
        struct pacer_view view = {0};
        struct pacer_step step;
        uint64_t now;

        if (wait > LONG_WAIT_NS && cfg->recording != NULL) {
            rc = recording_flush(cfg->recording, err);
        }
        chaos_delay(CHAOS_GATHER);
        if (rc == 0 && r->batch.n < HOSTIO_BATCH_INPUTS &&
            r->batch.bytes.len < HOSTIO_BATCH_BYTES) {
            rc = hostio_poll(cfg->io, wait, &r->batch, err);
        } else {
            clock_sleep_ns(min_u64(wait, SLICE_SPAN_NS));
        }
        if (rc == 0) {
            rc = events(r, err);
        }
        if (rc != 0 || r->done) {
            break;
        }
        now = clock_mono_ns();
        view.host_ns = now;
        view.virt_ns = vm_now(cfg->vm);
        view.progress = vm_clocked(cfg->vm);
        view.idle = vm_idle(cfg->vm);
        view.next_timer = vm_next_timer(cfg->vm);
        view.input = r->batch.n != 0;
        pacer_next(&r->pacer, &view, &step);
        wait = min_u64(step.wait_ns, MAX_WAIT_NS);
        if (step.wait_ns == 0) {
            rc = run_slice(r, &step, err);
        } else if (r->deadline_ns > now) {
            wait = min_u64(wait, r->deadline_ns - now);
        }
    }
    return rc;
}

int runner_run(const struct runner_config *cfg, struct runner_result *out, struct plx_err *err)
{
    struct runner r = {.cfg = cfg, .result = out};
    uint64_t now = clock_mono_ns();
    int rc = mark_init(&r.mark, cfg->save_mark, err);

    *out = (struct runner_result){0};
    if (rc != 0) {
        return rc;
    }
    input_batch_init(&r.batch);
    output_list_init(&r.out);
    r.deadline_ns = cfg->timeout_ns == 0 ? UINT64_MAX : now + cfg->timeout_ns;
    pacer_init(&r.pacer, now, vm_now(cfg->vm));
    rc = loop(&r, err);
    if (rc == 0 && cfg->digest_every != 0 && vm_seq(cfg->vm) % cfg->digest_every != 0) {
        rc = take_digest(&r, err); /* however short it was, the run ends with one */
    }
    output_list_free(&r.out);
    input_batch_free(&r.batch);
    plx_free(r.mark.fallback);
    return rc;
}
