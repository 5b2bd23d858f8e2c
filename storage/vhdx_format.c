/* SPDX-License-Identifier: Apache-2.0
 * storage/vhdx_format.c - the structures of a VHDX file, to bytes and back (MS-VHDX, "Structures").
 * What comes from a file is validated here as a whole. Pure. */
#include <nmmintrin.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "storage/vhdx_int.h"

/* clang-format off */
const struct disk_guid
    vhdx_id_bat             = {{0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08}},
    vhdx_id_metadata        = {{0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e}},
    vhdx_id_file_parameters = {{0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b}},
    vhdx_id_size            = {{0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8}},
    vhdx_id_page83          = {{0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46}},
    vhdx_id_logical         = {{0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f}},
    vhdx_id_physical        = {{0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56}},
    vhdx_id_locator         = {{0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c}},
    vhdx_id_locator_type    = {{0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13}},
    /* ours: UTF-8 lines; others keep what they do not know, as it is not required */
    vhdx_id_notes           = {{0x50, 0x4c, 0x58, 0x4e, 0x1e, 0x6b, 0x2a, 0x4f, 0x8c, 0x37, 0x90, 0x15, 0xd2, 0x6e, 0x4b, 0xa1}};
/* clang-format on */

/* --- CRC-32C (RFC 3720, "CRC32C") ------------------------------------------------------------ */

static uint32_t crc_table(const uint8_t *p, size_t len, uint32_t crc)
{
    while (len-- > 0) {
        crc ^= *p++;
        for (unsigned i = 0; i < 8; i++) {
            crc = crc >> 1 ^ (0x82f63b78 & (0 - (crc & 1)));
        }
    }
    return crc;
}

__attribute__((target("sse4.2"))) static uint32_t crc_sse(const uint8_t *p, size_t len,
                                                          uint32_t crc)
{
    uint64_t c = crc, word;

    for (; len >= 8; len -= 8, p += 8) {
        memcpy(&word, p, 8);
        c = _mm_crc32_u64(c, word);
    }
    for (; len > 0; len--, p++) {
        c = _mm_crc32_u8((uint32_t)c, *p);
    }
    return (uint32_t)c;
}

uint32_t vhdx_crc32c(const void *data, size_t len, uint32_t crc)
{
    return ~(__builtin_cpu_supports("sse4.2") ? crc_sse : crc_table)(data, len, ~crc);
}

