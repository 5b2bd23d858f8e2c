/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_state.c - a valid state file with changes: each five bytes of input are an offset
 * and what to XOR there; a last odd byte cuts the file. */
#include <string.h>

#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/sched/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vm_config cfg = {.machine = {.memory = 8 << 20, .vcpus = 1}, .engine = &engine_interp};
    struct plx_err err = {0};
    struct wbuf file;
    struct vm *vm;

    PLX_CHECK(vm_create(&cfg, &vm, &err) == 0);
    wbuf_init(&file);
    PLX_CHECK(vm_save_buf(vm, &file, &err) == 0);
    for (size_t i = 0; i + 5 <= size; i += 5) {
        uint32_t at;
        memcpy(&at, data + i, 4);
        file.data[at % file.len] ^= data[i + 4];
    }
    size_t len = size % 5 == 0 ? file.len : file.len * data[size - 1] / 256;
    int rc = vm_load_buf(vm, file.data, len, &err);
    PLX_CHECK(rc == 0 ? size % 5 == 0 : err.msg[0] != '\0');
    wbuf_free(&file);
    vm_destroy(vm);
    return 0;
}
