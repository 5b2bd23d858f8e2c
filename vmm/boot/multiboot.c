/* SPDX-License-Identifier: Apache-2.0
 * vmm/boot/multiboot.c - images of the Multiboot Specification 0.6.96 (version 1): ELF32, or any
 * format whose header gives the addresses itself. 32-bit flat entry, paging off.
 *
 * Pure; nothing is kept. The image is validated segment by segment before a byte is copied. */
#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "vmm/boot/layout.h"

enum {
    MB_SEARCH = 8192, /* the header lies within these first bytes, aligned to 4 */
    MB_HEADER_MIN = 12,
    MB_HEADER_ADDRESSES = 32,
};
#define MB_HEADER_MAGIC UINT32_C(0x1badb002)
#define MB_ENTRY_MAGIC  UINT32_C(0x2badb002)

/* Header flags. Bits 0-15 are requirements: one we do not know refuses the image. */
enum { MB_ALIGN_MODULES = 1, MB_WANT_MEMORY = 2, MB_REQUIRED = 0xffff, MB_ADDRESSES = 0x10000 };

/* Information structure: flags and offsets. */
enum { MBI_MEMORY = 1, MBI_CMDLINE = 4, MBI_MODULES = 8, MBI_MMAP = 0x40, MBI_LOADER_NAME = 0x200 };
enum {
    MBI_MEM_LOWER = 4,
    MBI_MEM_UPPER = 8,
    MBI_CMDLINE_PTR = 16,
    MBI_MODS_COUNT = 20,
    MBI_MODS_ADDR = 24,
    MBI_MMAP_LENGTH = 44,
    MBI_MMAP_ADDR = 48,
    MBI_LOADER_NAME_PTR = 64,
    MBI_SIZE = 128,
    MBI_MODULE_SIZE = 16,
    MBI_MMAP_ENTRY = 24,
};

/* ELF32 (System V ABI, "Object Files"). */
enum {
    ELF_CLASS = 4,
    ELF_CLASS_32 = 1,
    ELF_DATA = 5,
    ELF_DATA_LSB = 1,
    ELF_MACHINE = 18,
    ELF_MACHINE_386 = 3,
    ELF_ENTRY = 24,
    ELF_PHOFF = 28,
    ELF_PHENTSIZE = 42,
    ELF_PHNUM = 44,
    ELF_HEADER = 52,
    PH_SIZE = 32,
    PH_LOAD = 1,
    PH_OFFSET = 4,
    PH_PADDR = 12,
    PH_FILESZ = 16,
    PH_MEMSZ = 20,
    SEGMENTS_MAX = 64,
};

struct segment {
    uint32_t addr;
    const uint8_t *data;
    uint32_t filesz, memsz;
};

struct mb_image {
    struct segment segments[SEGMENTS_MAX];
    unsigned nsegments;
    uint32_t entry;
    uint64_t end; /* of the highest segment */
};

/* Offset of a valid header, or -1. */
static long find_header(const struct boot_image *kernel)
{
    const uint8_t *p = kernel->data;
    size_t end = kernel->len < MB_SEARCH ? kernel->len : MB_SEARCH;

    for (size_t at = 0; at + MB_HEADER_MIN <= end; at += 4) {
        if (get_le32(p + at) == MB_HEADER_MAGIC &&
            get_le32(p + at) + get_le32(p + at + 4) + get_le32(p + at + 8) == 0) {
            return (long)at;
        }
    }
    return -1;
}

bool multiboot_recognise(const struct boot_image *kernel)
{
    return find_header(kernel) >= 0;
}

/* What loading must not overwrite: the GDT, the information structure, the ACPI tables. */
static bool overlaps_ours(uint64_t from, uint64_t len)
{
    static const struct {
        uint64_t from, to;
    } ours[] = {{BOOT_GDT, BOOT_GDT + PAGE_SIZE},
                {BOOT_MB_INFO, BOOT_MB_INFO_END},
                {BOOT_EBDA, BOOT_ACPI_END}};

    for (unsigned i = 0; i < PLX_COUNT(ours); i++) {
        if (from < ours[i].to && ours[i].from < from + len) {
            return true;
        }
    }
    return false;
}

static int add_segment(struct mb_image *img, const struct ram *ram, const struct segment *s,
                       struct plx_err *err)
{
    uint64_t end = (uint64_t)s->addr + s->memsz;

