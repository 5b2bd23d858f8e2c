/* SPDX-License-Identifier: Apache-2.0
 * storage/disk_nbd_hand.c - the shaking of hands of NBD: options until the client goes on. */
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "storage/disk_nbd_wire.h"

enum { OPTION_MAX = 8192, OPTIONS_MAX = 64 };

struct hand {
    int fd;
    const struct nbd_config *cfg;
    struct nbd_session *s;
    bool no_zeroes;
    uint8_t data[OPTION_MAX];
    uint32_t len;
};

enum next { NEXT_OPTION, NEXT_REQUESTS, NEXT_END };

static bool receive(struct hand *h, void *out, size_t len)
{
    return io_read_full(h->fd, out, len) == (ssize_t)len;
}

static bool reply(struct hand *h, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
    uint8_t head[20];

    nbd_put64(head, NBD_REPLY_MAGIC);
    nbd_put32(head + 8, option);
    nbd_put32(head + 12, type);
    nbd_put32(head + 16, len);
    return io_write_full(h->fd, head, sizeof head) == 0 &&
           (len == 0 || io_write_full(h->fd, data, len) == 0);
}

static enum next answer(struct hand *h, uint32_t option, uint32_t type)
{
    return reply(h, option, type, NULL, 0) ? NEXT_OPTION : NEXT_END;
}

static uint16_t flags(const struct nbd_config *cfg)
{
    bool readonly = cfg->readonly || !cfg->disk->writable;

    return (uint16_t)(NBD_HAS_FLAGS | NBD_CAN_MULTI_CONN | NBD_SEND_FLUSH |
                      (readonly ? NBD_READ_ONLY
                                : NBD_SEND_FUA | NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES));
}

static bool named(const struct hand *h, const uint8_t *name, uint32_t len)
{
    return len == 0 || (len == strlen(h->cfg->name) && memcmp(name, h->cfg->name, len) == 0);
}

static enum next export_name(struct hand *h)
{
    uint8_t out[8 + 2 + 124] = {0};

    if (!named(h, h->data, h->len)) {
        return NEXT_END; /* this option has no other way to say no */
    }
    nbd_put64(out, h->cfg->disk->geo.bytes);
    nbd_put16(out + 8, flags(h->cfg));
    return io_write_full(h->fd, out, h->no_zeroes ? 10 : sizeof out) == 0 ? NEXT_REQUESTS
                                                                          : NEXT_END;
}

static enum next list(struct hand *h)
{
    uint8_t out[4 + 256];
    uint32_t len = (uint32_t)strnlen(h->cfg->name, 256);

    nbd_put32(out, len);
    memcpy(out + 4, h->cfg->name, len);
    return reply(h, NBD_OPT_LIST, NBD_REP_SERVER, out, 4 + len)
               ? answer(h, NBD_OPT_LIST, NBD_REP_ACK)
               : NEXT_END;
}

/* NBD_OPT_INFO and NBD_OPT_GO. All that we have to say is said, asked for or not. */
static enum next info(struct hand *h, uint32_t option)
{
    uint32_t name = h->len < 6 ? UINT32_MAX : nbd_get32(h->data);
    const struct disk_geometry *g = &h->cfg->disk->geo;
    uint8_t export[12], sizes[14];

    if (name > h->len - 6 || h->len < 6 ||
        h->len - 6 - name != 2U * nbd_get16(h->data + 4 + name)) {
        return answer(h, option, NBD_REP_ERR_INVALID);
    }
    if (!named(h, h->data + 4, name)) {
        return answer(h, option, NBD_REP_ERR_UNKNOWN);
    }
    nbd_put16(export, NBD_INFO_EXPORT);
    nbd_put64(export + 2, g->bytes);
    nbd_put16(export + 10, flags(h->cfg));
    nbd_put16(sizes, NBD_INFO_BLOCK_SIZE);
    nbd_put32(sizes + 2, DISK_SECTOR);
    nbd_put32(sizes + 6, 4096);
    nbd_put32(sizes + 10, NBD_DATA_MAX);
    if (!reply(h, option, NBD_REP_INFO, export, sizeof export) ||
        !reply(h, option, NBD_REP_INFO, sizes, sizeof sizes) ||
        !reply(h, option, NBD_REP_ACK, NULL, 0)) {
        return NEXT_END;
    }
    return option == NBD_OPT_GO ? NEXT_REQUESTS : NEXT_OPTION;
}

