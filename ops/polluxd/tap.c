/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/tap.c - TAP devices of the guests (Linux, "Universal TUN/TAP device driver"; bridge
 * and interface ioctls of netdevice(7)). A TAP lives as long as someone holds its descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/polluxd/daemon.h"

static struct ifreq request(const char *name)
{
    struct ifreq r = {0};

    (void)snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    return r;
}

static int control_socket(void)
{
    return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static int set_up(int fd, const char *name, bool up)
{
    struct ifreq r = request(name);

    if (ioctl(fd, SIOCGIFFLAGS, &r) != 0) {
        return -1;
    }
    r.ifr_flags = (short)(up ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
    return ioctl(fd, SIOCSIFFLAGS, &r);
}

int tap_create(const char *name, const uint8_t mac[6], struct plx_err *err)
{
    struct ifreq r = request(name);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        return plx_fail_errno(err, "cannot open /dev/net/tun");
    }
    r.ifr_flags = IFF_TAP | IFF_NO_PI;
    if (ioctl(fd, TUNSETIFF, &r) != 0) {
        int rc = plx_fail_errno(err, "cannot create the TAP device %s", name);
        (void)close(fd);
        return rc;
    }
    /* The bridge takes the lowest address of its ports: keep ours high (FE:...). */
    int s = control_socket();
    r = request(name);
    r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(r.ifr_hwaddr.sa_data, mac, 6);
    r.ifr_hwaddr.sa_data[0] = (char)0xfe;
    if (s < 0 || ioctl(s, SIOCSIFHWADDR, &r) != 0) {
        log_warn("cannot set the address of %s: %s", name, strerror(errno));
    }
    if (s >= 0) {
        (void)close(s);
    }
    return fd;
}

int tap_attach(const char *name, const char *bridge, struct plx_err *err)
{
    struct ifreq r = request(bridge);
    int rc = 0;
    int s = control_socket();

    if (s < 0) {
        return plx_fail_errno(err, "cannot configure %s", name);
    }
    r.ifr_ifindex = (int)if_nametoindex(name);
    if (if_nametoindex(bridge) == 0) {
        rc = plx_fail(err, PLX_ENOENT, "there is no bridge %s on this node", bridge);
    } else if (ioctl(s, SIOCBRADDIF, &r) != 0 && errno != EBUSY) {
        rc = plx_fail_errno(err, "cannot put %s on the bridge %s", name, bridge);
    } else if (set_up(s, name, true) != 0) {
        rc = plx_fail_errno(err, "cannot set %s up", name);
    }
    (void)close(s);
    return rc;
}

void tap_detach(const char *name, const char *bridge)
{
    struct ifreq r = request(bridge);
    int s = control_socket();

    if (s < 0) {
        log_error("cannot take %s down: %s", name, strerror(errno));
        return;
    }
    if (set_up(s, name, false) == 0) { /* else it is gone with its replica */
        r.ifr_ifindex = (int)if_nametoindex(name);
        (void)ioctl(s, SIOCBRDELIF, &r);
    }
    (void)close(s);
}
