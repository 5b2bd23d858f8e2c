/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/conf.c - see conf.h. One table names every key; each value is checked where it is
 * read. A line is "[section]", "key = value", or a comment after '#' or ';' at its start. */
#include "ops/polluxd/conf.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "base/io.h"
#include "vmm/engine/engine.h"

enum {
    CONF_FILE_MAX = 1 << 16,
    SOCKET_PATH_MAX = sizeof((struct sockaddr_un *)0)->sun_path - 1,
    REPLICA_SOCKET = 1 + 16 + 5 /* "/", an incarnation, ".sock": in run_dir */
};

enum type { TEXT, PATH, NUMBER, RANGE };

#define FIELD(member) offsetof(struct conf, member), sizeof(((struct conf *)0)->member)
#define MEMBER(member) \
    offsetof(struct conf_member, member), sizeof(((struct conf_member *)0)->member)

/* Keys of [member NAME] lie in struct conf_member, the others in struct conf. */
static const struct key {
    const char *section, *name;
    enum type type;
    size_t offset, size;
    const char *preset; /* NULL: must be given */
    unsigned min, max;  /* NUMBER and both ends of a RANGE */
} keys[] = {
    {"cluster", "name", TEXT, FIELD(cluster), "pollux", 0, 0},
    {"cluster", "election_ms", NUMBER, FIELD(election_ms), "150", 20, 60000},
    {"cluster", "heartbeat_ms", NUMBER, FIELD(heartbeat_ms), "30", 5, 20000},
    {"node", "name", TEXT, FIELD(name), NULL, 0, 0},
    {"node", "key", PATH, FIELD(key_file), "/etc/pollux/node.key", 0, 0},
    {"node", "run_dir", PATH, FIELD(run_dir), "/run/pollux", 0, 0},
    {"node", "state_dir", PATH, FIELD(state_dir), "/var/lib/pollux", 0, 0},
    {"node", "socket", PATH, FIELD(socket), CONF_DEFAULT_SOCKET, 0, 0},
    {"node", "bind", TEXT, FIELD(bind), "", 0, 0},
    {"node", "bridge", TEXT, FIELD(bridge), "br0", 0, 0},
    {"node", "metrics", TEXT, FIELD(metrics), "", 0, 0},
    {"replica", "address", TEXT, FIELD(replica_address), "", 0, 0},
    {"replica", "ports", RANGE, FIELD(replica_port_first), "7400-7499", 1, 65535},
    {"replica", "program", TEXT, FIELD(replica_program), "", 0, 0},
    {"replica", "user", TEXT, FIELD(replica_user), "", 0, 0},
    {"replica", "peer_lost_ms", NUMBER, FIELD(peer_lost_ms), "0", 0, 60000},
    {"replica", "lag_max_ms", NUMBER, FIELD(lag_max_ms), "0", 0, 60000},
    {"replica", "slice_us", NUMBER, FIELD(slice_us), "0", 0, 100000},
    {"replica", "digest_slices", NUMBER, FIELD(digest_slices), "0", 0, 1000000},
    {"replica", "scrub_s", NUMBER, FIELD(scrub_s), "0", 0, 86400},
    {"replica", "divergence", TEXT, FIELD(divergence), "trust-primary", 0, 0},
    {"replica", "engine", TEXT, FIELD(engine), "", 0, 0},
    {"replica", "takeover", TEXT, FIELD(takeover), "yes", 0, 0},
    {"images", "listen", TEXT, FIELD(images_listen), "", 0, 0},
    {"images", "store", PATH, FIELD(images_store), "/var/lib/pollux/images", 0, 0},
    {"images", "clients", PATH, FIELD(images_clients), "/etc/pollux/image-clients", 0, 0},
    {"member", "id", NUMBER, MEMBER(id), NULL, 1, 1000000},
    {"member", "address", TEXT, MEMBER(address), NULL, 0, 0},
    {"member", "public_key", TEXT, MEMBER(public_key), NULL, 0, 0},
};

struct where {
    const char *file;
    int line;
};

static int number(const char *s, unsigned min, unsigned max, unsigned *out, const char **end)
{
    char *e;
    unsigned long long v;

    if (!isdigit((unsigned char)*s)) {
        return PLX_EINVAL;
    }
    v = strtoull(s, &e, 10);
    *end = e;
    if (v < min || v > max) {
        return PLX_ERANGE;
    }
    *out = (unsigned)v;
    return 0;
}

