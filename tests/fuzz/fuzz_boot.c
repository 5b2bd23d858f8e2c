/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_boot.c - bytes as a kernel: bzImage or multiboot. */
#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/boot/boot.h"
#include "vmm/sched/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vm_config cfg = {.machine = {.memory = 8 << 20, .vcpus = 1}, .engine = &engine_interp};
    struct boot_config boot = {.kernel = {data, size}, .initrd = {data, size / 2}, .cmdline = "x"};
    struct plx_err err = {0};
    struct vm *vm;

    PLX_CHECK(vm_create(&cfg, &vm, &err) == 0);
    if (boot_load(vm_machine(vm), &vm_vcpu(vm, 0)->c, &boot, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
    }
    vm_destroy(vm);
    return 0;
}
