/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd_image_net.c - the verbs of `pollux image` that talk: serve, pull, listing a
 * server, and where a push goes.
 */
#include "ops/cmd_image_net.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "ops/image_role.h"
#include "storage/store_remote.h"

enum { KEYS_FILE_MAX = 1 << 20, ANSWER_MS = 10000, PATH_CAP = 4096, CACHE_MIB = 4096 };
#define TICK_NS UINT64_C(100000000)

/* --- keys ----------------------------------------------------------------------------------- */

static int own_key(const struct image_args *a, struct curve_pair *out, struct plx_err *err)
{
    if (a->key == NULL) {
        return plx_fail(err, PLX_EINVAL, "give --key (`polluxd --keygen --key FILE` makes one)");
    }
    return curve_read_file(a->key, out, err);
}

/* The first "public = HEX" or bare hex line of a file. */
static int key_of_file(const char *path, uint8_t out[CURVE_KEY_LEN], struct plx_err *err)
{
    struct wbuf text;
    bool found = false;
    char *save = NULL;
    int rc = io_read_file(path, KEYS_FILE_MAX, &text, err);

    if (rc != 0) {
        return rc;
    }
    wbuf_u8(&text, 0);
    for (char *line = text.failed ? NULL : strtok_r((char *)text.data, "\n", &save);
         line != NULL && !found; line = strtok_r(NULL, "\n", &save)) {
        const char *eq = strchr(line, '=');
        found = strncmp(line, "secret", 6) != 0 && curve_from_hex(eq != NULL ? eq + 1 : line, out);
    }
    wbuf_free(&text);
    return found ? 0 : plx_fail(err, PLX_ECORRUPT, "%s holds no public key (64 hex digits)", path);
}

/* --- serve ---------------------------------------------------------------------------------- */

int image_serve(struct image_args *a, struct plx_err *err)
{
    struct image_role_config cfg = {
        .store = image_store_path(a), .listen = a->listen, .clients = a->clients};
    struct image_role *role = NULL;
    struct image_server_stats st;
    struct curve_pair key;
    char hex[CURVE_KEY_HEX];
    unsigned clients;

    if (a->listen == NULL || a->clients == NULL) {
        return plx_fail(err, PLX_EINVAL, "give --listen tcp://ADDRESS:PORT and --clients FILE");
    }
    int rc = own_key(a, &key, err);
    if (rc != 0) {
        return rc;
    }
    cfg.key = &key;
    rc = image_role_start(&cfg, &role, &clients, err);
    explicit_bzero(key.secret_key, sizeof key.secret_key);
    if (rc != 0) {
        return rc;
    }
    (void)printf("serving %s at %s to %u keys; our public key is %s\n", cfg.store, cfg.listen,
                 clients, curve_hex(key.public_key, hex));
    (void)fflush(stdout);
    while (!image_interrupted) {
        clock_sleep_ns(TICK_NS);
        if (image_role_refresh(role, &clients)) {
            (void)printf("%s names %u keys now\n", cfg.clients, clients);
            (void)fflush(stdout);
        }
    }
    image_role_stats(role, &st);
    (void)printf("sent %" PRIu64 " segments, %" PRIu64 " bytes; took in %" PRIu64
                 " segments, %" PRIu64 " bytes, %" PRIu64 " images\n",
                 st.segments, st.bytes, st.put_segments, st.put_bytes, st.names);
    image_role_stop(role);
    return 0;
}

/* --- connecting ----------------------------------------------------------------------------- */

/* "tcp://HOST:PORT,KEY": KEY is 64 hex digits or a file. */
static int parse_server(const char *text, char endpoint[SERVER_TEXT], struct client_server *out,
                        struct plx_err *err)
{
    const char *comma = strchr(text, ',');

    if (strncmp(text, "tcp://", 6) != 0 || comma == NULL || comma - text >= SERVER_TEXT) {
        return plx_fail(err, PLX_EINVAL, "--server: must be tcp://HOST:PORT,KEY, not '%s'", text);
    }
    (void)snprintf(endpoint, SERVER_TEXT, "%.*s", (int)(comma - text), text);
    out->endpoint = endpoint;
    return curve_from_hex(comma + 1, out->key) ? 0 : key_of_file(comma + 1, out->key, err);
}

int image_connection_open(const struct image_args *a, struct image_connection *c,
                          struct image_client_config *cfg, struct plx_err *err)
{
    int rc = own_key(a, &cfg->key, err);