static int set(const struct where *w, const struct key *k, void *base, const char *value,
               struct plx_err *err)
{
    char *field = (char *)base + k->offset;
    const char *end;

    switch (k->type) {
    case TEXT:
    case PATH:
        if (strlen(value) >= k->size) {
            return plx_fail(err, PLX_EINVAL, "%s:%d: %s is longer than %zu characters", w->file,
                            w->line, k->name, k->size - 1);
        }
        if (k->type == PATH && value[0] != '/') {
            return plx_fail(err, PLX_EINVAL, "%s:%d: %s must be an absolute path, not '%s'",
                            w->file, w->line, k->name, value);
        }
        (void)strcpy(field, value);
        return 0;
    case NUMBER:
        if (number(value, k->min, k->max, (unsigned *)(void *)field, &end) == 0 && *end == '\0') {
            return 0;
        }
        return plx_fail(err, PLX_EINVAL, "%s:%d: %s must be a number from %u to %u, not '%s'",
                        w->file, w->line, k->name, k->min, k->max, value);
    case RANGE:
        if (number(value, k->min, k->max, (unsigned *)(void *)field, &end) == 0 && *end == '-' &&
            number(end + 1, *(unsigned *)(void *)field, k->max, (unsigned *)(void *)field + 1,
                   &end) == 0 &&
            *end == '\0') {
            return 0;
        }
        return plx_fail(err, PLX_EINVAL, "%s:%d: %s must be FIRST-LAST within %u to %u, not '%s'",
                        w->file, w->line, k->name, k->min, k->max, value);
    }
    return PLX_EINVAL;
}

