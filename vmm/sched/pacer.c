/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/pacer.c - see pacer.h. */
#include "vmm/sched/pacer.h"

#include "vmm/dev/timer.h"
#include "vmm/tunables.h"

/* A slice's speed enters the average with this share. */
enum { AVERAGE_SHARE = 4 };
/* One slow slice counts as at most this much, so that a hiccup does not look like a slow host. */
#define MEASURED_MAX (UINT64_C(4) * RATE_MAX)

void pacer_init(struct pacer *p, uint64_t host_ns, uint64_t virt_ns)
{
    *p = (struct pacer){.offset = (int64_t)(virt_ns - host_ns),
                        .measured = RATE_DEFAULT,
                        .host_ns = host_ns,
                        .virt_ns = virt_ns};
}

/* What the last slice took, everything around it included, since that too passes on the host. */
static void measure(struct pacer *p, const struct pacer_view *v)
{
    uint64_t took = v->host_ns - p->host_ns;
    uint64_t done = v->progress - p->progress;
    uint64_t gained = v->virt_ns - p->virt_ns;
    uint64_t sample;

    if (done < PACER_MIN_PROGRESS || took > PACER_GAP_NS) {
        return; /* too little to tell, or the host stood still: that is caught up, not averaged */
    }
    sample = (took << 16) / done;
    sample = sample < MEASURED_MAX ? sample : MEASURED_MAX;
    p->measured = p->measured - p->measured / AVERAGE_SHARE + sample / AVERAGE_SHARE;
    /* A little is owed, to be caught up when the VM is idle; what is beyond is given up. */
    if (p->measured > RATE_MAX && took > gained &&
        v->host_ns + (uint64_t)p->offset > v->virt_ns + PACER_CATCH_UP_NS) {
        p->offset -= (int64_t)(took - gained);
    }
}

static uint32_t rate_for(const struct pacer *p, uint64_t lag)
{
    uint64_t percent = 100 + lag * 100 / PACER_CATCH_UP_NS;
    uint64_t rate = p->measured;

    if (lag > SLICE_SPAN_NS) {
        rate = rate * (percent < CATCH_UP_PERCENT ? percent : CATCH_UP_PERCENT) / 100;
    }
    return rate < RATE_MIN ? RATE_MIN : rate > RATE_MAX ? RATE_MAX : (uint32_t)rate;
}

void pacer_next(struct pacer *p, const struct pacer_view *v, struct pacer_step *out)
{
    uint64_t target, lag = 0, start = v->virt_ns;

    if (p->issued) {
        measure(p, v);
        p->issued = false;
    }
    target = v->host_ns + (uint64_t)p->offset;
    if ((int64_t)target < 0) {
        target = 0;
    }
    *out = (struct pacer_step){.span_ns = SLICE_SPAN_NS};
    if (v->idle) {
        uint64_t latest = v->next_timer > start ? v->next_timer : start;
        if (!v->input && latest > target) {
            out->wait_ns = latest == VTIMER_NEVER ? PACER_FOREVER : latest - target;
            return;
        }
        start = target < latest ? target : latest;
        start = start > v->virt_ns ? start : v->virt_ns;
    }
    if (start > target) {
        /* Ahead. An input need not wait for the remainder of a slice that ended early. */
        if (!v->idle || start - target > SLICE_SPAN_NS) {
            out->wait_ns = start - target;
            return;
        }
    } else {
        lag = target - start;
    }
    if (lag > PACER_JUMP_NS) {
        out->jump = true;
        start = target;
        lag = 0;
    } else if (lag > SLICE_SPAN_NS) {
        uint64_t allowed = p->virt_ns + (v->host_ns - p->host_ns) * CATCH_UP_PERCENT / 100;
        if (start > allowed) {
            out->wait_ns = (start - allowed) * 100 / CATCH_UP_PERCENT + 1;
            return;
        }
    }
    out->start_ns = start;
    out->rate = rate_for(p, lag);
    p->issued = true;
    p->host_ns = v->host_ns;
    p->virt_ns = start;
    p->progress = v->progress;
}
