/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_state.c - a valid state file with changes. First byte even: each five bytes after
 * it are an offset and what to XOR there; a last odd byte cuts the file. First byte odd: the
 * changes are within header and sections, and every hash is made right again, so that they reach
 * what parses; what is loaded then runs for a while. */
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/sched/sections.h"
#include "vmm/sched/state.h"

enum { HASH_LEN = 16, HEADER_LEN_AT = 12, SECTIONS_LEN_AT = 24, SLICES = 4 };

static uint8_t *original;
static size_t original_len;

static struct vm *new_vm(void)
{
    struct vm_config cfg = {.machine = {.memory = 8 << 20, .vcpus = 1, .ndisks = 1, .nnics = 1},
                            .engine = &engine_interp};
    struct plx_err err = {0};
    struct vm *vm;

    cfg.machine.disks[0].sectors = 2048;
    PLX_CHECK(vm_create(&cfg, &vm, &err) == 0);
    return vm;
}

static void make_original(void)
{
    struct plx_err err = {0};
    struct wbuf file;
    struct vm *vm = new_vm();

    wbuf_init(&file);
    PLX_CHECK(vm_save_buf(vm, &file, &err) == 0);
    original = plx_calloc(1, file.len);
    PLX_CHECK(original != NULL);
    memcpy(original, file.data, file.len);
    original_len = file.len;
    wbuf_free(&file);
    vm_destroy(vm);
}

static void put_hash(uint8_t *file, size_t from, size_t to)
{
    struct hash128 h = hash128(file + from, to - from, STATE_SEED);

    memcpy(file + to, &h.lo, 8);
    memcpy(file + to + 8, &h.hi, 8);
}

static uint32_t u32_at(size_t at)
{
    uint32_t v;
    memcpy(&v, original + at, sizeof v);
    return v;
}

/* Hashes where the original has them: a change of a length is found by other means. */
static void hash_again(uint8_t *file)
{
    size_t header = u32_at(HEADER_LEN_AT), end = header + u32_at(SECTIONS_LEN_AT);

    put_hash(file, 0, header - HASH_LEN);
    for (size_t at = header; at < end;) {
        size_t name = original[at]; /* a length below 128 is one byte */
        size_t data = at + 1 + name + 4 + 8, len = u32_at(data - 8);
        put_hash(file, at, data + len);
        at = data + len + HASH_LEN;
    }
}

static int no_disk(void *ctx, unsigned disk, uint64_t id, void *data, uint32_t len, uint8_t *status,
                   struct plx_err *err)
{
    (void)ctx;
    (void)disk;
    (void)id;
    (void)err;
    memset(data, 0, len);
    *status = 0;
    return 0;
}

/* Whatever a state holds, slices end, and what it leads to can be saved and loaded. */
static void run(struct vm *vm)
{
    struct output_list out;
    struct plx_err err = {0};
    struct wbuf file;

    vm_machine(vm)->host.disk_result = no_disk;
    output_list_init(&out);
    for (unsigned i = 0; i < SLICES && !vm_stopped(vm, NULL, NULL); i++) {
        struct record r = {
            .seq = vm_seq(vm) + 1, .start_ns = vm_now(vm), .span_ns = 10000, .rate = 65536};
        if (vm_slice(vm, &r, &out, &err) != 0) {
            PLX_CHECK(err.msg[0] != '\0');
            break;
        }
        output_list_clear(&out);
    }
    output_list_free(&out);
    wbuf_init(&file);
    err.msg[0] = '\0';
    if (vm_save_buf(vm, &file, &err) == 0) {
        PLX_CHECK(vm_load_buf(vm, file.data, file.len, &err) == 0);
    }
    wbuf_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plx_err err = {0};
    struct vm *vm;
    uint8_t *file;
    bool hashes;

    if (original == NULL) {
        make_original();
    }
    if (size < 1) {
        return 0;
    }
    hashes = (data[0] & 1) != 0;
    data++;
    size--;
    file = plx_calloc(1, original_len);
    PLX_CHECK(file != NULL);
    memcpy(file, original, original_len);
    size_t within = hashes ? u32_at(HEADER_LEN_AT) + u32_at(SECTIONS_LEN_AT) : original_len;
    for (size_t i = 0; i + 5 <= size; i += 5) {
        uint32_t at;
        memcpy(&at, data + i, 4);
        file[at % within] ^= data[i + 4];
    }
    size_t len = size % 5 == 0 || hashes ? original_len : original_len * data[size - 1] / 256;
    if (hashes) {
        hash_again(file);
    }
    vm = new_vm();
    int rc = vm_load_buf(vm, file, len, &err);
    PLX_CHECK(rc == 0 ? len == original_len : err.msg[0] != '\0');
    if (rc == 0) {
        run(vm);
    }
    plx_free(file);
    vm_destroy(vm);
    return 0;
}
