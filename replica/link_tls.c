/* SPDX-License-Identifier: Apache-2.0
 * replica/link_tls.c - see link_tls.h. */
#include "replica/link_tls.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <string.h>

#include "base/alloc.h"

enum { PSK_LEN = 32 };

static const uint8_t cipher_id[2] = {0x13, 0x02}; /* TLS_AES_256_GCM_SHA384 */
static const char cipher_name[] = "TLS_AES_256_GCM_SHA384";
static const char identity[] = "pollux-replica";

struct link_tls {
    SSL_CTX *ctx;
    bool server;
    uint8_t psk[PSK_LEN];
};

/* --- the key ------------------------------------------------------------------------------ */

/* Fails for a peer's key of small order too (RFC 7748, "Security Considerations"). */
static bool shared_secret(const struct link_config *cfg, uint8_t own_public[LINK_KEY_LEN],
                          uint8_t out[LINK_KEY_LEN])
{
    EVP_PKEY *own = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, cfg->secret, LINK_KEY_LEN);
    EVP_PKEY *peer =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, cfg->peer_public, LINK_KEY_LEN);
    EVP_PKEY_CTX *c = own != NULL ? EVP_PKEY_CTX_new(own, NULL) : NULL;
    size_t n = LINK_KEY_LEN, len = LINK_KEY_LEN;
    bool ok = c != NULL && peer != NULL && EVP_PKEY_get_raw_public_key(own, own_public, &n) == 1 &&
              EVP_PKEY_derive_init(c) == 1 && EVP_PKEY_derive_set_peer(c, peer) == 1 &&
              EVP_PKEY_derive(c, out, &len) == 1 && len == LINK_KEY_LEN;

    EVP_PKEY_CTX_free(c);
    EVP_PKEY_free(peer);
    EVP_PKEY_free(own);
    return ok;
}

static bool hkdf(const uint8_t *secret, const uint8_t *info, size_t info_len, uint8_t out[PSK_LEN])
{
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);
    size_t len = PSK_LEN;
    bool ok = c != NULL && EVP_PKEY_derive_init(c) == 1 &&
              EVP_PKEY_CTX_set_hkdf_md(c, EVP_sha384()) == 1 &&
              EVP_PKEY_CTX_set1_hkdf_key(c, secret, LINK_KEY_LEN) == 1 &&
              EVP_PKEY_CTX_add1_hkdf_info(c, info, (int)info_len) == 1 &&
              EVP_PKEY_derive(c, out, &len) == 1 && len == PSK_LEN;

    EVP_PKEY_CTX_free(c);
    return ok;
}

static bool derive_psk(const struct link_config *cfg, uint8_t out[PSK_LEN])
{
    static const char label[] = "pollux replica link 1";
    uint8_t own[LINK_KEY_LEN], secret[LINK_KEY_LEN];
    uint8_t info[sizeof label + 2 * LINK_KEY_LEN];
    bool ok = shared_secret(cfg, own, secret);

    if (ok) { /* the listener's half first */
        memcpy(info, label, sizeof label);
        memcpy(info + sizeof label, cfg->bind ? own : cfg->peer_public, LINK_KEY_LEN);
        memcpy(info + sizeof label + LINK_KEY_LEN, cfg->bind ? cfg->peer_public : own,
               LINK_KEY_LEN);
        ok = hkdf(secret, info, sizeof info, out);
    }
    explicit_bzero(secret, sizeof secret);
    return ok;
}

/* --- what OpenSSL asks for ---------------------------------------------------------------- */

static SSL_SESSION *make_session(SSL *s)
{
    const struct link_tls *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(s));
    const SSL_CIPHER *cipher = SSL_CIPHER_find(s, cipher_id);
    SSL_SESSION *session = SSL_SESSION_new();

    if (cipher == NULL || session == NULL ||
        SSL_SESSION_set1_master_key(session, t->psk, PSK_LEN) != 1 ||
        SSL_SESSION_set_cipher(session, cipher) != 1 ||
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) != 1) {
        SSL_SESSION_free(session);
        return NULL;
    }
    return session;
}

static int use_psk(SSL *s, const EVP_MD *md, const unsigned char **id, size_t *id_len,
                   SSL_SESSION **session)
{
    (void)md; /* there is one cipher suite, hence one hash */
    *session = make_session(s);
    *id = (const unsigned char *)identity;
    *id_len = sizeof identity - 1;
    return *session != NULL;
}

static int find_psk(SSL *s, const unsigned char *id, size_t id_len, SSL_SESSION **session)
{
    *session = NULL; /* of others none is known: then the handshake fails */
    if (id_len != sizeof identity - 1 || memcmp(id, identity, id_len) != 0) {
        return 1;
    }
    *session = make_session(s);
    return *session != NULL;
}

static bool set_up(struct link_tls *t)
{
    SSL_CTX *c = t->ctx = SSL_CTX_new(TLS_method());

    if (c == NULL || SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(c, cipher_name) != 1 ||
        SSL_CTX_set1_groups_list(c, "X25519") != 1 || SSL_CTX_set_num_tickets(c, 0) != 1) {
        return false;
    }
    (void)SSL_CTX_set_app_data(c, t);
    (void)SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(c, 1); /* one read(2) for what has arrived */
    /* The key is the only way in: a server has no certificate, and to a client nobody's is good
     * enough. link_tls_proved judges it once more. */
    if (t->server) {
        SSL_CTX_set_psk_find_session_callback(c, find_psk);
    } else {
        SSL_CTX_set_psk_use_session_callback(c, use_psk);
        SSL_CTX_set_verify(c, SSL_VERIFY_PEER, NULL);
    }
    return true;
}

int link_tls_open(const struct link_config *cfg, struct link_tls **out, struct plx_err *err)
{
    struct link_tls *t = plx_calloc(1, sizeof *t);

    *out = NULL;
    if (t == NULL) {
        return plx_fail(err, PLX_ENOMEM, "out of memory");
    }
    t->server = cfg->bind;
    if (!derive_psk(cfg, t->psk)) {
        link_tls_close(t);
        return plx_fail(err, PLX_EINVAL, "the keys of the replica link are no X25519 keys");
    }
    if (!set_up(t)) {
        char why[128];
        ERR_error_string_n(ERR_get_error(), why, sizeof why);
        link_tls_close(t);
        return plx_fail(err, PLX_ENOTSUP, "cannot set up TLS 1.3 for the replica link: %s", why);
    }
    *out = t;
    return 0;
}

void link_tls_close(struct link_tls *t)
{
    if (t != NULL) {
        SSL_CTX_free(t->ctx);
        explicit_bzero(t->psk, sizeof t->psk);
        plx_free(t);
    }
}

SSL *link_tls_conn(struct link_tls *t, int fd)
{
    SSL *s = SSL_new(t->ctx);

    if (s == NULL || SSL_set_fd(s, fd) != 1) {
        SSL_free(s);
        return NULL;
    }
    if (t->server) {
        SSL_set_accept_state(s);
    } else {
        SSL_set_connect_state(s);
    }
    return s;
}

bool link_tls_proved(const SSL *s)
{
    return SSL_is_init_finished(s) && SSL_version(s) == TLS1_3_VERSION && SSL_session_reused(s);
}
