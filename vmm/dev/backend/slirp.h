/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/slirp.h - networking without privileges: libslirp, a TCP/IP stack in this
 * process.
 *
 * The guest is 10.0.2.15 by DHCP, the host 10.0.2.2, DNS 10.0.2.3. Threading: one thread. */
#ifndef VMM_DEV_BACKEND_SLIRP_H
#define VMM_DEV_BACKEND_SLIRP_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct user_net; /* opaque */

/* @hostfwd: "tcp:PORT-:PORT" or "udp:PORT-:PORT", host to guest; an optional host address stands
 * before the first PORT ("tcp:127.0.0.1:8080-:80"), default is 127.0.0.1.
 * Errors: PLX_EINVAL (malformed), PLX_EBUSY (port taken), PLX_ENOMEM. */
int user_net_create(const char *const *hostfwd, unsigned nhostfwd, struct user_net **out,
                    struct plx_err *err);
void user_net_destroy(struct user_net *n); /* NULL is a no-op */

void user_net_send(struct user_net *n, const void *frame, uint32_t len); /* from the guest */
/* The next frame for the guest, valid until the next call of anything here; false: none. */
bool user_net_receive(struct user_net *n, const uint8_t **frame, uint32_t *len);

/* What to poll; lowers *timeout_ns to the next timer. Returns how many entries were filled. */
unsigned user_net_pollfds(struct user_net *n, struct pollfd *fds, unsigned cap,
                          uint64_t *timeout_ns);
/* After polling exactly what user_net_pollfds filled. Also runs timers. */
void user_net_run(struct user_net *n, const struct pollfd *fds, unsigned nfds);
uint64_t user_net_dropped(const struct user_net *n); /* frames the guest was too slow for */

#endif