static const struct key *find_key(const char *section, const char *name)
{
    for (size_t i = 0; i < PLX_COUNT(keys); i++) {
        if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

static char *trim(char *s)
{
    s += strspn(s, " \t\r");
    size_t n = strlen(s);
    while (n > 0 && strchr(" \t\r", s[n - 1]) != NULL) {
        s[--n] = '\0';
    }
    return s;
}

struct parser {
    struct where at;
    struct conf *c;
    char section[CONF_NAME_MAX];
    struct conf_member *member; /* of [member NAME] */
    uint64_t seen;              /* bit per key of the top sections */
    uint64_t member_seen[CONF_NODES_MAX];
};

static int open_section(struct parser *p, char *s, struct plx_err *err)
{
    size_t n = strlen(s);

    if (n < 3 || s[n - 1] != ']' || n - 2 >= sizeof p->section) {
        return plx_fail(err, PLX_EINVAL, "%s:%d: malformed section '%s'", p->at.file, p->at.line,
                        s);
    }
    s[n - 1] = '\0';
    s = trim(s + 1);
    p->member = NULL;
    if (strncmp(s, "member", 6) == 0 && (s[6] == ' ' || s[6] == '\t')) {
        const char *name = trim(s + 6);
        if (conf_member_by_name(p->c, name) != NULL) {
            return plx_fail(err, PLX_EINVAL, "%s:%d: member %s is given twice", p->at.file,
                            p->at.line, name);
        }
        if (p->c->nmembers == CONF_NODES_MAX) {
            return plx_fail(err, PLX_ERANGE, "%s:%d: more than %d members", p->at.file, p->at.line,
                            CONF_NODES_MAX);
        }
        p->member = &p->c->members[p->c->nmembers++];
        (void)snprintf(p->member->name, sizeof p->member->name, "%s", name);
        (void)strcpy(p->section, "member");
        return 0;
    }
    if (strcmp(s, "cluster") != 0 && strcmp(s, "node") != 0 && strcmp(s, "replica") != 0 &&
        strcmp(s, "images") != 0) {
        return plx_fail(err, PLX_EINVAL,
                        "%s:%d: unknown section [%s] (cluster, node, replica, images, member NAME)",
                        p->at.file, p->at.line, s);
    }
    (void)strcpy(p->section, s);
    return 0;
}

static int parse_line(struct parser *p, char *line, struct plx_err *err)
{
    char *eq;

    line = trim(line);
    if (*line == '\0' || *line == '#' || *line == ';') {
        return 0;
    }
    if (*line == '[') {
        return open_section(p, line, err);
    }
    eq = strchr(line, '=');
    if (eq == NULL) {
        return plx_fail(err, PLX_EINVAL, "%s:%d: expected 'key = value', found '%s'", p->at.file,
                        p->at.line, line);
    }
    *eq = '\0';
    const char *name = trim(line);
    const struct key *k = find_key(p->section, name);
    if (k == NULL) {
        return plx_fail(err, PLX_EINVAL, "%s:%d: unknown key '%s' in section [%s]", p->at.file,
                        p->at.line, name, p->section);
    }
    uint64_t *seen = p->member != NULL ? &p->member_seen[p->member - p->c->members] : &p->seen;
    uint64_t bit = UINT64_C(1) << (k - keys);
    if ((*seen & bit) != 0) {
        return plx_fail(err, PLX_EINVAL, "%s:%d: %s is given twice", p->at.file, p->at.line, name);
    }
    *seen |= bit;
    return set(&p->at, k, p->member != NULL ? (void *)p->member : (void *)p->c, trim(eq + 1), err);
}

static int presets(struct parser *p, struct plx_err *err)
{
    for (size_t i = 0; i < PLX_COUNT(keys); i++) {
        const struct key *k = &keys[i];
        uint64_t bit = UINT64_C(1) << i;
        if (strcmp(k->section, "member") == 0) {
            for (unsigned m = 0; m < p->c->nmembers; m++) {
                if ((p->member_seen[m] & bit) == 0) {
                    return plx_fail(err, PLX_EINVAL, "%s: [member %s] has no %s", p->at.file,
                                    p->c->members[m].name, k->name);
                }
            }
        } else if ((p->seen & bit) == 0) {
            if (k->preset == NULL) {
                return plx_fail(err, PLX_EINVAL, "%s: section [%s] has no %s", p->at.file,
                                k->section, k->name);
            }
            p->at.line = 0;
            PLX_CHECK(set(&p->at, k, p->c, k->preset, err) == 0);
        }
    }
    return 0;
}

static int check_paths(const char *file, const struct conf *c, struct plx_err *err)
{
    if (strlen(c->socket) > SOCKET_PATH_MAX) {
        return plx_fail(err, PLX_EINVAL, "%s: socket is longer than %d characters", file,
                        SOCKET_PATH_MAX);
    }
    if (strlen(c->run_dir) > SOCKET_PATH_MAX - REPLICA_SOCKET) {
        return plx_fail(err, PLX_EINVAL,
                        "%s: run_dir, which holds the replicas' sockets, is longer than %d "
                        "characters",
                        file, SOCKET_PATH_MAX - REPLICA_SOCKET);
    }
    return 0;
}

static int check(const char *file, struct conf *c, struct plx_err *err)
{
    const struct conf_member *me = conf_member_by_name(c, c->name);

    if (me == NULL) {
        return plx_fail(err, PLX_EINVAL, "%s: there is no [member %s] for this node", file,
                        c->name);
    }
    c->self = me->id;
    for (unsigned i = 0; i < c->nmembers; i++) {
        struct conf_member *m = &c->members[i];
        for (unsigned k = 0; k < i; k++) {
            if (c->members[k].id == m->id) {
                return plx_fail(err, PLX_EINVAL, "%s: members %s and %s have the same id %u", file,
                                c->members[k].name, m->name, m->id);
            }
        }
        if (strncmp(m->address, "tcp://", 6) != 0 || strrchr(m->address + 6, ':') == NULL) {
            return plx_fail(err, PLX_EINVAL, "%s: member %s: address must be tcp://HOST:PORT", file,
                            m->name);
        }
        c->peers[i].id = m->id;
        (void)strcpy(c->peers[i].endpoint, m->address);
        if (!curve_from_hex(m->public_key, c->peers[i].key)) {
            return plx_fail(err, PLX_EINVAL, "%s: member %s: public_key must be 64 hex digits",
                            file, m->name);
        }
    }
    if (c->bind[0] == '\0') {
        (void)strcpy(c->bind, me->address);
    }
    if (c->replica_address[0] == '\0') {
        (void)strcpy(c->replica_address, me->address + 6);
        *strrchr(c->replica_address, ':') = '\0';
    }
    if (c->images_listen[0] != '\0' && strncmp(c->images_listen, "tcp://", 6) != 0) {
        return plx_fail(err, PLX_EINVAL, "%s: [images] listen must be tcp://ADDRESS:PORT", file);
    }
    if (c->heartbeat_ms * 2 > c->election_ms) {
        return plx_fail(err, PLX_EINVAL, "%s: election_ms must be at least twice heartbeat_ms",
                        file);
    }
    if (strcmp(c->divergence, "trust-primary") != 0 && strcmp(c->divergence, "stop") != 0) {
        return plx_fail(err, PLX_EINVAL, "%s: divergence must be trust-primary or stop", file);
    }
    if (strcmp(c->takeover, "yes") != 0 && strcmp(c->takeover, "no") != 0) {
        return plx_fail(err, PLX_EINVAL, "%s: takeover must be yes or no", file);
    }
    if (c->engine[0] != '\0' && engine_find(c->engine) == NULL) {
        return plx_fail(err, PLX_EINVAL, "%s: there is no engine '%s': use auto", file, c->engine);
    }
    return check_paths(file, c, err);
}

int conf_parse(const char *text, const char *name, struct conf *c, struct plx_err *err)
{
    struct parser p = {.at = {.file = name}, .c = c};
    char line[PATH_MAX + 256];

    memset(c, 0, sizeof *c);
    for (const char *s = text; *s != '\0';) {
        size_t n = strcspn(s, "\n");
        p.at.line++;
        if (n >= sizeof line) {
            return plx_fail(err, PLX_EINVAL, "%s:%d: line too long", name, p.at.line);
        }
        memcpy(line, s, n);
        line[n] = '\0';
        int rc = parse_line(&p, line, err);
        if (rc != 0) {
            return rc;
        }
        s += n + (s[n] == '\n');
    }
    int rc = presets(&p, err);
    return rc != 0 ? rc : check(name, c, err);
}

/* The path of another program in the directory of this one. */
static int beside_own_program(const char *name, char out[PATH_MAX], struct plx_err *err)
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    char *slash;

    out[n > 0 ? n : 0] = '\0';
    slash = strrchr(out, '/');
    if (slash == NULL || (size_t)(slash + 1 - out) + strlen(name) >= PATH_MAX) {
        return plx_fail(err, PLX_ENOENT, "cannot tell where %s is: set [replica] program", name);
    }
    (void)strcpy(slash + 1, name);
    return 0;
}

int conf_load(const char *path, struct conf *c, struct plx_err *err)
{
    struct wbuf text;
    int rc = io_read_file(path, CONF_FILE_MAX, &text, err);

    if (rc != 0) {
        return plx_err_wrap(err, rc, "configuration");
    }
    if (memchr(text.data, '\0', text.len) != NULL) {
        wbuf_free(&text);
        return plx_fail(err, PLX_EINVAL, "configuration: %s is not text", path);
    }
    wbuf_u8(&text, 0);
    rc = text.failed ? plx_fail(err, PLX_ENOMEM, "cannot read %s: out of memory", path)
                     : conf_parse((const char *)text.data, path, c, err);
    wbuf_free(&text);
    if (rc == 0 && c->replica_program[0] == '\0') {
        rc = beside_own_program("pollux-replica", c->replica_program, err);
    }
    return rc != 0 ? rc : curve_read_file(c->key_file, &c->key, err);
}

const struct conf_member *conf_member_by_id(const struct conf *c, uint32_t id)
{
    for (unsigned i = 0; i < c->nmembers; i++) {
        if (c->members[i].id == id) {
            return &c->members[i];
        }
    }
    return NULL;
}

const struct conf_member *conf_member_by_name(const struct conf *c, const char *name)
{
    for (unsigned i = 0; i < c->nmembers; i++) {
        if (strcmp(c->members[i].name, name) == 0) {
            return &c->members[i];
        }
    }
    return NULL;
}

const char *conf_node_name(const struct conf *c, uint32_t id)
{
    const struct conf_member *m = conf_member_by_id(c, id);

    return id == 0 ? "-" : m != NULL ? m->name : "?";
}
