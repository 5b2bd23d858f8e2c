/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/conf.h - the daemon's configuration file (INI; ops/pollux.conf is the example).
 * Read once at start; owned by the daemon. */
#ifndef OPS_POLLUXD_CONF_H
#define OPS_POLLUXD_CONF_H

#include <limits.h>
#include <stdint.h>

#include "base/err.h"
#include "consensus/node_link.h"

enum { CONF_NAME_MAX = 64, CONF_NODES_MAX = NODE_LINK_NODES_MAX };

#define CONF_DEFAULT_PATH   "/etc/pollux/pollux.conf"
#define CONF_DEFAULT_SOCKET "/run/pollux/polluxd.sock"

struct conf_member {
    char name[CONF_NAME_MAX];
    uint32_t id;
    char address[NODE_LINK_ENDPOINT_MAX]; /* tcp://host:port, as peers reach it */
    char public_key[CURVE_KEY_HEX + 8];
};

struct conf {
    char cluster[CONF_NAME_MAX];
    unsigned election_ms, heartbeat_ms;

    char name[CONF_NAME_MAX]; /* of this node: one of the members */
    char key_file[PATH_MAX];
    char run_dir[PATH_MAX];   /* sockets of the running replicas; lost at reboot */
    char state_dir[PATH_MAX]; /* Raft's log, overlays; must last */
    char socket[PATH_MAX];
    char bind[NODE_LINK_ENDPOINT_MAX];            /* empty: the member's address */
    char replica_address[NODE_LINK_ENDPOINT_MAX]; /* host of replica endpoints; empty: the member's
                                                   */
    unsigned replica_port_first, replica_port_last;
    char replica_program[PATH_MAX];
    char replica_user[CONF_NAME_MAX]; /* empty: as the daemon */
    char bridge[16];                  /* of interfaces that name none */
    char metrics[CONF_NAME_MAX];      /* host:port; empty: off */

    char images_listen[NODE_LINK_ENDPOINT_MAX]; /* tcp://ADDRESS:PORT; empty: no image server */
    char images_store[PATH_MAX];
    char images_clients[PATH_MAX];

    unsigned peer_lost_ms, lag_max_ms, slice_us, digest_slices, scrub_s; /* 0: the replica's own */
    char divergence[16];                                                 /* trust-primary or stop */
    char engine[16];
    char takeover[8]; /* yes, or no for drills that must fail */

    struct conf_member members[CONF_NODES_MAX];
    unsigned nmembers;

    /* Derived. */
    uint32_t self;
    struct curve_pair key;
    struct node_link_peer peers[CONF_NODES_MAX]; /* as the members, keys decoded */
};

/* Read @path and the key file it names. Messages say file and line. */
int conf_load(const char *path, struct conf *c, struct plx_err *err);
/* The text alone, @name for messages; without the key file and what is derived from it. */
int conf_parse(const char *text, const char *name, struct conf *c, struct plx_err *err);

const struct conf_member *conf_member_by_id(const struct conf *c, uint32_t id); /* NULL: none */
const struct conf_member *conf_member_by_name(const struct conf *c, const char *name);
const char *conf_node_name(const struct conf *c, uint32_t id); /* "?" if unknown, "-" for 0 */

#endif
