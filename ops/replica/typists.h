/* SPDX-License-Identifier: Apache-2.0
 * ops/replica/typists.h - who has typed how much into the consoles of a VM, so that a takeover
 * loses and doubles nothing of it.
 *
 * Each session counts the bytes it types. It says all of them that it does not know to be safe,
 * again and again, to whoever is primary; a record that carries some says whose and up to which
 * position (INPUT_TYPED_BY). So a primary knows from its own records, and one that took over from
 * those it received, what it need not take again. Safe is what a record carries whose outputs are
 * let out: any successor has run it.
 *
 * No state of the VM: it begins empty with the process, as the positions do with the session. When
 * it is full the session that was quiet for longest goes; there are more places than sessions can
 * be open, and one that has nothing on its way is taken at its word when it comes again.
 *
 * Pure. Threading: whoever holds proc.lock. */
#ifndef OPS_REPLICA_TYPISTS_H
#define OPS_REPLICA_TYPISTS_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/frame.h"
#include "vmm/dev/backend/hostio.h"

enum { TYPISTS_MAX = 256 };

struct typist {
    uint64_t session;
    uint64_t used;         /* larger: later */
    uint64_t pos;          /* after the last byte that was taken for a record */
    uint64_t carried, seq; /* ... that a record carries which has run here; that record */
    bool tell;             /* the session waits to hear of it */
    unsigned port;
    uint64_t heard_pos; /* what it said last, until it is taken */
    uint32_t heard;     /* bytes */
    uint8_t bytes[CONSOLE_TYPED_MAX];
};

struct typists { /* all zero: empty */
    struct typist all[TYPISTS_MAX];
    unsigned n;
    uint64_t uses;
    bool heard, tell; /* somebody may have bytes to be taken, or may have to be told */
};

/* What polluxd passes on, unchecked: false if it makes no sense. */
bool typists_hear(struct typists *t, uint64_t session, unsigned port, uint64_t pos,
                  const uint8_t *data, size_t len);
/* A primary's next record: what was heard and no record carries. Errors: PLX_ENOMEM. */
int typists_take(struct typists *t, struct input_batch *in);
/* A record has run here, as primary or as backup. */
void typists_ran(struct typists *t, const struct record *r);
/* The next session to be told that its bytes up to *pos are safe; false: none. @released: outputs
 * of records up to this one are out. */
bool typists_next_told(struct typists *t, uint64_t released, uint64_t *session, uint64_t *pos);
/* Whether there is one. */
bool typists_must_tell(const struct typists *t, uint64_t released);

#endif
