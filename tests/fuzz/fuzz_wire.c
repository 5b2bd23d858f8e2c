/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_wire.c - bytes from a peer as a message between replicas. */
#include "replica/wire.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct rep_identity id = {{1}, {2}};
    struct rep_wire *w;
    struct rep_msg m;

    if (rep_wire_decode(data, size, &id, &w, &m) == 0) {
        rep_wire_free(w);
    }
    return 0;
}
