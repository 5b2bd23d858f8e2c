/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_image.c - bytes as messages of the image protocol, to a server and to a client.
 * Messages stand one behind the other, each behind its length in one byte times 16. */
#include <string.h>

#include "base/check.h"
#include "storage/server_wire.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct store *store;
    struct image_server *server;
    struct image_client *client;

    if (store == NULL) {
        PLX_CHECK(store_open_memory(&store, NULL) == 0);
    }
    PLX_CHECK(image_server_open_detached(store, &server) == 0);
    PLX_CHECK(image_client_open_detached(store, &client) == 0);
    for (size_t at = 0; at < size;) {
        size_t len = (size_t)data[at] * 16;
        at++;
        len = len < size - at ? len : size - at;
        image_server_message(server, (const uint8_t *)"peer", 4, data + at, len);
        image_client_message(client, data + at, len);
        at += len;
    }
    image_client_close(client);
    image_server_close(server);
    return 0;
}
