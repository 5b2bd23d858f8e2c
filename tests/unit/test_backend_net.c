/* SPDX-License-Identifier: Apache-2.0
 * Hunts: inputs lost or out of order between host and batch, batches whose data move, an escape
 * that reaches the guest, a TAP made by mistake, a user network that does not answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "vmm/dev/backend/hostio.h"
#include "vmm/dev/backend/slirp.h"
#include "vmm/dev/backend/tap.h"

#define SECOND UINT64_C(1000000000)

static void batches_keep_their_data(void **state)
{
    struct input_batch b;
    uint8_t data[100];

    (void)state;
    input_batch_init(&b);
    for (unsigned i = 0; i < 1000; i++) {
        memset(data, (int)i & 0xff, sizeof data);
        struct input in = {.kind = INPUT_NET_RX, .data = data, .len = i % 100};
        assert_int_equal(input_batch_add(&b, &in), 0);
    }
    assert_int_equal(b.n, 1000);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(b.items[i].len, i % 100);
        for (unsigned k = 0; k < b.items[i].len; k++) {
            assert_int_equal(b.items[i].data[k], i & 0xff);
        }
    }
    input_batch_clear(&b);
    assert_int_equal(b.n, 0);
    input_batch_free(&b);
}

/* Run hostio on a console whose stdin is a pipe and whose stdout is a file. */
static void console_escapes_and_output(void **state)
{
    struct hostio_config cfg = {.console = HOSTIO_CONSOLE_STDIO,
                                .console_ports = 1 << CONSOLE_SERIAL0,
                                .console_input = CONSOLE_SERIAL0};
    struct hostio *h;
    struct input_batch b;
    struct wbuf file;
    char path[] = "/tmp/pollux-test-console-XXXXXX";
    int out = mkstemp(path), saved[2] = {dup(0), dup(1)}, pipes[2];

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    (void)fflush(stdout);
    (void)dup2(pipes[0], 0);
    (void)dup2(out, 1);
    int rc = hostio_create(&cfg, &h, NULL);
    static const char typed[] = "ab\001a\001cc\001zd\001";
    rc = rc != 0 ? rc : io_write_full(pipes[1], typed, sizeof typed - 1);
    input_batch_init(&b);
    rc = rc != 0 ? rc : hostio_poll(h, SECOND, &b, NULL);
    unsigned first = hostio_events(h), again = hostio_events(h);
    rc = rc != 0 ? rc : io_write_full(pipes[1], "x", 1);
    size_t n = b.n;
    rc = rc != 0 ? rc : hostio_poll(h, SECOND, &b, NULL);
    unsigned quit = hostio_events(h);
    struct output o = {.kind = OUTPUT_CONSOLE, .dev = CONSOLE_SERIAL0, .len = 5};
    rc = rc != 0 ? rc : hostio_emit(h, &o, (const uint8_t *)"hello", NULL);
    o.dev = CONSOLE_SERIAL1; /* not shown */
    rc = rc != 0 ? rc : hostio_emit(h, &o, (const uint8_t *)"never", NULL);
    (void)close(pipes[1]);
    rc = rc != 0 ? rc : hostio_poll(h, 0, &b, NULL); /* end of input */
    uint64_t t0 = clock_mono_ns();
    rc = rc != 0 ? rc : hostio_poll(h, SECOND / 20, &b, NULL); /* no busy loop on a closed stdin */
    uint64_t waited = clock_mono_ns() - t0;
    hostio_destroy(h);
    (void)dup2(saved[0], 0);
    (void)dup2(saved[1], 1);
    (void)close(saved[0]);
    (void)close(saved[1]);
    (void)close(pipes[0]);
    assert_int_equal(rc, 0);
    assert_int_equal(n, 1);
    assert_int_equal(b.n, 1);
    assert_int_equal(b.items[0].len, 5);
    assert_memory_equal(b.items[0].data, "ab\001cd", 5);
    assert_int_equal(first, HOSTIO_MONITOR);
    assert_int_equal(again, 0);
    assert_int_equal(quit, HOSTIO_QUIT);
    assert_true(waited > SECOND / 30);
    assert_int_equal(io_read_file(path, 100, &file, NULL), 0);
    assert_int_equal(file.len, 5);
    assert_memory_equal(file.data, "hello", 5);
    wbuf_free(&file);
    input_batch_free(&b);
    (void)close(out);
    (void)unlink(path);
}

