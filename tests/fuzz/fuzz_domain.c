/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_domain.c - bytes as a domain's XML. */
#include <string.h>

#include "base/check.h"
#include "ops/polluxd/domain.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct domain d;
    struct plx_err err = {0};

    memset(&d, 0, sizeof d);
    if (domain_parse((const char *)data, size, &d, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
    }
    return 0;
}
