/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/domain.c - see domain.h. The elements are one table: where each may stand, and the
 * function that takes it, if any. */
#include "ops/polluxd/domain.h"

#include <ctype.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

#define METADATA_NS "urn:pollux:domain:1"

enum { MEMORY_MIN = 1 << 20, VCPUS_LIMIT = 16 };
#define MEMORY_LIMIT (UINT64_C(64) << 30)

struct reader {
    struct domain *d;
    struct plx_err *err;
    bool have_name, have_memory, have_kernel;
};

static int bad(struct reader *r, const xmlNode *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int bad(struct reader *r, const xmlNode *n, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return plx_fail(r->err, PLX_EINVAL, "line %ld, <%s>: %s", xmlGetLineNo(n),
                    (const char *)n->name, text);
}

static void warn(struct domain *d, const xmlNode *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void warn(struct domain *d, const xmlNode *n, const char *fmt, ...)
{
    va_list ap;

    if (d->nwarnings < DOMAIN_WARNINGS_MAX) {
        char *w = d->warnings[d->nwarnings];
        int at = snprintf(w, DOMAIN_WARNING_MAX, "line %ld: ", xmlGetLineNo(n));
        va_start(ap, fmt);
        (void)vsnprintf(w + at, (size_t)(DOMAIN_WARNING_MAX - at), fmt, ap);
        va_end(ap);
    }
    d->nwarnings++;
}

/* The text of @n, or of its attribute @attr, trimmed, into @out. PLX_ENOENT if there is none. */
static int text_of(struct reader *r, const xmlNode *n, const char *attr, char *out, size_t cap)
{
    xmlChar *s = attr == NULL ? xmlNodeGetContent(n)
                              : xmlGetProp((xmlNode *)(uintptr_t)n, (const xmlChar *)attr);
    int rc = 0;

    out[0] = '\0';
    if (s == NULL) {
        return PLX_ENOENT;
    }
    const char *from = (const char *)s;
    from += strspn(from, " \t\r\n");
    size_t len = strlen(from);
    while (len > 0 && isspace((unsigned char)from[len - 1])) {
        len--;
    }
    if (len >= cap) {
        rc = bad(r, n, "longer than %zu characters", cap - 1);
    } else {
        memcpy(out, from, len);
        out[len] = '\0';
    }
    xmlFree(s);
    return rc;
}

static int attr_of(struct reader *r, const xmlNode *n, const char *attr, char *out, size_t cap)
{
    int rc = text_of(r, n, attr, out, cap);

    return rc == PLX_ENOENT ? bad(r, n, "has no attribute '%s'", attr) : rc;
}

static int path_of(struct reader *r, const xmlNode *n, const char *attr, char out[PATH_MAX])
{
    int rc = attr == NULL ? text_of(r, n, NULL, out, PATH_MAX) : attr_of(r, n, attr, out, PATH_MAX);

    if (rc == 0 && out[0] != '/') {
        return bad(r, n, "needs an absolute path, not '%s'", out);
    }
    return rc;
}

/* libvirt's elements are in no namespace: one of a foreign namespace is another element, whatever
 * its name (libvirt.org, "Domain XML format"). */
enum owner { LIBVIRT, OURS, FOREIGN };

static enum owner owner_of(const xmlNode *n)
{
    if (n->ns == NULL) {
        return LIBVIRT;
    }
    return strcmp((const char *)n->ns->href, METADATA_NS) == 0 ? OURS : FOREIGN;
}

static xmlNode *child(const xmlNode *n, const char *name)
{
    for (xmlNode *c = n->children; c != NULL; c = c->next) {
        if (c->type == XML_ELEMENT_NODE && owner_of(c) == LIBVIRT &&
            strcmp((const char *)c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

static int yes_no(struct reader *r, const xmlNode *n, bool *out)
{
    char s[8];
    int rc = text_of(r, n, NULL, s, sizeof s);

    if (rc == 0 && strcmp(s, "yes") != 0 && strcmp(s, "no") != 0) {
        return bad(r, n, "must be yes or no, not '%s'", s);
    }
    *out = strcmp(s, "yes") == 0;
    return rc;
}

/* --- the elements -------------------------------------------------------------------------- */

static int take_name(struct reader *r, const xmlNode *n)
{
    int rc = text_of(r, n, NULL, r->d->name, sizeof r->d->name);

    if (rc != 0) {
        return rc;
    }
    for (const char *s = r->d->name; *s != '\0'; s++) {
        if (!isalnum((unsigned char)*s) && strchr("-_.+", *s) == NULL) {
            return bad(r, n, "may hold letters, digits and - _ . + only, not '%s'", r->d->name);
        }
    }
    if (r->d->name[0] == '\0' || r->d->name[0] == '-') {
        return bad(r, n, "'%s' is not a usable name", r->d->name);
    }
    r->have_name = true;
    return 0;
}

static int take_uuid(struct reader *r, const xmlNode *n)
{
    char s[64];
    int rc = text_of(r, n, NULL, s, sizeof s);

    if (rc == 0 && !uuid_parse(s, r->d->uuid)) {
        return bad(r, n, "'%s' is not a UUID", s);
    }
    r->d->has_uuid = rc == 0;
    return rc;
}

static int take_memory(struct reader *r, const xmlNode *n)
{
    static const struct {
        const char *unit;
        uint64_t bytes;
    } units[] = {{"b", 1},           {"bytes", 1},    {"KB", 1000},    {"k", 1024},
                 {"KiB", 1024},      {"MB", 1000000}, {"M", 1 << 20},  {"MiB", 1 << 20},
                 {"GB", 1000000000}, {"G", 1 << 30},  {"GiB", 1 << 30}};
    char s[32], unit[16];
    char *end;
    uint64_t factor = 0;
    int rc = text_of(r, n, NULL, s, sizeof s);

    if (rc == 0) {
        rc = text_of(r, n, "unit", unit, sizeof unit);
    }
    if (rc == PLX_ENOENT) {
        (void)strcpy(unit, "KiB");
        rc = 0;
    }
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < PLX_COUNT(units); i++) {
        if (strcmp(units[i].unit, unit) == 0) {
            factor = units[i].bytes;
        }
    }
    if (factor == 0) {
        return bad(r, n, "unknown unit '%s'", unit);
    }
    unsigned long long v = isdigit((unsigned char)s[0]) ? strtoull(s, &end, 10) : 0;
    if (v == 0 || *end != '\0') {
        return bad(r, n, "'%s' is not an amount of memory", s);
    }
    if (v > MEMORY_LIMIT / factor || v * factor < MEMORY_MIN) {
        return bad(r, n, "%s %s is not between 1 MiB and 64 GiB", s, unit);
    }
    r->d->memory = v * factor;
    if (r->d->memory % 4096 != 0) {
        return bad(r, n, "%s %s is not a whole number of pages", s, unit);
    }
    r->have_memory = true;
    return 0;
}

static int take_vcpu(struct reader *r, const xmlNode *n)
{
    char s[16];
    char *end = s;
    int rc = text_of(r, n, NULL, s, sizeof s);
    unsigned long v = rc == 0 && isdigit((unsigned char)s[0]) ? strtoul(s, &end, 10) : 0;

    if (v < 1 || v > VCPUS_LIMIT || *end != '\0') {
        return bad(r, n, "must be a number from 1 to %d, not '%s'", VCPUS_LIMIT, s);
    }
    r->d->vcpus = (unsigned)v;
    return 0;
}

/* What is named must be had; "the host's" (mode host-model and the like) cannot be: every node
 * must show the same. */
static int take_cpu(struct reader *r, const xmlNode *n)
{
    const xmlNode *model = child(n, "model");
    char s[64];
    int rc = text_of(r, n, "mode", s, sizeof s);

    if (rc == 0 && strcmp(s, "custom") != 0) {
        warn(r->d, n, "mode '%s' is ignored: the CPU is %s", s, cpu_model_name(r->d->cpu));
        return 0;
    }
    if ((rc != 0 && rc != PLX_ENOENT) || model == NULL) {
        return rc == PLX_ENOENT ? 0 : rc;
    }
    rc = text_of(r, model, NULL, s, sizeof s);
    return rc == 0 && !cpu_model_find(s, &r->d->cpu)
               ? bad(r, model, "there is no '%s': use %s or %s", s, cpu_model_name(CPU_POLLUX_V2),
                     cpu_model_name(CPU_POLLUX_V3))
               : rc;
}

static int take_kernel(struct reader *r, const xmlNode *n)
{
    r->have_kernel = true;
    return path_of(r, n, NULL, r->d->kernel);
}

static int take_initrd(struct reader *r, const xmlNode *n)
{
    return path_of(r, n, NULL, r->d->initrd);
}

static int take_cmdline(struct reader *r, const xmlNode *n)
{
    return text_of(r, n, NULL, r->d->cmdline, sizeof r->d->cmdline);
}

static int take_os_type(struct reader *r, const xmlNode *n)
{
    char s[16], arch[16];
    int rc = text_of(r, n, NULL, s, sizeof s);

    if (rc != 0 || strcmp(s, "hvm") != 0) {
        return bad(r, n, "must be hvm");
    }
    rc = text_of(r, n, "arch", arch, sizeof arch);
    return rc == 0 && strcmp(arch, "x86_64") != 0 ? bad(r, n, "arch must be x86_64") : 0;
}

static int take_disk(struct reader *r, const xmlNode *n)
{
    struct domain *d = r->d;
    const xmlNode *source = child(n, "source");
    char s[32];

    if (d->ndisks == DOMAIN_DISKS_MAX) {
        return bad(r, n, "more than %d disks", DOMAIN_DISKS_MAX);
    }
    if (text_of(r, n, "type", s, sizeof s) != 0 || strcmp(s, "file") != 0) {
        return bad(r, n, "only type='file' is supported");
    }
    if (text_of(r, n, "device", s, sizeof s) == 0 && strcmp(s, "disk") != 0) {
        return bad(r, n, "only device='disk' is supported");
    }
    if (source == NULL) {
        return bad(r, n, "has no <source file='...'/>");
    }
    struct domain_disk *disk = &d->disks[d->ndisks];
    int rc = path_of(r, source, "file", disk->path);
    if (rc != 0) {
        return rc;
    }
    disk->readonly = child(n, "readonly") != NULL;
    const xmlNode *driver = child(n, "driver");
    if (driver != NULL && text_of(r, driver, "type", s, sizeof s) == 0 && strcmp(s, "raw") != 0) {
        return bad(r, driver, "only type='raw' is supported, not '%s'", s);
    }
    d->ndisks++;
    return 0;
}

static int take_interface(struct reader *r, const xmlNode *n)
{
    struct domain *d = r->d;
    const xmlNode *source = child(n, "source"), *mac = child(n, "mac");
    char s[32];

    if (d->nnics == DOMAIN_NICS_MAX) {
        return bad(r, n, "more than %d interfaces", DOMAIN_NICS_MAX);
    }
    if (text_of(r, n, "type", s, sizeof s) != 0 || strcmp(s, "bridge") != 0) {
        return bad(r, n, "only type='bridge' is supported");
    }
    struct domain_nic *nic = &d->nics[d->nnics];
    int rc = source != NULL ? attr_of(r, source, "bridge", nic->bridge, sizeof nic->bridge) : 0;
    if (rc != 0) {
        return rc;
    }
    if (mac != NULL) {
        unsigned b[6];
        char extra;
        rc = attr_of(r, mac, "address", s, sizeof s);
        if (rc != 0) {
            return rc;
        }
        if (sscanf(s, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
                   &extra) != 6) {
            return bad(r, mac, "'%s' is not a MAC address", s);
        }
        for (int i = 0; i < 6; i++) {
            nic->mac[i] = (uint8_t)b[i];
        }
        if ((nic->mac[0] & 1) != 0) {
            return bad(r, mac, "%s is a group address", s);
        }
        nic->has_mac = true;
    }
    d->nnics++;
    return 0;
}

static int take_rng(struct reader *r, const xmlNode *n)
{
    (void)n;
    r->d->rng = true;
    return 0;
}

static int take_protect(struct reader *r, const xmlNode *n)
{
    return yes_no(r, n, &r->d->protect);
}

static int take_primary(struct reader *r, const xmlNode *n)
{
    return text_of(r, n, NULL, r->d->primary, sizeof r->d->primary);
}

static int take_backup(struct reader *r, const xmlNode *n)
{
    return text_of(r, n, NULL, r->d->backup, sizeof r->d->backup);
}

static int take_state(struct reader *r, const xmlNode *n)
{
    return path_of(r, n, NULL, r->d->state_file);
}

/* Parent "" is <domain>. What has no function the machine has anyway, or its parent's function
 * reads it, or it makes no difference. */
static const struct element {
    const char *parent, *name;
    int (*take)(struct reader *r, const xmlNode *n);
    bool many; /* may stand more than once */
} elements[] = {
    {"", "name", take_name, false},
    {"", "uuid", take_uuid, false},
    {"", "title", NULL, false},
    {"", "description", NULL, false},
    {"", "memory", take_memory, false},
    {"", "currentMemory", NULL, false},
    {"", "vcpu", take_vcpu, false},
    {"", "cpu", take_cpu, false},
    {"cpu", "model", NULL, false},
    {"cpu", "topology", NULL, false},
    {"", "os", NULL, false},
    {"os", "type", take_os_type, false},
    {"os", "kernel", take_kernel, false},
    {"os", "initrd", take_initrd, false},
    {"os", "cmdline", take_cmdline, false},
    {"", "features", NULL, false},
    {"features", "acpi", NULL, false},
    {"features", "apic", NULL, false},
    {"features", "pae", NULL, false},
    {"", "devices", NULL, false},
    {"devices", "emulator", NULL, false},
    {"devices", "disk", take_disk, true},
    {"disk", "source", NULL, false},
    {"disk", "target", NULL, false},
    {"disk", "driver", NULL, false},
    {"disk", "readonly", NULL, false},
    {"disk", "address", NULL, false},
    {"disk", "alias", NULL, false},
    {"disk", "boot", NULL, false},
    {"devices", "interface", take_interface, true},
    {"interface", "source", NULL, false},
    {"interface", "mac", NULL, false},
    {"interface", "model", NULL, false},
    {"interface", "target", NULL, false},
    {"interface", "address", NULL, false},
    {"interface", "alias", NULL, false},
    {"devices", "serial", NULL, true},
    {"serial", "source", NULL, false},
    {"serial", "target", NULL, false},
    {"target", "model", NULL, false},
    {"serial", "address", NULL, false},
    {"serial", "alias", NULL, false},
    {"devices", "console", NULL, true},
    {"console", "source", NULL, false},
    {"console", "target", NULL, false},
    {"console", "address", NULL, false},
    {"console", "alias", NULL, false},
    {"devices", "rng", take_rng, false},
    {"rng", "backend", NULL, false},
    {"rng", "address", NULL, false},
    {"rng", "alias", NULL, false},
    {"", "metadata", NULL, false},
    {"metadata", "vm", NULL, false},
    {"vm", "protect", take_protect, false},
    {"vm", "primary", take_primary, false},
    {"vm", "backup", take_backup, false},
    {"vm", "state", take_state, false},
};

/* Attributes that ask for something the machine has in one way only: any other value is reported.
 */
static const struct {
    const char *parent, *name, *attr, *only; /* only NULL: any value is reported */
} attributes[] = {
    {"", "vcpu", "current", NULL},
    {"disk", "target", "bus", "virtio"},
    {"interface", "model", "type", "virtio"},
    {"devices", "rng", "model", "virtio"},
    {"devices", "serial", "type", "pty"},
    {"devices", "console", "type", "pty"},
};

static void report_attributes(struct reader *r, const char *parent, const xmlNode *n)
{
    for (size_t i = 0; i < PLX_COUNT(attributes); i++) {
        if (strcmp(attributes[i].parent, parent) != 0 ||
            strcmp(attributes[i].name, (const char *)n->name) != 0) {
            continue;
        }
        xmlChar *s = xmlGetProp((xmlNode *)(uintptr_t)n, (const xmlChar *)attributes[i].attr);
        const char *only = attributes[i].only;
        if (s != NULL && (only == NULL || strcmp((const char *)s, only) != 0)) {
            warn(r->d, n, "%s='%.32s' of <%s> in <%s> is ignored%s%s", attributes[i].attr,
                 (const char *)s, attributes[i].name, parent[0] != '\0' ? parent : "domain",
                 only != NULL ? ": it is " : "", only != NULL ? only : "");
        }
        xmlFree(s);
    }
}

static const struct element *find_element(const char *parent, const xmlNode *n)
{
    for (size_t i = 0; i < PLX_COUNT(elements); i++) {
        if (strcmp(elements[i].parent, parent) == 0 &&
            strcmp(elements[i].name, (const char *)n->name) == 0) {
            return &elements[i];
        }
    }
    return NULL;
}

static bool stands_before(const xmlNode *n)
{
    for (const xmlNode *p = n->prev; p != NULL; p = p->prev) {
        if (p->type == XML_ELEMENT_NODE && xmlStrEqual(p->name, n->name) &&
            owner_of(p) == owner_of(n)) {
            return true;
        }
    }
    return false;
}

static void report_unknown(struct reader *r, const char *parent, const xmlNode *n)
{
    const char *prefix = n->ns != NULL ? (const char *)n->ns->prefix : NULL;

    warn(r->d, n, "unknown element <%s%s%s>%s in <%s> is ignored", prefix != NULL ? prefix : "",
         prefix != NULL ? ":" : "", (const char *)n->name,
         owner_of(n) == FOREIGN                                      ? " of another namespace"
         : strcmp(parent, "metadata") == 0 && owner_of(n) == LIBVIRT ? " without a namespace"
                                                                     : "",
         parent[0] != '\0' ? parent : "domain");
}

/* Below every element of the table: what is in none of its places is unknown. */
static int walk(struct reader *r, const xmlNode *parent, const char *name)
{
    bool metadata = strcmp(name, "metadata") == 0;
    enum owner owner = metadata || strcmp(name, "vm") == 0 ? OURS : LIBVIRT;

    for (const xmlNode *n = parent->children; n != NULL; n = n->next) {
        if (n->type != XML_ELEMENT_NODE || (metadata && owner_of(n) == FOREIGN)) {
            continue; /* other programs' metadata is theirs */
        }
        const struct element *e = owner_of(n) == owner ? find_element(name, n) : NULL;
        if (e == NULL) {
            report_unknown(r, name, n);
            continue;
        }
        if (!e->many && stands_before(n)) {
            return bad(r, n, "stands twice in <%s>", name[0] != '\0' ? name : "domain");
        }
        report_attributes(r, name, n);
        int rc = e->take != NULL ? e->take(r, n) : 0;
        if (rc == 0) {
            rc = walk(r, n, e->name);
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int check(struct reader *r, const xmlNode *root)
{
    if (!r->have_name) {
        return bad(r, root, "has no <name>");
    }
    if (!r->have_memory) {
        return bad(r, root, "has no <memory>");
    }
    if (!r->have_kernel && r->d->state_file[0] == '\0') {
        return bad(r, root, "has no <os><kernel>: Pollux boots a kernel directly");
    }
    return 0;
}

int domain_parse(const char *xml, size_t len, struct domain *d, struct plx_err *err)
{
    struct reader r = {.d = d, .err = err};
    int rc;

    memset(d, 0, sizeof *d);
    d->vcpus = 1;
    if (len >= ROLES_XML_MAX) {
        return plx_fail(err, PLX_EINVAL, "the definition has %zu bytes, more than %d", len,
                        ROLES_XML_MAX - 1);
    }
    xmlParserCtxt *ctx = xmlNewParserCtxt();
    xmlDoc *doc =
        ctx == NULL ? NULL
                    : xmlCtxtReadMemory(ctx, xml, (int)len, "definition", NULL,
                                        XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (doc == NULL) {
        const xmlError *e = ctx != NULL ? xmlCtxtGetLastError(ctx) : NULL;
        rc = plx_fail(err, PLX_EINVAL, "not XML: line %d: %s", e != NULL ? e->line : 0,
                      e != NULL && e->message != NULL ? e->message : "out of memory");
        size_t n = err != NULL ? strlen(err->msg) : 0;
        if (n > 0 && err->msg[n - 1] == '\n') {
            err->msg[n - 1] = '\0';
        }
        xmlFreeParserCtxt(ctx);
        return rc;
    }
    const xmlNode *root = xmlDocGetRootElement(doc);
    if (doc->intSubset != NULL || doc->extSubset != NULL) {
        rc = plx_fail(err, PLX_EINVAL, "a document type (DOCTYPE) is not allowed in a definition");
    } else if (root == NULL || strcmp((const char *)root->name, "domain") != 0) {
        rc = plx_fail(err, PLX_EINVAL, "the root element is <%s>, not <domain>",
                      root != NULL ? (const char *)root->name : "");
    } else if (owner_of(root) != LIBVIRT) {
        rc =
            plx_fail(err, PLX_EINVAL,
                     "the root element <domain> is in the namespace '%.100s', libvirt's is in none",
                     (const char *)root->ns->href);
    } else {
        rc = walk(&r, root, "");
        if (rc == 0) {
            rc = check(&r, root);
        }
    }
    xmlFreeDoc(doc);
    xmlFreeParserCtxt(ctx);
    return rc;
}

void domain_mac(const struct domain *d, const uint8_t uuid[ROLES_UUID_LEN], unsigned i,
                uint8_t mac[6])
{
    static const uint8_t prefix[3] = {0x52, 0x54, 0x00}; /* locally administered */
    uint8_t sha[SHA256_LEN], in[ROLES_UUID_LEN + 1];

    if (d->nics[i].has_mac) {
        memcpy(mac, d->nics[i].mac, 6);
        return;
    }
    memcpy(in, uuid, ROLES_UUID_LEN);
    in[ROLES_UUID_LEN] = (uint8_t)i;
    sha256(in, sizeof in, sha);
    memcpy(mac, prefix, 3);
    memcpy(mac + 3, sha, 3);
}

bool uuid_parse(const char *s, uint8_t out[ROLES_UUID_LEN])
{
    unsigned digits = 0;

    for (; *s != '\0'; s++) {
        if (*s == '-' && digits > 0 && digits % 4 == 0) {
            continue;
        }
        if (!isxdigit((unsigned char)*s) || digits == 2 * ROLES_UUID_LEN) {
            return false;
        }
        uint8_t v = (uint8_t)(isdigit((unsigned char)*s) ? *s - '0'
                                                         : tolower((unsigned char)*s) - 'a' + 10);
        out[digits / 2] = (uint8_t)(digits % 2 == 0 ? v << 4 : out[digits / 2] | v);
        digits++;
    }
    return digits == 2 * ROLES_UUID_LEN;
}

const char *uuid_text(const uint8_t uuid[ROLES_UUID_LEN], char out[UUID_TEXT])
{
    char *at = out;

    for (int i = 0; i < ROLES_UUID_LEN; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *at++ = '-';
        }
        at += snprintf(at, 3, "%02x", uuid[i]);
    }
    return out;
}
