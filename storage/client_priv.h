/* SPDX-License-Identifier: Apache-2.0
 * storage/client_priv.h - inside the image client (client.h), shared by its files. */
#ifndef STORAGE_CLIENT_PRIV_H
#define STORAGE_CLIENT_PRIV_H

#include <pthread.h>

#include "proto/image.pb-c.h"
#include "storage/client.h"

enum { CLIENT_PROTOCOL = 1 };

struct fetch {
    struct fetch *next;
    struct seg_id id;
    enum client_urgency urgency; /* now */
    enum client_urgency first;   /* when it was asked for: as which it counts */
    uint64_t sent_to;            /* connection it was sent on; 0: none */
    unsigned waiters;
    unsigned missing; /* bits: servers that lack it */
    bool done;
    int rc;
    struct plx_err err;
    uint8_t *data; /* contents, when somebody waits */
    uint32_t len;
};

struct post; /* client_push.c */

enum ask_kind { ASK_NONE, ASK_LIST, ASK_OPEN };

struct image_client {
    struct image_client_config cfg;
    char *endpoints[CLIENT_SERVERS_MAX];
    int wake; /* eventfd */
    pthread_t thread;
    bool started;
    struct wbuf out;     /* the thread's */
    uint8_t *raw;        /* the thread's, SEG_MAX */
    void *socket;        /* the thread's */
    uint64_t connection; /* number of the present one, from 1 */
    uint64_t instance;   /* random: by it a server knows whose they are */
    bool welcome;
    uint64_t received; /* bytes of segments on this connection */
    bool denied;       /* this connection, which is closed */
    uint64_t began_ns, heard_ns, pinged_ns, needed_ns, rate_ns, rate_bytes, uncommitted;
    double rate; /* bytes a second */

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t cond;  /* a fetch or an answer is done */
    bool stop;
    struct fetch *fetches;
    unsigned wanted; /* fetches in the list that nobody waits for */
    struct post *posts, *last_post;
    uint64_t posted;      /* number of the last one */
    uint64_t push_window; /* as the server said; 0: we may not push */
    /* Posts in the list that are not answered, looks apart, and their bytes: as a server counts. */
    uint64_t unanswered, putting;
    int put_rc; /* of the first put that failed */
    struct plx_err put_err;
    struct {
        enum ask_kind kind;
        uint64_t sent_to;
        char a[IMAGE_NAME], os[IMAGE_TEXT], app[IMAGE_APP];
        bool done;
        int rc;
        struct plx_err err;
        struct image_ref *refs;
        size_t n;
    } ask;
    char name[IMAGE_TEXT], tag[IMAGE_TEXT]; /* kept open on every server; "": none */
    struct image_client_stats stats;
};

void client_wake(struct image_client *c);
/* Another server, because the one in use @why ("is silent"). On the client's thread. */
void client_next_server(struct image_client *c, const char *why);

/* client_wire.c: messages to the server in use, on the client's thread. */
void client_send_hello(struct image_client *c);
void client_send_ping(struct image_client *c);
void client_send_bye(struct image_client *c);
void client_send_credit(struct image_client *c);
void client_send_open(struct image_client *c, const char *name, const char *tag);
void client_send_list(struct image_client *c, const char *pattern, const char *os, const char *app);
/* @n names of SHA256_LEN bytes each. */
void client_send_want(struct image_client *c, unsigned urgency, uint8_t *ids, size_t n);
void client_send_post(struct image_client *c, Img__Post *post);

/* client_push.c */
/* What was not sent on this connection; if we may not push, all that waits ends instead. */
void client_send_posts_locked(struct image_client *c);
void client_on_done(struct image_client *c, const Img__Done *m);
void client_free_posts(struct image_client *c);
int client_expect_answers(struct image_client *c); /* of a detached one: to a post of each kind */

/* client_fetch.c */
/* Take from `next` what the link has room for. */
void client_want_more_locked(struct image_client *c, uint64_t now);
void client_send_wants_locked(struct image_client *c); /* what was not sent on this connection */
void client_remove_locked(struct image_client *c, struct fetch *f);
void client_on_segment(struct image_client *c, const Img__Segment *m, uint64_t now);
void client_on_missing(struct image_client *c, const Img__Missing *m);

#endif
