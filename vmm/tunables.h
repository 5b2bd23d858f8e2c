/* SPDX-License-Identifier: Apache-2.0
 * vmm/tunables.h - every default of the VM in one place, with its unit. What is part of a VM's
 * determinism (must be equal on both replicas) is marked D; it is fixed or stands in the manifest.
 */
#ifndef VMM_TUNABLES_H
#define VMM_TUNABLES_H

#define TSC_HZ      UINT64_C(1000000000) /* D: guest TSC frequency: 1 tick = 1 virtual ns */
#define CRYSTAL_HZ  UINT64_C(25000000)   /* D: CPUID 15H ECX; LAPIC timer input clock */
#define PM_TIMER_HZ UINT64_C(3579545)    /* D: ACPI specification */
#define PIT_HZ      UINT64_C(1193182)    /* D */

#define SLICE_SPAN_NS     1000000   /* virtual ns of a slice while the VM is busy */
#define SLICE_SPAN_MAX_NS 100000000 /* D: a record may ask for no more */
#define ROUND_QUANTUM     200000    /* D: progress budget of a vCPU that is alone, in one round */
/* Rounds with several runnable vCPUs; ARCHITECTURE.md, "Rounds". Progress unless said otherwise. */
#define PAR_QUANTUM_MIN                                                      \
    4000 /* D: a parallel part lasts at least this, unless the clock cuts it \
          */
#define PAR_QUANTUM_MAX    100000           /* D: and at most this ... */
#define PAR_SPAN_NS        UINT64_C(250000) /* D: ... or what virtual time of this length has room for */
#define PAR_QUANTUM_LIMIT  4000000          /* D: which is never more than this */
#define PAR_COST           1500   /* D: what a parallel part must gain to be worth its barriers */
#define PAR_SCORE_MAX      16000  /* D: a gain counts as at most this */
#define PAR_PROBES         2      /* D: parallel parts after time sharing before the score counts */
#define SHARED_ROUNDS_MIN  4      /* D: rounds of the first spell of time sharing ... */
#define SHARED_ROUNDS_MAX  64     /* D: ... and of the longest */
#define TURN_QUANTUM       250000 /* D: turn of one vCPU in time sharing */
#define TURN_SPAN_NS       UINT64_C(1000000) /* D: or what virtual time of this length has room for */
#define TURN_GRACE         50000 /* D: by which it may be longer, to return to user mode */
#define BURST_MIN          500   /* D: a vCPU that was served goes on alone for at least this ... */
#define BURST_MAX          8000  /* D: ... and at most this */
#define SERVE_RESERVE      64    /* D: kept free for each vCPU that may have to be served */
#define WAKE_PROBE         4000  /* D: who wakes another goes on this long and may halt by itself */
#define WAKE_GRACE         300   /* D: or, once it did, only this long before the other follows */
#define RELAY_WAKES        32    /* D: so many times, then it is probed again */
#define RELAY_TURN         8000 /* D: who follows at once has so long to halt before both can run */
#define RATE_ONE           65536           /* record.rate of 1 virtual ns per progress */
#define RATE_DEFAULT       (10 * RATE_ONE) /* before the pacer has measured anything */
#define RATE_MIN           (RATE_ONE / 16) /* D: above what any engine does */
#define RATE_MAX           (20 * RATE_ONE) /* D: a slower host makes a slower VM, not a coarser clock */
#define CATCH_UP_PERCENT   200             /* a VM behind wall time runs at most at 2x (R5) */
#define PACER_CATCH_UP_NS  UINT64_C(100000000)  /* a VM this far behind catches up at full speed */
#define PACER_JUMP_NS      UINT64_C(5000000000) /* one further behind jumps */
#define PACER_GAP_NS       UINT64_C(500000000) /* a slice of this length means that the host stood */
#define PACER_MIN_PROGRESS 5000                /* less says nothing about the host's speed */
#define NET_OUT_MAX        (1 << 20) /* D: bytes of frames in one slice; what is beyond is dropped */
#define CONSOLE_OUT_MAX    (1 << 20) /* D: likewise of the virtio console */
#define OUTPUT_COST        64        /* D: what each frame counts beside its bytes */
#define PAUSE_GAP          64        /* D: progress: more between two PAUSEs breaks a row */
#define PAUSE_YIELD        16        /* D: PAUSEs in a row that end a round (R5) */

/* Ownership of pages by vCPUs (vmm/mmu/owner.c). */
#define OWNER_HOT          6 /* D: a page that changed hands this often is contended */
#define OWNER_COOL         16 /* D: spells in which one vCPU alone wrote it, after which it is no more */
#define OWNER_SPELL_SLICES 32 /* D: after so many slices a spell ends at the latest */

#define DIGEST_EVERY_SLICES 64
#define SCRUB_NS            UINT64_C(60000000000) /* all of RAM is re-hashed within this much virtual time */
#define OVERLAY_SCRUB_NS \
    UINT64_C(60000000000) /* all of an overlay is read within this time of the host */
#define OVERLAY_SCRUB_BYTES_S (64 << 20) /* and at no more than so many bytes a second */

#endif
