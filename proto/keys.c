/* SPDX-License-Identifier: Apache-2.0
 * proto/keys.c - see keys.h. */
#include "proto/keys.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/io.h"
#include "base/log.h"

enum { Z85_LEN = 41, KEY_FILE_MAX = 4096 };

int curve_generate(struct curve_pair *out, struct plx_err *err)
{
    char pub[Z85_LEN], sec[Z85_LEN];

    if (zmq_curve_keypair(pub, sec) != 0) {
        return plx_fail(err, PLX_ENOTSUP, "cannot make a CURVE key: %s", zmq_strerror(errno));
    }
    PLX_CHECK(zmq_z85_decode(out->public_key, pub) != NULL);
    PLX_CHECK(zmq_z85_decode(out->secret_key, sec) != NULL);
    return 0;
}

const char *curve_hex(const uint8_t key[CURVE_KEY_LEN], char out[CURVE_KEY_HEX])
{
    for (int i = 0; i < CURVE_KEY_LEN; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", key[i]);
    }
    return out;
}

bool curve_from_hex(const char *s, uint8_t out[CURVE_KEY_LEN])
{
    static const char digits[] = "0123456789abcdef";

    s += strspn(s, " \t\r\n");
    for (int i = 0; i < 2 * CURVE_KEY_LEN; i++, s++) {
        const char *d = *s != '\0' ? strchr(digits, tolower((unsigned char)*s)) : NULL;
        if (d == NULL) {
            return false;
        }
        uint8_t v = (uint8_t)(d - digits);
        out[i / 2] = (uint8_t)(i % 2 == 0 ? v << 4 : out[i / 2] | v);
    }
    s += strspn(s, " \t\r\n");
    return *s == '\0';
}

int curve_write_file(const char *path, const struct curve_pair *k, struct plx_err *err)
{
    char pub[CURVE_KEY_HEX], sec[CURVE_KEY_HEX], text[256];
    int rc = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0) {
        return plx_fail_errno(err, "cannot create key file %s", path);
    }
    int n = snprintf(text, sizeof text, "# CURVE key of a Pollux node\npublic = %s\nsecret = %s\n",
                     curve_hex(k->public_key, pub), curve_hex(k->secret_key, sec));
    if (io_write_full(fd, text, (size_t)n) != 0 || fsync(fd) != 0) {
        rc = plx_fail_errno(err, "cannot write key file %s", path);
        (void)unlink(path);
    }
    (void)close(fd);
    return rc;
}

int curve_read_file(const char *path, struct curve_pair *k, struct plx_err *err)
{
    struct stat st;
    struct wbuf text;
    bool have_pub = false, have_sec = false, good = true;
    char z85_sec[Z85_LEN], z85_pub[Z85_LEN];
    uint8_t derived[CURVE_KEY_LEN];

    if (stat(path, &st) == 0 && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        return plx_fail(err, PLX_EACCES, "key file %s can be read by others: chmod 600 it", path);
    }
    int rc = io_read_file(path, KEY_FILE_MAX, &text, err);
    if (rc != 0) {
        return plx_err_wrap(err, rc, "node key (make one with polluxd --keygen)");
    }
    wbuf_u8(&text, 0);
    char *save = NULL;
    for (char *line = strtok_r((char *)text.data, "\n", &save); line != NULL && good;
         line = strtok_r(NULL, "\n", &save)) {
        line += strspn(line, " \t");
        char *eq = strchr(line, '=');
        if (*line == '#' || *line == '\0') {
            continue;
        }
        if (eq != NULL && strncmp(line, "public", 6) == 0) {
            good = have_pub = curve_from_hex(eq + 1, k->public_key);
        } else if (eq != NULL && strncmp(line, "secret", 6) == 0) {
            good = have_sec = curve_from_hex(eq + 1, k->secret_key);
        } else {
            good = false;
        }
    }
    explicit_bzero(text.data, text.len);
    wbuf_free(&text);
    if (!good || !have_pub || !have_sec) {
        return plx_fail(err, PLX_ECORRUPT,
                        "%s is not a key file (public = and secret =, 64 hex digits each)", path);
    }
    PLX_CHECK(zmq_z85_encode(z85_sec, k->secret_key, CURVE_KEY_LEN) != NULL);
    if (zmq_curve_public(z85_pub, z85_sec) != 0 || zmq_z85_decode(derived, z85_pub) == NULL ||
        memcmp(derived, k->public_key, CURVE_KEY_LEN) != 0) {
        return plx_fail(err, PLX_ECORRUPT, "%s: the public key does not belong to the secret one",
                        path);
    }
    return 0;
}

