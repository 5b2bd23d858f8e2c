/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_record.c - bytes as a record; what is accepted encodes to something that decodes
 * to the same. */
#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/sched/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record r, again;
    struct input *inputs, *more;
    struct plx_err err;
    struct wbuf out;

    if (record_decode(data, size, &r, &inputs, &err) != 0) {
        return 0;
    }
    wbuf_init(&out);
    record_encode(&r, &out);
    PLX_CHECK(!out.failed && record_decode(out.data, out.len, &again, &more, &err) == 0);
    PLX_CHECK(again.seq == r.seq && again.span_ns == r.span_ns && again.ninputs == r.ninputs);
    plx_free(more);
    plx_free(inputs);
    wbuf_free(&out);
    return 0;
}
