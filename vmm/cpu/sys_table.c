/* SPDX-License-Identifier: Apache-2.0
 * vmm/cpu/sys_table.c - insn_bind_sys: which mnemonics the system family executes. Constant. */
#include "vmm/cpu/sys_ops.h"

#define SYS_BIND_(name, function, attributes) \
    {.mnemonic = ZYDIS_MNEMONIC_##name, .fn = (function), .flags = (attributes)},

const struct insn_bind insn_bind_sys[] = {
    SYS_OPS(SYS_BIND_){.mnemonic = ZYDIS_MNEMONIC_INVALID},
};
