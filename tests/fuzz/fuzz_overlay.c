/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_overlay.c - bytes as the file of an overlay. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "vmm/dev/backend/overlay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t sha[SHA256_LEN];
    struct plx_err err = {0};
    struct overlay *o;
    char path[32];
    int fd = memfd_create("fuzz-overlay", MFD_CLOEXEC);

    PLX_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (overlay_open(path, 1 << 20, sha, &o, &err) == 0) {
        (void)overlay_allocated(o);
        overlay_close(o);
    } else {
        PLX_CHECK(err.msg[0] != '\0');
    }
    PLX_CHECK(close(fd) == 0);
    return 0;
}