    for (unsigned i = 0; i < a->nservers && rc == 0; i++) {
        rc = parse_server(a->servers[i], c->endpoints[i], &cfg->servers[i], err);
    }
    if (rc != 0) {
        return rc;
    }
    cfg->nservers = a->nservers;
    c->zmq = zmq_ctx_new();
    cfg->zmq = c->zmq;
    cfg->interrupted = &image_interrupted;
    rc = image_client_open(cfg, &c->client, err);
    explicit_bzero(&cfg->key, sizeof cfg->key);
    if (rc != 0) {
        (void)zmq_ctx_term(c->zmq);
        c->zmq = NULL;
    }
    return rc;
}

void image_connection_close(struct image_connection *c)
{
    if (c->zmq != NULL) {
        image_client_close(c->client);
        (void)zmq_ctx_term(c->zmq);
        *c = (struct image_connection){.client = NULL};
    }
}

int image_target_open(const struct image_args *a, struct image_target *t, struct plx_err *err)
{
    struct image_client_config cfg = {.greedy = true};

    if (a->nservers == 0) {
        return store_open(image_store_path(a), true, &t->store, err);
    }
    if (a->nservers > 1 || a->store != NULL) {
        return plx_fail(err, PLX_EINVAL,
                        "give one --server, or a --store: what changes images goes to one place");
    }
    int rc = store_open_memory(&t->none, err);
    if (rc == 0) {
        cfg.store = t->none;
        rc = image_connection_open(a, &t->c, &cfg, err);
    }
    if (rc == 0) {
        rc = image_client_may_push(t->c.client, ANSWER_MS, err);
    }
    return rc != 0 ? rc : store_open_remote(t->c.client, &t->store, err);
}

void image_target_close(struct image_target *t)
{
    store_close(t->store);
    image_connection_close(&t->c);
    store_close(t->none);
    *t = (struct image_target){.store = NULL};
}

int image_cache_open(const struct image_args *a, struct store **out, struct plx_err *err)
{
    const char *env = getenv("POLLUX_CACHE"), *home = getenv("HOME");
    char path[PATH_CAP];

    if (a->cache != NULL || env != NULL) {
        (void)snprintf(path, sizeof path, "%s", a->cache != NULL ? a->cache : env);
    } else {
        (void)snprintf(path, sizeof path, "%s/.cache/pollux/segments",
                       home != NULL ? home : "/tmp");
    }
    if (io_make_folders(path) != 0) {
        return plx_fail_errno(err, "cannot make %s", path);
    }
    return store_open_cache(path, (a->cache_mib != 0 ? a->cache_mib : CACHE_MIB) << 20, out, err);
}

/* --- list ----------------------------------------------------------------------------------- */

int image_list_remote(struct image_args *a, struct plx_err *err)
{
    struct image_connection c = {.client = NULL};
    struct image_client_config cfg = {.greedy = true};
    struct image_ref *refs = NULL;
    size_t n = 0;
    int rc = store_open_memory(&cfg.store, err);

    if (rc == 0) {
        rc = image_connection_open(a, &c, &cfg, err);
    }
    if (rc == 0) {
        rc = image_client_list(c.client, a->nargs > 0 ? a->args[0] : NULL, a->os, a->app, ANSWER_MS,
                               &refs, &n, err);
    }
    if (rc == 0) {
        rc = image_print_list(a, refs, n);
    }
    for (size_t i = 0; i < n; i++) {
        image_ref_free(&refs[i]);
    }
    plx_free(refs);
    image_connection_close(&c);
    store_close(cfg.store);
    return rc;
}

/* --- pull ----------------------------------------------------------------------------------- */

struct pull {
    struct store *store;
    const struct manifest *m;
    pthread_mutex_t lock; /* of all below */
    unsigned stream;
    size_t next;
    struct seg_set asked; /* equal segments once */
    uint64_t left;        /* asked for and not here yet */
    struct image_progress p;
    struct image_meter meter;
    bool failed;
};

static bool next_missing(void *ctx, struct seg_id *id, enum client_urgency *urgency)
{
    struct pull *p = ctx;
    bool found = false;

    (void)pthread_mutex_lock(&p->lock);
    while (p->m != NULL && !found && p->stream < STREAMS) {
        const struct manifest_stream *s = &p->m->streams[p->stream];
        if (p->next == s->n) {
            p->stream++;
            p->next = 0;
            continue;
        }
        const struct manifest_segment *g = &s->segs[p->next++];
        p->p.segments++;
        p->p.data_bytes += g->len;
        if (seg_set_has(&p->asked, &g->id) || store_has(p->store, &g->id, NULL) == 1) {
            p->p.shared++;
            p->p.shared_bytes += g->len;
            p->p.bytes += g->len;
        } else if (seg_set_add(&p->asked, &g->id) != 0) {
            p->failed = true;
        } else {
            *id = g->id;
            *urgency = CLIENT_REST;
            p->left++;
            found = true;
        }
    }
    (void)pthread_mutex_unlock(&p->lock);
    return found;
}