uint32_t vhdx_checksum(const uint8_t *data, size_t len)
{
    static const uint8_t zero[4];
    uint32_t crc = vhdx_crc32c(data, 4, 0);

    crc = vhdx_crc32c(zero, 4, crc);
    return vhdx_crc32c(data + 8, len - 8, crc);
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* --- header --------------------------------------------------------------------------------- */

void vhdx_header_encode(const struct vhdx_header *h, uint8_t out[VHDX_PAGE])
{
    memset(out, 0, VHDX_PAGE);
    memcpy(out, "head", 4);
    put64(out + 8, h->seq);
    memcpy(out + 16, &h->file_write, 16);
    memcpy(out + 32, &h->data_write, 16);
    memcpy(out + 48, &h->log, 16);
    out[66] = 1; /* version; that of the log, before it, is 0 */
    put32(out + 68, h->log_length);
    put64(out + 72, h->log_offset);
    put32(out + 4, vhdx_checksum(out, VHDX_PAGE));
}

bool vhdx_header_decode(const uint8_t in[VHDX_PAGE], struct vhdx_header *out)
{
    if (memcmp(in, "head", 4) != 0 || get32(in + 4) != vhdx_checksum(in, VHDX_PAGE) ||
        get32(in + 64) != 0x10000 /* log version 0, version 1 */) {
        return false;
    }
    out->seq = get64(in + 8);
    memcpy(&out->file_write, in + 16, 16);
    memcpy(&out->data_write, in + 32, 16);
    memcpy(&out->log, in + 48, 16);
    out->log_length = get32(in + 68);
    out->log_offset = get64(in + 72);
    return out->log_offset % VHDX_MIB == 0 && out->log_length % VHDX_MIB == 0 &&
           out->log_length != 0 && out->log_offset >= VHDX_MIB;
}

/* --- region table --------------------------------------------------------------------------- */

void vhdx_regions_encode(const struct vhdx_region *bat, const struct vhdx_region *meta,
                         uint8_t out[VHDX_TABLE])
{
    const struct {
        const struct disk_guid *id;
        const struct vhdx_region *at;
    } entries[] = {{&vhdx_id_bat, bat}, {&vhdx_id_metadata, meta}};

    memset(out, 0, VHDX_TABLE);
    memcpy(out, "regi", 4);
    put32(out + 8, PLX_COUNT(entries));
    for (unsigned i = 0; i < PLX_COUNT(entries); i++) {
        uint8_t *p = out + 16 + 32 * i;
        memcpy(p, entries[i].id, 16);
        put64(p + 16, entries[i].at->off);
        put32(p + 24, (uint32_t)entries[i].at->len);
        put32(p + 28, 1);
    }
    put32(out + 4, vhdx_checksum(out, VHDX_TABLE));
}

bool vhdx_regions_valid(const uint8_t in[VHDX_TABLE])
{
    return memcmp(in, "regi", 4) == 0 && get32(in + 4) == vhdx_checksum(in, VHDX_TABLE) &&
           get32(in + 8) <= VHDX_ENTRIES_MAX;
}

int vhdx_regions_decode(const uint8_t in[VHDX_TABLE], const char *path, uint64_t file_bytes,
                        struct vhdx_region *bat, struct vhdx_region *meta, struct plx_err *err)
{
    char text[DISK_GUID_TEXT];

    *bat = *meta = (struct vhdx_region){0};
    for (uint32_t i = 0; i < get32(in + 8); i++) {
        const uint8_t *p = in + 16 + 32 * i;
        struct vhdx_region r = {get64(p + 16), get32(p + 24)};
        struct disk_guid id;
        memcpy(&id, p, 16);
        struct vhdx_region *to = disk_guid_eq(&id, &vhdx_id_bat)        ? bat
                                 : disk_guid_eq(&id, &vhdx_id_metadata) ? meta
                                                                        : NULL;
        if (to == NULL && (get32(p + 28) & 1) != 0) {
            return plx_fail(err, PLX_EVERSION, "%s needs a region %s that we do not know", path,
                            disk_guid_text(&id, text));
        }
        if (r.off < VHDX_MIB || r.off % VHDX_MIB != 0 || r.len == 0 || r.len % VHDX_MIB != 0 ||
            r.off > file_bytes || r.len > file_bytes - r.off) {
            return plx_fail(err, PLX_ECORRUPT, "%s: region %s is not within the file", path,
                            disk_guid_text(&id, text));
        }
        if (to != NULL && to->len != 0) {
            return plx_fail(err, PLX_ECORRUPT, "%s: region %s twice", path,
                            disk_guid_text(&id, text));
        }
        if (to != NULL) {
            *to = r;
        }
    }
    if (bat->len == 0 || meta->len == 0) {
        return plx_fail(err, PLX_ECORRUPT, "%s has no %s", path,
                        bat->len == 0 ? "block table" : "metadata");
    }
    return 0;
}

/* --- metadata ------------------------------------------------------------------------------- */

void vhdx_items_encode(const struct vhdx_item *items, unsigned n, uint8_t out[VHDX_TABLE])
{
    memset(out, 0, VHDX_TABLE);
    memcpy(out, "metadata", 8);
    out[10] = (uint8_t)n;
    out[11] = (uint8_t)(n >> 8);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = out + 32 + 32 * i;
        memcpy(p, &items[i].id, 16);
        put32(p + 16, items[i].off);
        put32(p + 20, items[i].len);
        put32(p + 24, items[i].flags);
    }
}