int curve_server(void *socket, const struct curve_pair *own, struct plx_err *err)
{
    int on = 1;

    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &on, sizeof on) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, own->secret_key, CURVE_KEY_LEN) != 0 ||
        zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "pollux", 6) != 0) {
        return plx_fail(err, PLX_EINVAL, "cannot set up a CURVE server: %s", zmq_strerror(errno));
    }
    return 0;
}

int curve_client(void *socket, const struct curve_pair *own, const uint8_t peer[CURVE_KEY_LEN],
                 struct plx_err *err)
{
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, peer, CURVE_KEY_LEN) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, own->public_key, CURVE_KEY_LEN) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, own->secret_key, CURVE_KEY_LEN) != 0) {
        return plx_fail(err, PLX_EINVAL, "cannot set up a CURVE client: %s", zmq_strerror(errno));
    }
    return 0;
}

/* --- the authoriser ------------------------------------------------------------------------ */

struct authoriser {
    void *rep;  /* inproc://zeromq.zap.01; the thread's */
    void *stop; /* our end of a PAIR whose other end the thread polls */
    void *stop_peer;
    pthread_t thread;
    pthread_mutex_t lock; /* what follows */
    struct authoriser_key keys[AUTHORISER_KEYS];
    unsigned n;
    uint64_t refused;
};