static enum next meta(struct hand *h, uint32_t option)
{
    static const char context[] = "base:allocation";
    uint32_t name = h->len < 8 ? UINT32_MAX : nbd_get32(h->data), queries, at;
    bool wanted = false;

    if (h->len < 8 || name > h->len - 8) {
        return answer(h, option, NBD_REP_ERR_INVALID);
    }
    if (!named(h, h->data + 4, name)) {
        return answer(h, option, NBD_REP_ERR_UNKNOWN);
    }
    queries = nbd_get32(h->data + 4 + name);
    at = 8 + name;
    wanted = queries == 0 && option == NBD_OPT_LIST_META;
    for (; queries > 0; queries--) {
        uint32_t len = h->len - at < 4 ? UINT32_MAX : nbd_get32(h->data + at);
        if (h->len - at < 4 || len > h->len - at - 4) {
            return answer(h, option, NBD_REP_ERR_INVALID);
        }
        const uint8_t *query = h->data + at + 4;
        wanted = wanted || (len == strlen(context) && memcmp(query, context, len) == 0) ||
                 (option == NBD_OPT_LIST_META && len == 5 && memcmp(query, "base:", 5) == 0);
        at += 4 + len;
    }
    if (option == NBD_OPT_SET_META) {
        h->s->meta = wanted && h->s->structured;
    }
    if (wanted) {
        uint8_t out[4 + sizeof context];
        nbd_put32(out, option == NBD_OPT_SET_META ? NBD_META_ID : 0);
        memcpy(out + 4, context, strlen(context));
        if (!reply(h, option, NBD_REP_META, out, (uint32_t)(4 + strlen(context)))) {
            return NEXT_END;
        }
    }
    return answer(h, option, NBD_REP_ACK);
}

static enum next one_option(struct hand *h)
{
    uint8_t head[16];

    if (!receive(h, head, sizeof head) || nbd_get64(head) != NBD_OPTION_MAGIC) {
        return NEXT_END;
    }
    uint32_t option = nbd_get32(head + 8);
    h->len = nbd_get32(head + 12);
    if (h->len > sizeof h->data || !receive(h, h->data, h->len)) {
        return NEXT_END;
    }
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        return export_name(h);
    case NBD_OPT_ABORT:
        (void)reply(h, option, NBD_REP_ACK, NULL, 0);
        return NEXT_END;
    case NBD_OPT_LIST:
        return h->len == 0 ? list(h) : answer(h, option, NBD_REP_ERR_INVALID);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return info(h, option);
    case NBD_OPT_STRUCTURED_REPLY:
        h->s->structured = true;
        return answer(h, option, NBD_REP_ACK);
    case NBD_OPT_LIST_META:
    case NBD_OPT_SET_META:
        return meta(h, option);
    default:
        return answer(h, option, NBD_REP_ERR_UNSUP);
    }
}

bool nbd_handshake(int fd, const struct nbd_config *cfg, struct nbd_session *s)
{
    struct hand h = {.fd = fd, .cfg = cfg, .s = s};
    uint8_t hello[18], client[4];
    enum next next = NEXT_OPTION;

    *s = (struct nbd_session){0};
    nbd_put64(hello, NBD_MAGIC);
    nbd_put64(hello + 8, NBD_OPTION_MAGIC);
    nbd_put16(hello + 16, NBD_HAND_FIXED | NBD_HAND_NO_ZEROES);
    if (io_write_full(fd, hello, sizeof hello) != 0 || !receive(&h, client, sizeof client)) {
        return false;
    }
    h.no_zeroes = (nbd_get32(client) & NBD_HAND_NO_ZEROES) != 0;
    for (unsigned i = 0; next == NEXT_OPTION && i < OPTIONS_MAX; i++) {
        next = one_option(&h);
    }
    return next == NEXT_REQUESTS;
}
