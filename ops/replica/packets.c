/* SPDX-License-Identifier: Apache-2.0
 * ops/replica/packets.c - queues between the two threads, and their eventfds. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "ops/replica/proc.h"

void packets_put(struct packets *q, const void *data, size_t len)
{
    uint32_t n = (uint32_t)len;

    if (q->read == q->bytes.len) {
        wbuf_clear(&q->bytes);
        q->read = 0;
    }
    wbuf_put(&q->bytes, &n, sizeof n);
    wbuf_put(&q->bytes, data, len);
    PLX_CHECK(!q->bytes.failed);
}

bool packets_get(struct packets *q, const uint8_t **data, size_t *len)
{
    uint32_t n;

    if (q->read == q->bytes.len) {
        return false;
    }
    memcpy(&n, q->bytes.data + q->read, sizeof n);
    *data = q->bytes.data + q->read + sizeof n;
    *len = n;
    q->read += sizeof n + n;
    return true;
}

size_t packets_left(const struct packets *q)
{
    return q->bytes.len - q->read;
}

void packets_free(struct packets *q)
{
    wbuf_free(&q->bytes);
    q->read = 0;
}

void proc_wake(int fd)
{
    uint64_t one = 1;

    PLX_CHECK(write(fd, &one, sizeof one) == sizeof one || errno == EAGAIN);
}

void proc_drain(int fd)
{
    uint64_t n;

    PLX_CHECK(read(fd, &n, sizeof n) == sizeof n || errno == EAGAIN || errno == EINTR);
}