/* Code points of UTF-8 as UTF-16LE. Malformed bytes become U+FFFD. */
static void put_utf16(struct wbuf *b, const char *s)
{
    const uint8_t *p = (const uint8_t *)s;

    while (*p != 0) {
        unsigned extra = *p < 0x80 ? 0 : *p < 0xc0 ? 4 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : 3;
        uint32_t c = extra == 0 ? *p : extra == 4 ? 0xfffd : *p & (0x3fU >> extra);
        p++;
        for (unsigned i = 0; extra != 4 && i < extra; i++) {
            if ((*p & 0xc0) != 0x80) {
                c = 0xfffd;
                break;
            }
            c = c << 6 | (*p++ & 0x3f);
        }
        if (c >= 0x10000) {
            wbuf_u16(b, (uint16_t)(0xd800 + ((c - 0x10000) >> 10 & 0x3ff)));
            c = 0xdc00 + ((c - 0x10000) & 0x3ff);
        }
        wbuf_u16(b, (uint16_t)c);
    }
}

/* Back; false when it does not fit or holds a NUL. */
static bool get_utf16(const uint8_t *p, size_t len, char *out, size_t cap)
{
    size_t n = 0;

    if (len % 2 != 0) {
        return false;
    }
    for (size_t i = 0; i < len; i += 2) {
        uint32_t c = (uint32_t)p[i] | (uint32_t)p[i + 1] << 8;
        if (c >= 0xd800 && c < 0xdc00 && i + 3 < len) {
            uint32_t low = (uint32_t)p[i + 2] | (uint32_t)p[i + 3] << 8;
            if (low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                i += 2;
            }
        }
        if (c == 0 || n + 5 > cap) {
            return false;
        }
        if (c < 0x80) {
            out[n++] = (char)c;
        } else if (c < 0x800) {
            out[n++] = (char)(0xc0 | c >> 6);
            out[n++] = (char)(0x80 | (c & 0x3f));
        } else if (c < 0x10000) {
            out[n++] = (char)(0xe0 | c >> 12);
            out[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            out[n++] = (char)(0x80 | (c & 0x3f));
        } else {
            out[n++] = (char)(0xf0 | c >> 18);
            out[n++] = (char)(0x80 | (c >> 12 & 0x3f));
            out[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            out[n++] = (char)(0x80 | (c & 0x3f));
        }
    }
    out[n] = 0;
    return true;
}

static void swap_slashes(char *s, char from, char to)
{
    for (; *s != 0; s++) {
        *s = *s == from ? to : *s;
    }
}

/* The keys of a locator, in order. Paths are written the way the format's other readers expect
 * them; "pollux_path" is the same absolute path as this host writes it. */
int vhdx_locator_encode(const struct vhdx_parent *p, struct wbuf *out)
{
    char linkage[DISK_GUID_TEXT], linkage2[DISK_GUID_TEXT] = "", relative[VHDX_PATH_MAX + 2],
                                  absolute[VHDX_PATH_MAX + 2];
    const struct {
        const char *key, *value;
    } pairs[] = {{"parent_linkage", linkage},
                 {"parent_linkage2", linkage2},
                 {"relative_path", relative},
                 {"absolute_win32_path", absolute},
                 {"pollux_path", p->absolute}};
    struct wbuf strings;
    unsigned n = 0;

    (void)disk_guid_text(&p->linkage, linkage);
    if (!disk_guid_zero(&p->linkage2)) {
        (void)disk_guid_text(&p->linkage2, linkage2);
    }
    (void)snprintf(relative, sizeof relative, "%s%.*s", p->relative[0] != 0 ? ".\\" : "",
                   VHDX_PATH_MAX - 1, p->relative);
    swap_slashes(relative, '/', '\\');
    (void)snprintf(absolute, sizeof absolute, "%.*s", VHDX_PATH_MAX - 1, p->absolute);
    swap_slashes(absolute, '/', '\\');
    for (unsigned i = 0; i < PLX_COUNT(pairs); i++) {
        n += pairs[i].value[0] != 0;
    }
    wbuf_init(&strings);
    wbuf_clear(out);
    wbuf_put(out, &vhdx_id_locator_type, 16);
    wbuf_u16(out, 0);
    wbuf_u16(out, (uint16_t)n);
    for (unsigned i = 0; i < PLX_COUNT(pairs); i++) {
        size_t base = 20 + 12 * n, key = strings.len, value;
        if (pairs[i].value[0] == 0) {
            continue;
        }
        put_utf16(&strings, pairs[i].key);
        value = strings.len;
        put_utf16(&strings, pairs[i].value);
        wbuf_u32(out, (uint32_t)(base + key));
        wbuf_u32(out, (uint32_t)(base + value));
        wbuf_u16(out, (uint16_t)(value - key));
        wbuf_u16(out, (uint16_t)(strings.len - value));
    }
    wbuf_put(out, strings.data, strings.len);
    bool failed = out->failed || strings.failed;
    wbuf_free(&strings);
    return failed ? PLX_ENOMEM : 0;
}

/* One key and its value; what we do not use is passed over. */
static bool take_pair(const char *key, const char *value, struct vhdx_parent *out)
{
    if (strcmp(key, "parent_linkage") == 0) {
        return disk_guid_parse(value, &out->linkage) == 0;
    }
    if (strcmp(key, "parent_linkage2") == 0) {
        return disk_guid_parse(value, &out->linkage2) == 0;
    }
    if (strcmp(key, "relative_path") == 0) {
        const char *from = strncmp(value, ".\\", 2) == 0 ? value + 2 : value;
        (void)snprintf(out->relative, sizeof out->relative, "%s", from);
        swap_slashes(out->relative, '\\', '/');
    } else if (strcmp(key, "pollux_path") == 0) {
        (void)snprintf(out->absolute, sizeof out->absolute, "%s", value);
    } else if (strcmp(key, "absolute_win32_path") == 0 && out->absolute[0] == 0) {
        (void)snprintf(out->absolute, sizeof out->absolute, "%s", value);
        swap_slashes(out->absolute, '\\', '/');
    }
    return true;
}

int vhdx_locator_decode(const uint8_t *data, size_t len, const char *path, struct vhdx_parent *out,
                        struct plx_err *err)
{
    char key[64], value[VHDX_PATH_MAX];
    struct rbuf r;
    struct disk_guid type;

    memset(out, 0, sizeof *out);
    rbuf_init(&r, data, len);
    rbuf_get(&r, &type, 16);
    (void)rbuf_u16(&r);
    unsigned n = rbuf_u16(&r);
    if (!r.failed && !disk_guid_eq(&type, &vhdx_id_locator_type)) {
        char text[DISK_GUID_TEXT];
        return plx_fail(err, PLX_EVERSION, "%s: a parent locator of type %s, which we do not know",
                        path, disk_guid_text(&type, text));
    }
    for (unsigned i = 0; i < n && !r.failed; i++) {
        uint32_t ko = rbuf_u32(&r), vo = rbuf_u32(&r);
        uint16_t kl = rbuf_u16(&r), vl = rbuf_u16(&r);
        if (r.failed || ko > len || kl > len - ko || vo > len || vl > len - vo) {
            r.failed = true;
        } else if (get_utf16(data + ko, kl, key, sizeof key) &&
                   (!get_utf16(data + vo, vl, value, sizeof value) ||
                    !take_pair(key, value, out))) {
            r.failed = true;
        }
    }
    if (r.failed || disk_guid_zero(&out->linkage)) {
        return plx_fail(err, PLX_ECORRUPT, "%s: its parent locator is malformed", path);
    }
    return 0;
}

/* --- arithmetic ----------------------------------------------------------------------------- */

uint64_t vhdx_ratio(const struct disk_geometry *geo)
{
    return (UINT64_C(1) << 23) * geo->logical_sector / geo->block;
}

uint64_t vhdx_entries(const struct disk_geometry *geo, bool has_parent)
{
    uint64_t blocks = (geo->bytes + geo->block - 1) / geo->block;
    uint64_t ratio = vhdx_ratio(geo);

    return has_parent ? (blocks + ratio - 1) / ratio * (ratio + 1) : blocks + (blocks - 1) / ratio;
}
