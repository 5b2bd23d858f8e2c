/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_clients.c - text as the file of an image server's clients. */
#include <string.h>

#include "base/check.h"
#include "ops/image_clients.h"
#include "storage/server.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct image_clients c;
    struct plx_err err = {0};
    char *text = plx_calloc(1, size + 1);

    PLX_CHECK(text != NULL);
    if (size > 0) {
        memcpy(text, data, size);
    }
    if (image_clients_parse(text, "clients", &c, &err) != 0) {
        PLX_CHECK(err.msg[0] != '\0');
    } else {
        bool pushes = false;
        PLX_CHECK(c.n <= AUTHORISER_KEYS);
        for (unsigned i = 0; i < c.n; i++) {
            char may = c.keys[i].user[0];
            PLX_CHECK(may == IMAGE_USER_READS || may == IMAGE_USER_PUSHES);
            PLX_CHECK(strnlen(c.keys[i].user, sizeof c.keys[i].user) == AUTHORISER_USER - 1);
            pushes = pushes || may == IMAGE_USER_PUSHES;
        }
        PLX_CHECK(pushes == c.pushes);
    }
    plx_free(text);
    return 0;
}
