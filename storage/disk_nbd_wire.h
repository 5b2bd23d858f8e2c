/* SPDX-License-Identifier: Apache-2.0
 * storage/disk_nbd_wire.h - numbers of the NBD protocol that we speak, and the shaking of hands.
 * All integers of the wire are big-endian. */
#ifndef STORAGE_DISK_NBD_WIRE_H
#define STORAGE_DISK_NBD_WIRE_H

#include <endian.h>
#include <string.h>

#include "storage/disk_nbd.h"

#define NBD_MAGIC        UINT64_C(0x4e42444d41474943)
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054)
#define NBD_REPLY_MAGIC  UINT64_C(0x0003e889045565a9)
enum {
    NBD_REQUEST_MAGIC = 0x25609513,
    NBD_SIMPLE_MAGIC = 0x67446698,
    NBD_STRUCTURED_MAGIC = 0x668e33ef,
};

enum { NBD_HAND_FIXED = 1, NBD_HAND_NO_ZEROES = 2 };
enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META = 9,
    NBD_OPT_SET_META = 10,
};
#define NBD_REP_ACK         UINT32_C(1)
#define NBD_REP_SERVER      UINT32_C(2)
#define NBD_REP_INFO        UINT32_C(3)
#define NBD_REP_META        UINT32_C(4)
#define NBD_REP_ERR_UNSUP   UINT32_C(0x80000001)
#define NBD_REP_ERR_INVALID UINT32_C(0x80000003)
#define NBD_REP_ERR_UNKNOWN UINT32_C(0x80000006)
enum { NBD_INFO_EXPORT = 0, NBD_INFO_BLOCK_SIZE = 3 };

enum { /* of an export */
       NBD_HAS_FLAGS = 1,
       NBD_READ_ONLY = 2,
       NBD_SEND_FLUSH = 4,
       NBD_SEND_FUA = 8,
       NBD_SEND_TRIM = 32,
       NBD_SEND_WRITE_ZEROES = 64,
       NBD_CAN_MULTI_CONN = 256,
};
enum nbd_command {
    NBD_CMD_READ,
    NBD_CMD_WRITE,
    NBD_CMD_DISC,
    NBD_CMD_FLUSH,
    NBD_CMD_TRIM,
    NBD_CMD_CACHE,
    NBD_CMD_WRITE_ZEROES,
    NBD_CMD_BLOCK_STATUS,
};
enum { NBD_CMD_FUA = 1, NBD_CMD_NO_HOLE = 2, NBD_CMD_REQ_ONE = 8 };
enum { NBD_CHUNK_NONE = 0, NBD_CHUNK_DATA = 1, NBD_CHUNK_STATUS = 5, NBD_CHUNK_ERROR = 0x8001 };
enum { NBD_CHUNK_DONE = 1 };
enum { NBD_STATE_HOLE = 1, NBD_STATE_ZERO = 2 };
enum {
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_ENOTSUP = 95,
};

enum { NBD_DATA_MAX = 32 << 20, NBD_META_ID = 1 };

static inline void nbd_put16(uint8_t *p, uint16_t v)
{
    v = htobe16(v);
    memcpy(p, &v, 2);
}
static inline void nbd_put32(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, 4);
}
static inline void nbd_put64(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, 8);
}
static inline uint16_t nbd_get16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return be16toh(v);
}
static inline uint32_t nbd_get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return be32toh(v);
}
static inline uint64_t nbd_get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return be64toh(v);
}

/* What the client and we agreed on. */
struct nbd_session {
    bool structured, meta;
};

/* On the blocking socket @fd. True: on with requests; false: the client left, or has to go. */
bool nbd_handshake(int fd, const struct nbd_config *cfg, struct nbd_session *s);

#endif