    if (s->memsz == 0) {
        return 0;
    }
    if (s->filesz > s->memsz) {
        return plx_fail(err, PLX_ECORRUPT,
                        "kernel: segment at 0x%x has %u bytes in the file but %u in memory",
                        s->addr, s->filesz, s->memsz);
    }
    if (end > ram->low) {
        return plx_fail(err, PLX_ERANGE,
                        "kernel: segment 0x%x-0x%" PRIx64 " lies beyond the RAM of %" PRIu64 " MiB",
                        s->addr, end, ram->size >> 20);
    }
    if (overlaps_ours(s->addr, s->memsz)) {
        return plx_fail(err, PLX_ENOTSUP,
                        "kernel: segment 0x%x-0x%" PRIx64 " overlaps memory the loader needs",
                        s->addr, end);
    }
    if (img->nsegments == SEGMENTS_MAX) {
        return plx_fail(err, PLX_ENOTSUP, "kernel: more than %d segments", SEGMENTS_MAX);
    }
    img->segments[img->nsegments++] = *s;
    if (end > img->end) {
        img->end = end;
    }
    return 0;
}

/* The image by the address fields of its header ("a.out kludge"). */
static int parse_addresses(const struct boot_image *kernel, const struct ram *ram, size_t header,
                           struct mb_image *img, struct plx_err *err)
{
    const uint8_t *p = (const uint8_t *)kernel->data + header;
    uint32_t header_addr, load, load_end, bss_end;
    uint64_t skip, filesz;

    if (kernel->len - header < MB_HEADER_ADDRESSES) {
        return plx_fail(err, PLX_ETRUNCATED, "kernel: multiboot header ends with the file");
    }
    header_addr = get_le32(p + 12);
    load = get_le32(p + 16);
    load_end = get_le32(p + 20);
    bss_end = get_le32(p + 24);
    img->entry = get_le32(p + 28);
    if (load > header_addr || header_addr - load > header) {
        return plx_fail(err, PLX_ECORRUPT,
                        "kernel: multiboot load address 0x%x does not fit the header at 0x%x", load,
                        header_addr);
    }
    skip = header - (header_addr - load);
    filesz = load_end == 0 ? kernel->len - skip : (uint64_t)load_end - load;
    if ((load_end != 0 && load_end < load) || (bss_end != 0 && bss_end < load + filesz) ||
        filesz > UINT32_MAX) {
        return plx_fail(err, PLX_ECORRUPT,
                        "kernel: multiboot addresses out of order (load 0x%x, end 0x%x, bss 0x%x)",
                        load, load_end, bss_end);
    }
    if (filesz > kernel->len - skip) {
        return plx_fail(err, PLX_ETRUNCATED,
                        "kernel: multiboot image is truncated: %" PRIu64 " bytes of %" PRIu64,
                        (uint64_t)kernel->len - skip, filesz);
    }
    return add_segment(img, ram,
                       &(struct segment){
                           .addr = load,
                           .data = (const uint8_t *)kernel->data + skip,
                           .filesz = (uint32_t)filesz,
                           .memsz = bss_end == 0 ? (uint32_t)filesz : bss_end - load,
                       },
                       err);
}

static int parse_elf(const struct boot_image *kernel, const struct ram *ram, struct mb_image *img,
                     struct plx_err *err)
{
    const uint8_t *p = kernel->data;
    uint64_t phoff;
    unsigned phentsize, phnum;
    int rc = 0;