static void on_arrived(void *ctx, const struct seg_id *id, uint32_t raw_len,
                       enum client_urgency urgency)
{
    struct pull *p = ctx;

    (void)id;
    (void)pthread_mutex_lock(&p->lock);
    if (urgency == CLIENT_REST) {
        p->left--;
        p->p.bytes += raw_len;
        (void)image_meter_tick(&p->meter, &p->p);
    }
    (void)pthread_mutex_unlock(&p->lock);
}

/* Everything the manifest names, then the name. */
static int pull_all(struct pull *p, struct image_connection *c, const struct image_ref *ref,
                    const struct manifest *m, struct plx_err *err)
{
    bool done = false;

    (void)pthread_mutex_lock(&p->lock);
    p->m = m;
    for (int k = 0; k < STREAMS; k++) {
        p->p.total += manifest_data(&m->streams[k]);
    }
    (void)pthread_mutex_unlock(&p->lock);
    image_client_poke(c->client);
    while (!done && !image_interrupted) {
        clock_sleep_ns(TICK_NS / 20);
        (void)pthread_mutex_lock(&p->lock);
        done = p->failed || (p->stream == STREAMS && p->left == 0);
        (void)pthread_mutex_unlock(&p->lock);
    }
    if (image_interrupted) {
        return plx_fail(err, PLX_ECANCELED, "stopped; the same pull goes on from here");
    }
    if (p->failed) {
        return plx_fail(err, PLX_ENOMEM, "pull: out of memory");
    }
    return image_adopt(p->store, ref, m, NULL, err);
}

static void report_pull(const struct pull *p, const struct image_ref *ref,
                        const struct image_client_stats *st)
{
    uint64_t bytes = st->got[0].bytes + st->got[1].bytes + st->got[2].bytes;
    double s = image_meter_seconds(&p->meter);
    char data[32], shared[32], got[32], rate[32];

    (void)printf("%s:%s: %s of data, %s was here, %s received; %.2f s, %s/s\n", ref->name, ref->tag,
                 image_size_text(p->p.data_bytes, data), image_size_text(p->p.shared_bytes, shared),
                 image_size_text(bytes, got), s,
                 image_size_text((uint64_t)((double)p->p.data_bytes / (s > 0 ? s : 1)), rate));
}

int image_pull(struct image_args *a, struct plx_err *err)
{
    char name[IMAGE_TEXT], tag[IMAGE_TEXT];
    struct image_connection c = {.client = NULL};
    struct image_client_stats st;
    struct manifest m = {.chunk_avg = 0};
    struct image_ref ref = {.bytes = 0};
    struct pull p = {.m = NULL};
    struct image_client_config cfg = {
        .greedy = true, .next = next_missing, .arrived = on_arrived, .ctx = &p};
    struct wbuf text, profile;
    int rc = image_name_parse(a->args[0], name, tag, err);

    if (rc == 0 && a->nservers == 0) {
        rc = plx_fail(err, PLX_EINVAL, "give --server tcp://HOST:PORT,KEY");
    }
    if (rc == 0) {
        rc = store_open(image_store_path(a), true, &p.store, err);
    }
    if (rc != 0) {
        return rc;
    }
    wbuf_init(&text);
    (void)pthread_mutex_init(&p.lock, NULL);
    image_meter_start(&p.meter, a->args[0], a->quiet);
    cfg.store = p.store;
    rc = image_connection_open(a, &c, &cfg, err);
    if (rc == 0) {
        rc = image_client_image(c.client, name, tag, ANSWER_MS, &ref, err);
    }
    if (rc == 0) {
        rc = store_get_blob(&ref.manifest, image_client_fetch, c.client, &text, err);
    }
    if (rc == 0) {
        rc = image_manifest_open(&ref, text.data, text.len, &m, err);
    }
    if (rc == 0) {
        rc = store_get_blob(&ref.profile, image_client_fetch, c.client, &profile, err);
        wbuf_free(&profile);
    }
    if (rc == 0) {
        rc = pull_all(&p, &c, &ref, &m, err);
        image_meter_end(&p.meter);
    }
    if (rc == 0) {
        image_client_stats(c.client, &st);
        report_pull(&p, &ref, &st);
    }
    image_connection_close(&c);
    manifest_free(&m);
    image_ref_free(&ref);
    wbuf_free(&text);
    seg_set_free(&p.asked);
    (void)pthread_mutex_destroy(&p.lock);
    store_close(p.store);
    return rc;
}
