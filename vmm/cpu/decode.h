/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/decode.h - bytes to struct insn: Zydis decodes, the binding tables give the semantics.
 * Pure: no state, any thread after the first call of decode_init. */
#ifndef VMM_CPU_DECODE_H
#define VMM_CPU_DECODE_H

#include <stddef.h>

#include "vmm/cpu/cpu.h"
#include "vmm/cpu/insn.h"

enum decode_mode { DECODE_64, DECODE_32, DECODE_16, DECODE_MODES };

enum { INSN_BYTES_MAX = 15 };

/* Index the tables; idempotent, from any thread. */
void decode_init(void);

/* Decode for @model the instruction at @bytes, of which @len (> 0) can be read. Returns 0, or
 * PLX_ETRUNCATED: more bytes are needed (len < 15). What does not exist in the model decodes with
 * INSN_BAD, a length of 1 and a function that raises #UD (#GP(0) beyond 15 bytes). */
int decode_insn(enum cpu_model model, enum decode_mode mode, const uint8_t *bytes, size_t len,
                struct insn *in);

#endif
