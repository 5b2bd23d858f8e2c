/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/metrics.c - Prometheus metrics over HTTP (text exposition format 0.0.4). The loop
 * writes the whole text once a second; the server's thread only hands out the newest. */
#include <arpa/inet.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "ops/image_role.h"
#include "ops/polluxd/daemon.h"
#include "vmm/mmu/shadow.h"

struct metrics {
    struct MHD_Daemon *http;
    pthread_mutex_t lock; /* text */
    struct wbuf text;
    struct wbuf next; /* the loop's */
};

static void put(struct wbuf *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct wbuf *w, const char *fmt, ...)
{
    char line[512];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    wbuf_put(w, line, n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static double peers_up(const struct daemon *d)
{
    double n = 0;

    for (unsigned i = 0; i < d->conf->nmembers; i++) {
        uint32_t id = d->conf->members[i].id;
        n += id != d->conf->self && cluster_node_up(d->cluster, id);
    }
    return n;
}

static double replicas_here(const struct daemon *d)
{
    double n = 0;

    for (const struct child *c = d->children; c != NULL; c = c->next) {
        n += !c->closed;
    }
    return n;
}

static void put_head(struct wbuf *w, const char *name, const char *type, const char *help)
{
    put(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_vm_labels(struct wbuf *w, const struct daemon *d, const char *name,
                          const struct roles_vm *vm, const char *role)
{
    char text[UUID_TEXT];

    put(w, "%s{node=\"%s\",name=\"%s\",uuid=\"%s\"", name, d->conf->name, vm->name,
        uuid_text(vm->uuid, text));
    if (role != NULL) {
        put(w, ",role=\"%s\"", role);
    }
    put(w, "} ");
}

static void render(struct daemon *d, struct wbuf *w)
{
    const struct roles_state *st = cluster_state(d->cluster);
    uint64_t now = clock_mono_ns();
    struct image_server_stats images = {.clients = 0};

    if (d->images != NULL) {
        image_role_stats(d->images, &images);
    }
#define METRIC_NODE(metric, kind, text, expr) \
    put_head(w, #metric, #kind, text);        \
    put(w, "%s{node=\"%s\"} %.17g\n", #metric, d->conf->name, (double)(expr));
#define METRIC_VM(metric, kind, text, expr)      \
    put_head(w, #metric, #kind, text);           \
    for (unsigned i = 0; i < st->n; i++) {       \
        const struct roles_vm *vm = &st->vms[i]; \
        put_vm_labels(w, d, #metric, vm, NULL);  \
        put(w, "%.17g\n", (double)(expr));       \
    }
#define METRIC_REPLICA(metric, kind, text, expr)                                   \
    put_head(w, #metric, #kind, text);                                             \
    for (unsigned i = 0; i < st->n; i++) {                                         \
        const struct vm_stats *v = stats_find(d, st->vms[i].uuid, d->conf->self);  \
        if (v != NULL && now - v->heard_ns < (uint64_t)STATS_FRESH_MS * 1000000) { \
            const Ctl__Stats *s = &v->s;                                           \
            put_vm_labels(w, d, #metric, &st->vms[i],                              \
                          s->role == CTL__ROLE__BACKUP ? "backup" : "primary");    \
            put(w, "%.17g\n", (double)(expr));                                     \
        }                                                                          \
    }
#include "ops/metrics.def"
#undef METRIC_NODE
#undef METRIC_VM
#undef METRIC_REPLICA
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *conn, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_len, void **state)
{
    struct metrics *m = ctx;
    struct MHD_Response *r;
    enum MHD_Result rc;

    (void)version;
    (void)data;
    (void)data_len;
    (void)state;
    if (strcmp(method, "GET") != 0 || strcmp(url, "/metrics") != 0) {
        static char gone[] = "metrics are at /metrics\n";
        r = MHD_create_response_from_buffer(sizeof gone - 1, gone, MHD_RESPMEM_PERSISTENT);
        rc = MHD_queue_response(conn, MHD_HTTP_NOT_FOUND, r);
        MHD_destroy_response(r);
        return rc;
    }
    (void)pthread_mutex_lock(&m->lock);
    r = MHD_create_response_from_buffer(m->text.len, m->text.data, MHD_RESPMEM_MUST_COPY);
    (void)pthread_mutex_unlock(&m->lock);
    if (r == NULL) {
        return MHD_NO;
    }
    (void)MHD_add_response_header(r, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    rc = MHD_queue_response(conn, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return rc;
}

int metrics_open(struct daemon *d, struct plx_err *err)
{
    char host[CONF_NAME_MAX];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *ai;

    if (d->conf->metrics[0] == '\0') {
        return 0;
    }
    (void)snprintf(host, sizeof host, "%s", d->conf->metrics);
    char *colon = strrchr(host, ':');
    if (colon == NULL) {
        return plx_fail(err, PLX_EINVAL, "metrics: '%s' is not HOST:PORT", d->conf->metrics);
    }
    *colon = '\0';
    int rc = getaddrinfo(host, colon + 1, &hints, &ai);
    if (rc != 0) {
        return plx_fail(err, PLX_EINVAL, "metrics: %s: %s", d->conf->metrics, gai_strerror(rc));
    }
    struct metrics *m = plx_calloc(1, sizeof *m);
    PLX_CHECK(m != NULL);
    (void)pthread_mutex_init(&m->lock, NULL);
    m->http = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | (ai->ai_family == AF_INET6 ? MHD_USE_IPv6 : 0U), 0, NULL,
        NULL, on_request, m, MHD_OPTION_SOCK_ADDR, ai->ai_addr, MHD_OPTION_CONNECTION_TIMEOUT, 10U,
        MHD_OPTION_CONNECTION_LIMIT, 32U, MHD_OPTION_END);
    freeaddrinfo(ai);
    if (m->http == NULL) {
        plx_free(m);
        return plx_fail(err, PLX_EBUSY, "metrics: cannot listen at %s", d->conf->metrics);
    }
    d->metrics = m;
    metrics_update(d);
    return 0;
}

void metrics_update(struct daemon *d)
{
    struct metrics *m = d->metrics;

    if (m == NULL) {
        return;
    }
    wbuf_clear(&m->next);
    render(d, &m->next);
    if (m->next.failed) {
        log_warn("metrics: out of memory");
        return;
    }
    (void)pthread_mutex_lock(&m->lock);
    struct wbuf old = m->text;
    m->text = m->next;
    m->next = old;
    (void)pthread_mutex_unlock(&m->lock);
}

void metrics_close(struct daemon *d)
{
    struct metrics *m = d->metrics;

    if (m == NULL) {
        return;
    }
    MHD_stop_daemon(m->http);
    (void)pthread_mutex_destroy(&m->lock);
    wbuf_free(&m->text);
    wbuf_free(&m->next);
    plx_free(m);
    d->metrics = NULL;
}