static void disks_through_hostio(void **state)
{
    struct hostio_config cfg = {.ndisks = 1};
    struct hostio *h;
    struct input_batch b;
    struct output_list out;
    char path[] = "/tmp/pollux-test-hostio-XXXXXX";
    uint8_t data[512], got[512], status;
    int fd = mkstemp(path);

    (void)state;
    assert_int_equal(ftruncate(fd, 65536), 0);
    cfg.disks[0].path = path;
    assert_int_equal(hostio_create(&cfg, &h, NULL), 0);
    assert_int_equal(hostio_disk_sectors(h, 0), 128);
    memset(data, 0x5a, sizeof data);
    output_list_init(&out);
    struct output o = {.kind = OUTPUT_DISK, .op = DISK_WRITE, .pos = 3, .len = 512, .arg = 1};
    output_add(&out, &o, data);
    o = (struct output){.kind = OUTPUT_DISK, .op = DISK_READ, .pos = 3, .len = 512, .arg = 2};
    output_add(&out, &o, NULL);
    o = (struct output){.kind = OUTPUT_POWER};
    output_add(&out, &o, NULL);
    assert_int_equal(hostio_release(h, &out, NULL), 0);
    assert_int_equal(hostio_submit(h, &out, NULL), 0);
    input_batch_init(&b);
    while (b.n < 2) {
        assert_int_equal(hostio_poll(h, SECOND, &b, NULL), 0);
    }
    assert_int_equal(b.items[0].kind, INPUT_DISK_DONE);
    assert_int_equal(b.items[0].arg, 1);
    assert_int_equal(b.items[1].arg, 2);
    assert_int_equal(hostio_disk_result(h, 0, 1, NULL, 0, &status, NULL), 0);
    assert_int_equal(hostio_disk_result(h, 0, 2, got, 512, &status, NULL), 0);
    assert_memory_equal(got, data, 512);
    assert_int_equal(hostio_drain(h, NULL), 0);
    hostio_destroy(h);
    output_list_free(&out);
    input_batch_free(&b);
    (void)close(fd);
    (void)unlink(path);
}

/* Every allocation of opening fails once; nothing stays open, no half-made overlay stays behind. */
static void opening_unwinds(void **state)
{
    static const char *const forwards[] = {"tcp:1-:1x"};
    struct hostio_config cfg = {
        .ndisks = 1, .nnics = 1, .console = HOSTIO_CONSOLE_FILE, .console_path = "/dev/null"};
    char path[] = "/tmp/pollux-test-unwind-XXXXXX", overlay[64];
    struct hostio *h = NULL;
    struct plx_err err;
    int fd = mkstemp(path), rc = -1, free_fd;

    (void)state;
    assert_int_equal(ftruncate(fd, 65536), 0);
    (void)snprintf(overlay, sizeof overlay, "%s.overlay", path);
    cfg.disks[0] = (struct hostio_disk){.path = path, .overlay = overlay, .create_overlay = true};
    cfg.nets[0].kind = HOSTIO_NET_USER;
    free_fd = dup(0);
    (void)close(free_fd);
    for (int k = 0; rc != 0; k++) {
        plx_heap_fail_at(k);
        rc = hostio_create(&cfg, &h, &err);
        plx_heap_fail_never();
        assert_true(rc == 0 || k < 100);
        if (rc != 0) {
            assert_null(h);
            int now = dup(0);
            (void)close(now);
            assert_int_equal(now, free_fd);
        }
        (void)unlink(overlay);
    }
    hostio_destroy(h);
    memcpy(cfg.nets[0].hostfwd, forwards, sizeof forwards);
    cfg.nets[0].nhostfwd = 1;
    assert_int_equal(hostio_create(&cfg, &h, &err), PLX_EINVAL);
    (void)unlink(overlay);
    (void)close(fd);
    (void)unlink(path);
}