    if (kernel->len < ELF_HEADER) {
        return plx_fail(err, PLX_ETRUNCATED, "kernel: ELF header is truncated (%zu bytes)",
                        kernel->len);
    }
    if (memcmp(p, "\177ELF", 4) != 0) {
        return plx_fail(err, PLX_ENOTSUP,
                        "kernel: multiboot image with neither addresses nor an ELF header");
    }
    if (p[ELF_CLASS] != ELF_CLASS_32 || p[ELF_DATA] != ELF_DATA_LSB ||
        get_le16(p + ELF_MACHINE) != ELF_MACHINE_386) {
        return plx_fail(err, PLX_ENOTSUP, "kernel: multiboot needs a 32-bit x86 ELF file");
    }
    img->entry = get_le32(p + ELF_ENTRY);
    phoff = get_le32(p + ELF_PHOFF);
    phentsize = get_le16(p + ELF_PHENTSIZE);
    phnum = get_le16(p + ELF_PHNUM);
    if (phentsize < PH_SIZE) {
        return plx_fail(err, PLX_ECORRUPT, "kernel: ELF program headers of %u bytes", phentsize);
    }
    if (phoff + (uint64_t)phentsize * phnum > kernel->len) {
        return plx_fail(err, PLX_ETRUNCATED, "kernel: ELF program headers lie beyond the file");
    }
    for (unsigned i = 0; i < phnum && rc == 0; i++) {
        const uint8_t *ph = p + phoff + (uint64_t)i * phentsize;
        struct segment s = {.addr = get_le32(ph + PH_PADDR),
                            .filesz = get_le32(ph + PH_FILESZ),
                            .memsz = get_le32(ph + PH_MEMSZ)};
        uint64_t off = get_le32(ph + PH_OFFSET);

        if (get_le32(ph) != PH_LOAD) {
            continue;
        }
        if (off + s.filesz > kernel->len) {
            return plx_fail(err, PLX_ETRUNCATED,
                            "kernel: ELF file is truncated: segment %u ends at %" PRIu64
                            ", the file at %zu",
                            i, off + s.filesz, kernel->len);
        }
        s.data = p + off;
        rc = add_segment(img, ram, &s, err);
    }
    return rc;
}

static int parse(const struct boot_image *kernel, const struct ram *ram, struct mb_image *img,
                 struct plx_err *err)
{
    long header = find_header(kernel);
    uint32_t flags;
    int rc;

    PLX_CHECK(header >= 0);
    flags = get_le32((const uint8_t *)kernel->data + header + 4);
    if ((flags & MB_REQUIRED & ~(uint32_t)(MB_ALIGN_MODULES | MB_WANT_MEMORY)) != 0) {
        return plx_fail(err, PLX_ENOTSUP, "kernel: multiboot image requires features 0x%x",
                        flags & MB_REQUIRED);
    }
    rc = (flags & MB_ADDRESSES) != 0 ? parse_addresses(kernel, ram, (size_t)header, img, err)
                                     : parse_elf(kernel, ram, img, err);
    if (rc == 0 && img->nsegments == 0) {
        return plx_fail(err, PLX_ECORRUPT, "kernel: multiboot image with nothing to load");
    }
    return rc;
}

static int copy_segments(struct machine *m, const struct mb_image *img, struct plx_err *err)
{
    for (unsigned i = 0; i < img->nsegments; i++) {
        const struct segment *s = &img->segments[i];
        int rc = boot_put(m, s->addr, s->data, s->filesz, "a kernel segment", err);

        if (rc != 0) {
            return rc;
        }
        if (ram_fill(m->ram, (uint64_t)s->addr + s->filesz, 0, s->memsz - s->filesz) != 0) {
            return plx_fail(err, PLX_ERANGE, "kernel: bss at 0x%x does not fit into RAM", s->addr);
        }
    }
    return 0;
}

/* The information structure grows from BOOT_MB_INFO; its strings and lists follow it. */
struct info {
    uint8_t bytes[BOOT_MB_INFO_END - BOOT_MB_INFO];
    size_t used;
};

/* Room for @len bytes, or NULL; *gpa is where the guest will see them. */
static uint8_t *info_room(struct info *info, size_t len, uint32_t *gpa)
{
    size_t at = (info->used + 7) & ~(size_t)7;

    if (len > sizeof info->bytes - at) {
        return NULL;
    }
    info->used = at + len;
    *gpa = (uint32_t)(BOOT_MB_INFO + at);
    return info->bytes + at;
}

static bool info_string(struct info *info, const char *s, uint32_t *gpa)
{
    size_t len = s == NULL ? 0 : strlen(s);
    uint8_t *to = info_room(info, len + 1, gpa);

    if (to != NULL && len != 0) {
        memcpy(to, s, len);
    }
    return to != NULL;
}

static bool info_mmap(struct info *info, const struct ram *ram)
{
    struct e820_entry map[E820_MAX];
    unsigned n = boot_e820(ram, map);
    uint32_t gpa;
    uint8_t *e = info_room(info, n * MBI_MMAP_ENTRY, &gpa);

    if (e == NULL) {
        return false;
    }
    put_le32(info->bytes + MBI_MMAP_LENGTH, n * MBI_MMAP_ENTRY);
    put_le32(info->bytes + MBI_MMAP_ADDR, gpa);
    for (unsigned i = 0; i < n; i++, e += MBI_MMAP_ENTRY) {
        put_le32(e, MBI_MMAP_ENTRY - 4); /* size of what follows */
        put_le64(e + 4, map[i].base);
        put_le64(e + 12, map[i].len);
        put_le32(e + 20, map[i].type);
    }
    put_le32(info->bytes + MBI_MEM_LOWER, (uint32_t)(BOOT_EBDA >> 10));
    put_le32(info->bytes + MBI_MEM_UPPER, (uint32_t)((ram->low - BOOT_HIGH) >> 10));
    return true;
}