static int find_key(const struct authoriser *a, const uint8_t *key)
{
    for (unsigned i = 0; i < a->n; i++) {
        if (memcmp(a->keys[i].key, key, CURVE_KEY_LEN) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* One request of RFC 27: version, request id, domain, address, identity, mechanism, credentials. */
static void answer(struct authoriser *a)
{
    enum { FRAMES = 7, REQUEST_ID = 1, MECHANISM = 5, CREDENTIALS = 6, FRAME_CAP = 256 };
    char frames[FRAMES][FRAME_CAP];
    int len[FRAMES] = {0};
    int n = 0, more = 1;
    size_t more_len = sizeof more;
    char user[AUTHORISER_USER] = "";
    bool ok = false;

    while (more != 0) {
        char extra[FRAME_CAP];
        /* cppcheck-suppress legacyUninitvar ; it is what is written */
        int got = zmq_recv(a->rep, n < FRAMES ? frames[n] : extra, FRAME_CAP, 0);
        if (got < 0) {
            return;
        }
        if (n < FRAMES) {
            len[n] = got < FRAME_CAP ? got : FRAME_CAP;
        }
        n++;
        (void)zmq_getsockopt(a->rep, ZMQ_RCVMORE, &more, &more_len);
    }
    if (n == FRAMES && len[MECHANISM] == 5 && memcmp(frames[MECHANISM], "CURVE", 5) == 0 &&
        len[CREDENTIALS] == CURVE_KEY_LEN) {
        (void)pthread_mutex_lock(&a->lock);
        int i = find_key(a, (const uint8_t *)frames[CREDENTIALS]);
        if (i >= 0) {
            ok = true;
            memcpy(user, a->keys[i].user, sizeof user);
        } else {
            a->refused++;
        }
        (void)pthread_mutex_unlock(&a->lock);
        if (!ok) {
            log_warn("refused a connection from %.*s: unknown CURVE key", len[3], frames[3]);
        }
    }
    (void)zmq_send(a->rep, "1.0", 3, ZMQ_SNDMORE);
    (void)zmq_send(a->rep, frames[REQUEST_ID], (size_t)len[REQUEST_ID], ZMQ_SNDMORE);
    (void)zmq_send(a->rep, ok ? "200" : "400", 3, ZMQ_SNDMORE);
    (void)zmq_send(a->rep, ok ? "" : "unknown key", ok ? 0 : 11, ZMQ_SNDMORE);
    (void)zmq_send(a->rep, user, strlen(user), ZMQ_SNDMORE);
    (void)zmq_send(a->rep, "", 0, 0);
}

static void *authoriser_main(void *arg)
{
    struct authoriser *a = arg;
    zmq_pollitem_t items[2] = {{.socket = a->rep, .events = ZMQ_POLLIN},
                               {.socket = a->stop_peer, .events = ZMQ_POLLIN}};

    while (zmq_poll(items, 2, -1) >= 0 || errno == EINTR) {
        if ((items[1].revents & ZMQ_POLLIN) != 0) {
            break;
        }
        if ((items[0].revents & ZMQ_POLLIN) != 0) {
            answer(a);
        }
    }
    return NULL;
}

int authoriser_start(void *zmq_ctx, struct authoriser **out, struct plx_err *err)
{
    struct authoriser *a = plx_calloc(1, sizeof *a);
    char name[64];
    int linger = 0;

    *out = NULL;
    if (a == NULL) {
        return plx_fail(err, PLX_ENOMEM, "cannot start authentication: out of memory");
    }
    (void)pthread_mutex_init(&a->lock, NULL);
    (void)snprintf(name, sizeof name, "inproc://authoriser-%p", (void *)a);
    a->rep = zmq_socket(zmq_ctx, ZMQ_REP);
    a->stop = zmq_socket(zmq_ctx, ZMQ_PAIR);
    a->stop_peer = zmq_socket(zmq_ctx, ZMQ_PAIR);
    if (a->rep == NULL || a->stop == NULL || a->stop_peer == NULL ||
        zmq_setsockopt(a->rep, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_setsockopt(a->stop, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_bind(a->rep, "inproc://zeromq.zap.01") != 0 || zmq_bind(a->stop, name) != 0 ||
        zmq_connect(a->stop_peer, name) != 0 ||
        pthread_create(&a->thread, NULL, authoriser_main, a) != 0) {
        int rc = plx_fail(err, PLX_EIO, "cannot start authentication: %s", zmq_strerror(errno));
        if (a->rep != NULL) {
            (void)zmq_close(a->rep);
        }
        if (a->stop != NULL) {
            (void)zmq_close(a->stop);
        }
        if (a->stop_peer != NULL) {
            (void)zmq_close(a->stop_peer);
        }
        plx_free(a);
        return rc;
    }
    *out = a;
    return 0;
}

void authoriser_stop(struct authoriser *a)
{
    if (a == NULL) {
        return;
    }
    (void)zmq_send(a->stop, "", 0, 0);
    (void)pthread_join(a->thread, NULL);
    (void)zmq_close(a->rep);
    (void)zmq_close(a->stop);
    (void)zmq_close(a->stop_peer);
    (void)pthread_mutex_destroy(&a->lock);
    plx_free(a);
}

int authoriser_allow(struct authoriser *a, const uint8_t key[CURVE_KEY_LEN], const char *user)
{
    int rc = 0;

    (void)pthread_mutex_lock(&a->lock);
    int i = find_key(a, key);
    if (i < 0 && a->n < AUTHORISER_KEYS) {
        i = (int)a->n++;
        memcpy(a->keys[i].key, key, CURVE_KEY_LEN);
    }
    if (i < 0) {
        rc = PLX_ERANGE;
    } else {
        (void)snprintf(a->keys[i].user, AUTHORISER_USER, "%s", user);
    }
    (void)pthread_mutex_unlock(&a->lock);
    return rc;
}

void authoriser_set(struct authoriser *a, const struct authoriser_key *keys, unsigned n)
{
    PLX_CHECK(n <= AUTHORISER_KEYS);
    (void)pthread_mutex_lock(&a->lock);
    for (a->n = 0; a->n < n; a->n++) {
        a->keys[a->n] = keys[a->n];
    }
    (void)pthread_mutex_unlock(&a->lock);
}

bool authoriser_knows(struct authoriser *a, const char *user)
{
    bool known = false;

    (void)pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->n && !known; i++) {
        known = strcmp(a->keys[i].user, user) == 0;
    }
    (void)pthread_mutex_unlock(&a->lock);
    return known;
}

uint64_t authoriser_refused(struct authoriser *a)
{
    (void)pthread_mutex_lock(&a->lock);
    uint64_t n = a->refused;
    (void)pthread_mutex_unlock(&a->lock);
    return n;
}