/* --- user network: a guest of a few lines answers ARP and accepts one TCP connection ------- */

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 1, 2, 3};
static const uint8_t guest_ip[4] = {10, 0, 2, 15};

static void arp_reply(struct user_net *n, const uint8_t *request)
{
    uint8_t f[42];

    memcpy(f, request + 6, 6);
    memcpy(f + 6, guest_mac, 6);
    memcpy(f + 12, request + 12, 8);
    f[20] = 0;
    f[21] = 2;
    memcpy(f + 22, guest_mac, 6);
    memcpy(f + 28, guest_ip, 4);
    memcpy(f + 32, request + 22, 10);
    user_net_send(n, f, sizeof f);
}

/* A network that forwards a port of the host's loopback, which @a then names, to 6379. */
static struct user_net *forwarding(struct sockaddr_in *a)
{
    struct user_net *n = NULL;
    struct plx_err err = {{0}};
    char spec[64];
    const char *specs[] = {spec};
    unsigned port = 0;

    for (unsigned try = 0; n == NULL && try < 50; try++) {
        port = 20000 + (unsigned)(clock_mono_ns() / 1000 % 40000);
        (void)snprintf(spec, sizeof spec, "tcp:%u-:6379", port);
        (void)user_net_create(specs, 1, &n, &err);
    }
    assert_non_null(n);
    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return n;
}

/* Clients that connect at once all get through, also while the VM's thread is busy elsewhere. */
static void many_connect_at_once(void **state)
{
    enum { CLIENTS = 64 };
    struct sockaddr_in a;
    struct user_net *n = forwarding(&a);
    struct timeval give_up = {.tv_sec = 10};
    int s[CLIENTS];

    (void)state;
    for (unsigned i = 0; i < CLIENTS; i++) {
        s[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(setsockopt(s[i], SOL_SOCKET, SO_SNDTIMEO, &give_up, sizeof give_up), 0);
        assert_int_equal(connect(s[i], (struct sockaddr *)&a, sizeof a), 0);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        (void)close(s[i]);
    }
    user_net_destroy(n);
}

static void user_network_forwards(void **state)
{
    struct sockaddr_in a;
    struct user_net *n = forwarding(&a);
    struct pollfd fds[64];
    bool syn = false;

    (void)state;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    (void)connect(s, (struct sockaddr *)&a, sizeof a);
    for (uint64_t end = clock_mono_ns() + 10 * SECOND; !syn && clock_mono_ns() < end;) {
        uint64_t timeout = SECOND / 10;
        const uint8_t *frame;
        uint32_t len;
        unsigned nfds = user_net_pollfds(n, fds, 64, &timeout);
        assert_true(timeout <= SECOND / 10);
        (void)poll(fds, nfds, (int)(timeout / 1000000));
        user_net_run(n, fds, nfds);
        while (user_net_receive(n, &frame, &len)) {
            if (len >= 42 && frame[12] == 8 && frame[13] == 6 && frame[21] == 1 &&
                memcmp(frame + 38, guest_ip, 4) == 0) {
                arp_reply(n, frame);
            } else if (len >= 54 && frame[12] == 8 && frame[13] == 0 && frame[23] == 6) {
                syn = frame[36] == 6379 >> 8 && frame[37] == (6379 & 0xff) && frame[47] == 2;
            }
        }
    }
    assert_true(syn);
    (void)close(s);
    user_net_destroy(n);
}

static void bad_hostfwd_is_refused(void **state)
{
    static const char *const bad[] = {"",         "tcp",       "tcp:",           "tcp:80",
                                      "tcp:0-:1", "tcp:1-:0",  "tcp:70000-:1",   "sctp:1-:1",
                                      "tcp:x-:1", "tcp:1-:1x", "tcp:1.2.3:1-:1", "tcp:1-1"};
    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct user_net *n;
        struct plx_err err = {{0}};
        assert_int_equal(user_net_create(&bad[i], 1, &n, &err), PLX_EINVAL);
        assert_null(n);
        assert_non_null(strstr(err.msg, "hostfwd="));
    }
}