static int module_list(struct machine *m, const struct boot_config *cfg, uint64_t at,
                       struct info *info, struct plx_err *err)
{
    struct boot_module list[BOOT_MODULES_MAX + 1];
    unsigned n = 0;
    uint32_t gpa, name;
    uint8_t *entry;

    if (cfg->nmodules > BOOT_MODULES_MAX) {
        return plx_fail(err, PLX_ERANGE, "more than %d modules", BOOT_MODULES_MAX);
    }
    if (cfg->initrd.data != NULL) {
        list[n++] = (struct boot_module){.image = cfg->initrd};
    }
    for (unsigned i = 0; i < cfg->nmodules; i++) {
        list[n++] = cfg->modules[i];
    }
    entry = info_room(info, n * MBI_MODULE_SIZE, &gpa);
    PLX_CHECK(entry != NULL); /* 17 entries in an empty structure */
    put_le32(info->bytes + MBI_MODS_COUNT, n);
    put_le32(info->bytes + MBI_MODS_ADDR, gpa);
    for (unsigned i = 0; i < n; i++, entry += MBI_MODULE_SIZE) {
        int rc;

        at = PAGE_BASE(at + PAGE_SIZE - 1);
        if (overlaps_ours(at, list[i].image.len)) {
            at = BOOT_HIGH;
        }
        if (at > m->ram->low || m->ram->low - at < list[i].image.len) {
            return plx_fail(err, PLX_ERANGE,
                            "module %u: %zu bytes do not fit into %" PRIu64 " MiB of RAM", i,
                            list[i].image.len, m->ram->size >> 20);
        }
        rc = boot_put(m, at, list[i].image.data, list[i].image.len, "a module", err);
        if (rc != 0) {
            return rc;
        }
        if (!info_string(info, list[i].cmdline, &name)) {
            return plx_fail(err, PLX_ERANGE, "module %u: command line too long", i);
        }
        put_le32(entry, (uint32_t)at);
        put_le32(entry + 4, (uint32_t)(at + list[i].image.len));
        put_le32(entry + 8, name);
        at += list[i].image.len;
    }
    return 0;
}

int multiboot_load(struct machine *m, struct cpu *c, const struct boot_config *cfg,
                   struct plx_err *err)
{
    struct mb_image img = {0};
    struct info info = {.used = MBI_SIZE};
    uint32_t cmdline, name;
    int rc;

    rc = parse(&cfg->kernel, m->ram, &img, err);
    if (rc != 0) {
        return rc;
    }
    rc = module_list(m, cfg, img.end, &info, err);
    if (rc != 0) {
        return rc;
    }
    if (!info_string(&info, cfg->cmdline, &cmdline) || !info_string(&info, "pollux", &name) ||
        !info_mmap(&info, m->ram)) {
        return plx_fail(err, PLX_ERANGE, "kernel: command line of %zu characters is too long",
                        strlen(cfg->cmdline));
    }
    put_le32(info.bytes, MBI_MEMORY | MBI_CMDLINE | MBI_MODULES | MBI_MMAP | MBI_LOADER_NAME);
    put_le32(info.bytes + MBI_CMDLINE_PTR, cmdline);
    put_le32(info.bytes + MBI_LOADER_NAME_PTR, name);
    rc = copy_segments(m, &img, err);
    if (rc == 0) {
        rc = boot_put(m, BOOT_MB_INFO, info.bytes, info.used, "the multiboot information", err);
    }
    if (rc == 0) {
        rc = boot_flat_segments(m, c, false, err);
    }
    c->cr0 = CR0_PE | CR0_ET;
    c->cr2 = 0;
    c->cr3 = 0;
    c->cr4 = 0;
    c->efer = 0;
    c->gpr[RAX] = MB_ENTRY_MAGIC;
    c->gpr[RBX] = BOOT_MB_INFO;
    c->rip = img.entry;
    return rc;
}
