/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/backend/tap.c - see tap.h. */
#include "vmm/dev/backend/tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/io.h"

int tap_open(const char *ifname, int *fd, struct plx_err *err)
{
    struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI};

    *fd = -1;
    if (ifname[0] == 0 || strlen(ifname) >= sizeof req.ifr_name) {
        return plx_fail(err, PLX_EINVAL, "'%s' is not an interface name", ifname);
    }
    /* Without this check the kernel would make a new one for a mistyped name. */
    if (if_nametoindex(ifname) == 0) {
        return plx_fail(err, PLX_ENOENT,
                        "there is no interface %s (create it: ip tuntap add %s mode tap)", ifname,
                        ifname);
    }
    strcpy(req.ifr_name, ifname);
    int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (tun < 0) {
        return plx_fail_errno(err, "cannot open /dev/net/tun for %s", ifname);
    }
    if (ioctl(tun, TUNSETIFF, &req) != 0) {
        int rc = plx_fail_errno(err, "cannot attach to TAP %s", ifname);
        (void)close(tun);
        return rc;
    }
    *fd = tun;
    return 0;
}

int tap_adopt(int fd, struct plx_err *err)
{
    struct ifreq req = {.ifr_flags = 0};
    int rc = 0;

    if (ioctl(fd, TUNGETIFF, &req) != 0) {
        rc = plx_fail_errno(err, "descriptor %d is not a TAP", fd);
    } else if ((req.ifr_flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)) != (IFF_TAP | IFF_NO_PI)) {
        rc = plx_fail(err, PLX_EINVAL, "%.16s is not a plain TAP", req.ifr_name);
    } else if (io_set_nonblock(fd) != 0) {
        rc = plx_fail_errno(err, "TAP %.16s", req.ifr_name);
    }
    if (rc != 0) {
        (void)close(fd);
    }
    return rc;
}

size_t tap_read(int fd, void *frame, size_t cap)
{
    ssize_t n = io_read_some(fd, frame, cap);
    return n > 0 ? (size_t)n : 0;
}

int tap_write(int fd, const void *frame, size_t len)
{
    return write(fd, frame, len) == (ssize_t)len ? 0 : PLX_EAGAIN;
}