/* --- TAP ---------------------------------------------------------------------------------- */

static void tap_refuses(void **state)
{
    struct plx_err err = {{0}};
    int fd;

    (void)state;
    assert_int_equal(tap_open("plx-no-such0", &fd, &err), PLX_ENOENT);
    assert_non_null(strstr(err.msg, "plx-no-such0"));
    assert_int_equal(tap_open("", &fd, &err), PLX_EINVAL);
    assert_int_equal(tap_open("a-name-longer-than-any", &fd, &err), PLX_EINVAL);
    assert_true(tap_adopt(open("/dev/null", O_RDWR), &err) < 0);
}

/* A frame that the host's stack sends out of the TAP arrives as input; a frame of the guest
 * arrives at a packet socket. Needs root and a TAP made for the test. */
static void tap_carries_frames(void **state)
{
    struct hostio_config cfg = {.nnics = 1};
    struct hostio *h;
    struct input_batch b;
    struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    uint8_t frame[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 1, 2, 3, 0x88, 0xb5};
    uint8_t got[2048];

    (void)state;
    (void)snprintf(req.ifr_name, sizeof req.ifr_name, "plxt%d", (int)getpid() % 100000);
    int tun = open("/dev/net/tun", O_RDWR);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &req) != 0) {
        print_message("no TAP without root\n");
        if (tun >= 0) {
            (void)close(tun);
        }
        skip();
    }
    int s = socket(AF_PACKET, SOCK_RAW, htons(0x88b5));
    struct ifreq up = req;
    assert_int_equal(ioctl(s, SIOCGIFFLAGS, &up), 0);
    up.ifr_flags |= IFF_UP;
    assert_int_equal(ioctl(s, SIOCSIFFLAGS, &up), 0);
    cfg.nets[0] = (struct hostio_net){.kind = HOSTIO_NET_TAP, .fd = tun};
    assert_int_equal(hostio_create(&cfg, &h, NULL), 0);
    struct output o = {.kind = OUTPUT_NET_TX, .len = sizeof frame};
    memcpy(frame + 14, "from the guest", 14);
    assert_int_equal(hostio_emit(h, &o, frame, NULL), 0);
    struct timeval tv = {.tv_sec = 5};
    (void)setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    assert_int_equal(recv(s, got, sizeof got, 0), sizeof frame);
    assert_memory_equal(got, frame, sizeof frame);
    assert_int_equal(ioctl(s, SIOCGIFINDEX, &req), 0);
    int ifindex = req.ifr_ifindex;
    struct {
        uint16_t family, protocol;
        int ifindex;
        uint16_t hatype;
        uint8_t pkttype, halen, addr[8];
    } to = {.family = AF_PACKET, .ifindex = ifindex, .halen = 6};
    memcpy(frame + 14, "from the host ", 14);
    assert_int_equal(sendto(s, frame, sizeof frame, 0, (struct sockaddr *)&to, sizeof to),
                     sizeof frame);
    input_batch_init(&b);
    bool found = false;
    for (unsigned i = 0; i < 100 && !found; i++) {
        assert_int_equal(hostio_poll(h, SECOND / 10, &b, NULL), 0);
        for (size_t k = 0; k < b.n; k++) { /* the kernel sends its own, too */
            found = found || (b.items[k].len == sizeof frame &&
                              memcmp(b.items[k].data, frame, sizeof frame) == 0);
        }
    }
    assert_true(found);
    input_batch_free(&b);
    hostio_destroy(h);
    (void)close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_keep_their_data), cmocka_unit_test(console_escapes_and_output),
        cmocka_unit_test(disks_through_hostio),    cmocka_unit_test(opening_unwinds),
        cmocka_unit_test(user_network_forwards),   cmocka_unit_test(many_connect_at_once),
        cmocka_unit_test(bad_hostfwd_is_refused),  cmocka_unit_test(tap_refuses),
        cmocka_unit_test(tap_carries_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
