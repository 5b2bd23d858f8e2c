/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_conf.c - text as polluxd's configuration file. */
#include <string.h>

#include "base/check.h"
#include "ops/polluxd/conf.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct conf c;
    struct plx_err err = {0};
    char *text = plx_calloc(1, size + 1);

    PLX_CHECK(text != NULL);
    memcpy(text, data, size);
    memset(&c, 0, sizeof c);
    if (conf_parse(text, "fuzz", &c, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
    }
    plx_free(text);
    return 0;
}
