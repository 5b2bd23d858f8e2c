/* SPDX-License-Identifier: Apache-2.0
 * vmm/sched/state.h - the form of a saved VM, in a file or in memory.
 *
 * A file begins a run or a pair; in memory it is saved and loaded in place (chaos). Little-endian;
 * "str" is a LEB128 length and that many bytes. H is hash128 of base/hash.h.
 *
 *   offset  bytes  field
 *   0       8      "PLXSTATE"
 *   8       4      form, 1
 *   12      4      L, length of the header with its hash
 *   16      8      seq of the last slice
 *   24      8      S, length of the sections
 *   32      8      N, number of pages
 *   40      16     sum over pages of H(GPA, content), as in a digest
 *   56      ..     machine: memory u64, vcpus u32, ndisks u32, nnics u32, then each disk:
 *                  sectors u64, readonly u8; each NIC: MAC 6; then the number of the CPU model
 *                  u8, absent for pollux-v2
 *   L-16    16     H of the header's bytes before
 *   L       S      sections, each: name str, version u32, length u64, that many bytes,
 *                  16 bytes H of the section from its name on
 *   L+S     24*N   table of pages, by ascending address: GPA u64, H(GPA, content) 16
 *   ..      16     H of the table
 *   ..      ..     zeros to a multiple of 4096
 *   ..      4096*N the pages. Pages of zeros are in no table. Here the file ends.
 *
 * Sections stand in the order of the machine's devices. Everything is checked before anything is
 * applied. Threading: between slices. */
#ifndef VMM_SCHED_STATE_H
#define VMM_SCHED_STATE_H

#include "vmm/sched/vm.h"

/* As vm_save and vm_load (vm.h), errors included, in memory. vm_save_buf appends to @out, whose
 * failure is PLX_ENOMEM. */
int vm_save_buf(struct vm *vm, struct wbuf *out, struct plx_err *err);
int vm_load_buf(struct vm *vm, const void *data, size_t len, struct plx_err *err);

#endif
