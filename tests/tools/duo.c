/* SPDX-License-Identifier: Apache-2.0
 * tests/tools/duo.c - runs two pollux-replica processes without any daemon: it plays polluxd, with
 * the compare-and-swap on roles in memory. For tests and for finding what a pair does wrong.
 *
 *   duo KERNEL INITRD CMDLINE [--mem MiB] [--mark TEXT] [--kill primary|backup] [--stop-ms N]
 *       [--after-ms N] [--vcpus N] [--disk F] [--chaos SEED] [--digest N] [--timeout S] [--state F]
 *       [--net] [--engines NAME,NAME] [--scrub-ms N] [--flip SEED] [--flip-disk SEED]
 *       [--taps NAME,NAME] [--exec COMMAND] [--cpu MODEL]
 *
 * Console output of the primary goes to stdout. At the mark (default "redis ready") it waits
 * --after-ms, does what --kill says, and ends well when the survivor runs on (or, without --kill,
 * when digests were compared and none differs). --state starts from a saved state; the mark is then
 * the moment the pair is ready. --flip changes one bit of the backup's RAM from outside, in a page
 * that is allocated (odd seed) or not, and ends well when the divergence is reported, names that
 * page, and the primary goes on alone, and when the digest before the one that differs was taken
 * within the scrub time after the change, in virtual time. --flip-disk (with --disk) starts both
 * with the same blocks in their overlays and changes one bit of the backup's, which its scrub must
 * report, naming the block, with the primary going on alone. --taps connects the card of each
 * replica to a TAP that exists. --engines: what runs the primary's guest, and the backup's. --exec
 * runs a command at the mark and ends well when it does and the pair is whole: both alive and
 * paired, digests of what came after it compared, none different; with --kill, that comes then.
 * Exit 0, 1 failed, 4 diverged, 5 the guest wrote over the bit before it could be found, 124
 * timeout. */
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "tests/tools/duo_pair.h"
#include "tests/tools/ram.h"

static bool took_over, diverged, alone;
static char tail[256]; /* of the console, to find the mark in */
static uint64_t mark_at;
enum { SAMPLES_MAX = 4096, NONCE_FLIP = 1, NONCE_SAMPLE = 2 };

static struct { /* --flip, of the backup's RAM */
    struct ram_flip bit;
    bool named, asked;
    uint64_t virtual_ns; /* of the backup, as it said just after; until then, UINT64_MAX */
    uint64_t record;     /* whose digest differs */
    struct {
        uint64_t slice, virtual_ns;
    } sample[SAMPLES_MAX]; /* of the primary, as it went on */
    unsigned nsamples;
} flip = {.bit = {.fd = -1}, .virtual_ns = UINT64_MAX};

static void console(const Ctl__ConsoleData *d)
{
    size_t keep = strlen(tail);

    (void)fwrite(d->data.data, 1, d->data.len, stdout);
    (void)fflush(stdout);
    for (size_t i = 0; i < d->data.len; i++) {
        if (keep == sizeof tail - 1) {
            memmove(tail, tail + 128, keep -= 128);
        }
        tail[keep++] = (char)d->data.data[i];
        tail[keep] = '\0';
        if (mark_at == 0 && strstr(tail, opt.mark) != NULL) {
            mark_at = clock_mono_ns();
        }
    }
}

static void flip_bit(void)
{
    ram_flip(side[BACKUP].pid, opt.flip, &flip.bit);
    (void)fprintf(stderr, "flip at 0x%llx, %s\n", (unsigned long long)flip.bit.at,
                  flip.bit.hole ? "never used" : "in use");
}

/* With --flip: when the bit changed, and what the primary had reached by then and after. */
static void flip_stats(int i, const Ctl__Stats *st)
{
    if (i == BACKUP && st->nonce == NONCE_FLIP) {
        flip.virtual_ns = st->virtual_ns;
    } else if (i == PRIMARY && flip.asked && flip.nsamples < SAMPLES_MAX &&
               (flip.nsamples == 0 || flip.sample[flip.nsamples - 1].slice != st->slice)) {
        flip.sample[flip.nsamples].slice = st->slice;
        flip.sample[flip.nsamples++].virtual_ns = st->virtual_ns;
    }
}

/* The virtual time from the change to the digest before the one that told: what is scrubbed at
 * each digest is what its time since the last one is of the scrub time, so all was by then. The
 * change may have come a little before the time the backup gave, never after. */
static uint64_t flip_unseen_ns(void)
{
    uint64_t before = flip.virtual_ns;

    for (unsigned i = 0; i < flip.nsamples; i++) {
        if (flip.sample[i].slice + opt.digest <= flip.record &&
            flip.sample[i].virtual_ns > before) {
            before = flip.sample[i].virtual_ns;
        }
    }
    return before - flip.virtual_ns;
}

static void dispatch(int i, const Ctl__FromReplica *m, char **argv)
{
    struct side *s = &side[i];

    switch (m->msg_case) {
    case CTL__FROM_REPLICA__MSG_HELLO:
        start(i, argv);
        attach(s);
        break;
    case CTL__FROM_REPLICA__MSG_READY:
        roles.in_sync = true;
        tell_roles(&side[0], 0);
        tell_roles(&side[1], 0);
        if (opt.state != NULL && mark_at == 0) {
            mark_at = clock_mono_ns();
        }
        break;
    case CTL__FROM_REPLICA__MSG_REQUEST:
        apply_request(i, m->request);
        break;
    case CTL__FROM_REPLICA__MSG_READ_ROLES:
        tell_roles(s, m->read_roles->nonce);
        break;
    case CTL__FROM_REPLICA__MSG_EVENT:
        (void)fprintf(stderr, "[%d] event %s: %s\n", i, m->event->kind, m->event->text);
        took_over = took_over || strcmp(m->event->kind, "takeover") == 0;
        alone = alone || strcmp(m->event->kind, "alone") == 0;
        if (strcmp(m->event->kind, "divergence") == 0) {
            char page[40];
            const char *number = strstr(m->event->text, "record ");
            flip.record = number != NULL ? strtoull(number + strlen("record "), NULL, 10) : 0;
            (void)snprintf(page, sizeof page, ", page 0x%llx",
                           (unsigned long long)flip.bit.at & ~4095ULL);
            diverged = true;
            flip.named = flip.named || strstr(m->event->text, page) != NULL;
        } else if (strcmp(m->event->kind, "host-error") == 0 && i == BACKUP) {
            char block[40];
            (void)snprintf(block, sizeof block, "block %llu (",
                           (unsigned long long)flip_disk.block);
            flip_disk.named = flip_disk.named || strstr(m->event->text, block) != NULL;
        }
        break;
    case CTL__FROM_REPLICA__MSG_STATS:
        s->slice = m->stats->slice;
        s->compared = m->stats->digests_compared;
        s->differ = m->stats->digests_differing;
        s->instructions = m->stats->instructions;
        s->lag = m->stats->lag_ns;
        s->delay = m->stats->commit_delay_ns;
        if (opt.flip != 0) {
            flip_stats(i, m->stats);
        }
        break;
    case CTL__FROM_REPLICA__MSG_STOPPED:
        (void)fprintf(stderr, "[%d] stopped: event %u code %llu %s\n", i, m->stopped->event,
                      (unsigned long long)m->stopped->code, m->stopped->text);
        break;
    case CTL__FROM_REPLICA__MSG_CONSOLE_DATA:
        console(m->console_data);
        break;
    default:
        break;
    }
}

static void receive(int i, char **argv)
{
    static uint8_t buf[PACKET_MAX];
    int fds[PACKET_FDS_MAX];
    unsigned nfds = 0;
    ssize_t n = packet_recv(side[i].fd, buf, sizeof buf, fds, &nfds);

    if (n <= 0) {
        int status = 0;
        side[i].alive = false;
        (void)waitpid(side[i].pid, &status, 0);
        (void)fprintf(stderr, "[%d] ended with status 0x%x\n", i, (unsigned)status);
        return;
    }
    Ctl__FromReplica *m = ctl__from_replica__unpack(NULL, (size_t)n, buf);
    PLX_CHECK(m != NULL);
    dispatch(i, m, argv);
    ctl__from_replica__free_unpacked(m, NULL);
}

static void print_stats(void)
{
    for (int i = 0; i < 2; i++) {
        (void)fprintf(stderr,
                      "[%d] slice %llu, %llu instructions, %llu digests compared, %llu differ, lag "
                      "%.1f ms, mean commit delay %.3f ms\n",
                      i, (unsigned long long)side[i].slice,
                      (unsigned long long)side[i].instructions,
                      (unsigned long long)side[i].compared, (unsigned long long)side[i].differ,
                      (double)side[i].lag / 1e6, (double)side[i].delay / 1e6);
    }
}

static int finish(int rc)
{
    char path[64];

    print_stats();
    for (int i = 0; i < 2 && opt.chaos != 0; i++) { /* for what it has to say at its end */
        Ctl__ToReplica m = CTL__TO_REPLICA__INIT;
        Ctl__Stop stop = CTL__STOP__INIT;

        m.msg_case = CTL__TO_REPLICA__MSG_STOP;
        m.stop = &stop;
        send_to(&side[i], &m);
        clock_sleep_ns(500000000);
    }
    for (int i = 0; i < 2; i++) {
        if (side[i].alive) {
            (void)kill(side[i].pid, SIGKILL);
            (void)waitpid(side[i].pid, NULL, 0);
        }
        (void)unlink(overlay_path(i, path));
        (void)unlink(side[i].endpoint + strlen("ipc://"));
    }
    return rc;
}

/* With --flip, after the mark. */
static int judge_flip(uint64_t now)
{
    static uint64_t asked_at, sampled_at, slice_then, alone_at;
    uint8_t value;

    if (!flip.asked) {
        flip.asked = true;
        asked_at = now;
        flip_bit();
        ask_stats(&side[BACKUP], NONCE_FLIP);
    } else if (!diverged && now > asked_at + (4 * opt.scrub_ms + 2000) * 1000000) {
        if (flip.bit.fd >= 0 && pread(flip.bit.fd, &value, 1, flip.bit.at) == 1 &&
            value != flip.bit.value) {
            return 5;
        }
        (void)fprintf(stderr, "not found\n");
        return 1;
    } else if (!diverged && now > sampled_at + 10000000) {
        sampled_at = now;
        ask_stats(&side[PRIMARY], NONCE_SAMPLE);
    } else if (alone && alone_at == 0) {
        uint64_t unseen = flip_unseen_ns();

        alone_at = now;
        slice_then = side[PRIMARY].slice;
        (void)fprintf(stderr, "found after %.1f s; %.3f s of virtual time to the digest before\n",
                      (double)(now - asked_at) / 1e9, (double)unseen / 1e9);
        if (flip.record == 0 || unseen > opt.scrub_ms * 1000000) {
            (void)fprintf(stderr, "found too late\n");
            return 1;
        }
    } else if (alone_at != 0 && now > alone_at + 1500000000) {
        return flip.named && !side[BACKUP].alive && side[PRIMARY].slice > slice_then ? 0 : 1;
    }
    return -1;
}

/* With --flip-disk, after the mark. */
static int judge_flip_disk(uint64_t now)
{
    static uint64_t flipped_at, slice_then, alone_at;
    char path[64];
    uint8_t value;

    if (flipped_at == 0) {
        int fd = open(overlay_path(BACKUP, path), O_RDWR | O_CLOEXEC);

        flipped_at = now;
        PLX_CHECK(fd >= 0 && pread(fd, &value, 1, (off_t)flip_disk.at) == 1);
        value ^= 0x10;
        PLX_CHECK(pwrite(fd, &value, 1, (off_t)flip_disk.at) == 1);
        (void)close(fd);
        (void)fprintf(stderr, "flip in block %llu\n", (unsigned long long)flip_disk.block);
    } else if (flip_disk.named && alone && alone_at == 0) {
        alone_at = now;
        slice_then = side[PRIMARY].slice;
        (void)fprintf(stderr, "found after %.1f s\n", (double)(now - flipped_at) / 1e9);
    } else if (alone_at != 0 && now > alone_at + 1500000000) {
        return !side[BACKUP].alive && side[PRIMARY].slice > slice_then ? 0 : 1;
    }
    return -1;
}

/* With --exec, after the mark. */
static int judge_exec(void)
{
    static pid_t pid;
    static uint64_t compared_then;
    static bool done;
    int status;

    if (pid == 0) {
        pid = fork();
        if (pid == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)execl("/bin/sh", "sh", "-c", opt.exec, (char *)NULL);
            _exit(127);
        }
    } else if (!done && waitpid(pid, &status, WNOHANG) == pid) {
        if (status != 0) {
            (void)fprintf(stderr, "the command ended with status 0x%x\n", (unsigned)status);
            return 1;
        }
        done = true;
        compared_then = side[BACKUP].compared;
    }
    if (!side[PRIMARY].alive || !side[BACKUP].alive || roles.epoch != 1) {
        (void)fprintf(stderr, "the pair did not stay one\n");
        return 1;
    }
    /* The second look: the first may have been under way when the command ended. */
    return done && side[BACKUP].compared > compared_then + 1 && side[BACKUP].differ == 0 ? 0 : -1;
}

/* After the mark: the fault, then the judgement. -1: not yet. */
static int judge(uint64_t now)
{
    static uint64_t slice_then, done_at;
    static bool loaded; /* the command of --exec has ended */
    int victim = opt.kill != NULL && strcmp(opt.kill, "primary") == 0 ? PRIMARY : BACKUP;
    int other = 1 - victim;

    if (diverged && opt.flip == 0) {
        return 4;
    }
    if (opt.flip != 0 && mark_at != 0 && now >= mark_at + opt.after_ms * 1000000) {
        return judge_flip(now);
    }
    if (opt.flip_disk != 0 && mark_at != 0 && now >= mark_at + opt.after_ms * 1000000) {
        return judge_flip_disk(now);
    }
    if (mark_at == 0 || now < mark_at + opt.after_ms * 1000000) {
        return side[0].alive || side[1].alive ? -1 : 1;
    }
    if (opt.exec != NULL && !loaded) {
        int rc = judge_exec();

        if (rc != 0 || opt.kill == NULL) {
            return rc;
        }
        loaded = true;
    }
    if (done_at == 0) {
        done_at = now;
        slice_then = side[other].slice;
        if (opt.kill != NULL) {
            (void)kill(side[victim].pid, opt.stop_ms != 0 ? SIGSTOP : SIGKILL);
        }
    }
    if (opt.stop_ms != 0 && now > done_at + opt.stop_ms * 1000000) {
        (void)kill(side[victim].pid, SIGCONT);
    }
    if (opt.kill == NULL) {
        return side[BACKUP].compared > 0 && side[BACKUP].differ == 0 ? 0 : -1;
    }
    if (now < done_at + (opt.stop_ms + 2500) * 1000000) {
        return -1;
    }
    return (victim == PRIMARY ? took_over : alone) && side[other].slice > slice_then ? 0 : 1;
}

static void parse(int argc, char **argv)
{
    static const struct option longs[] = {{"mem", 1, NULL, 'm'},       {"vcpus", 1, NULL, 'v'},
                                          {"mark", 1, NULL, 'k'},      {"kill", 1, NULL, 'x'},
                                          {"stop-ms", 1, NULL, 's'},   {"after-ms", 1, NULL, 'a'},
                                          {"disk", 1, NULL, 'd'},      {"chaos", 1, NULL, 'c'},
                                          {"digest", 1, NULL, 'g'},    {"timeout", 1, NULL, 't'},
                                          {"state", 1, NULL, 'S'},     {"net", 0, NULL, 'n'},
                                          {"flip", 1, NULL, 'f'},      {"scrub-ms", 1, NULL, 'u'},
                                          {"flip-disk", 1, NULL, 'F'}, {"taps", 1, NULL, 'T'},
                                          {"exec", 1, NULL, 'e'},      {"engines", 1, NULL, 'E'},
                                          {"cpu", 1, NULL, 'C'},       {0}};
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        uint64_t n = optarg != NULL ? strtoull(optarg, NULL, 0) : 0;
        switch (c) {
        case 'm':
            opt.memory = n;
            break;
        case 'v':
            opt.vcpus = (uint32_t)n;
            break;
        case 'k':
            opt.mark = optarg;
            break;
        case 'x':
            opt.kill = optarg;
            break;
        case 's':
            opt.stop_ms = n;
            break;
        case 'a':
            opt.after_ms = n;
            break;
        case 'd':
            opt.disk = optarg;
            break;
        case 'c':
            opt.chaos = n;
            break;
        case 'g':
            opt.digest = (uint32_t)n;
            break;
        case 't':
            opt.timeout_s = n;
            break;
        case 'S':
            opt.state = optarg;
            break;
        case 'E':
            opt.engine[PRIMARY] = strsep(&optarg, ",");
            opt.engine[BACKUP] = optarg;
            break;
        case 'n':
            opt.net = true;
            break;
        case 'f':
            opt.flip = n;
            break;
        case 'T':
            opt.taps = optarg;
            opt.net = true;
            break;
        case 'e':
            opt.exec = optarg;
            break;
        case 'F':
            opt.flip_disk = n;
            break;
        case 'C':
            opt.cpu = optarg;
            break;
        case 'u':
            opt.scrub_ms = n;
            break;
        default:
            exit(2);
        }
    }
    if (argc - optind != 3) {
        (void)fprintf(stderr, "usage: duo KERNEL INITRD CMDLINE [options]\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    const char *build = getenv("BUILD");
    char program[256];
    uint64_t end;
    int rc;

    parse(argc, argv);
    argv += optind;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)snprintf(program, sizeof program, "%s/pollux-replica", build != NULL ? build : "build");
    for (int i = 0; i < 2; i++) {
        side[i].incarnation = 101 + (uint64_t)i;
        (void)snprintf(side[i].endpoint, sizeof side[i].endpoint, "ipc:///tmp/pollux-duo-%d-%d",
                       (int)getpid(), i);
        make_keys(&side[i]);
        spawn(program, &side[i]);
    }
    end = clock_mono_ns() + opt.timeout_s * 1000000000;
    for (;;) {
        struct pollfd p[2];
        uint64_t now = clock_mono_ns();

        for (int i = 0; i < 2; i++) {
            p[i] = (struct pollfd){.fd = side[i].alive ? side[i].fd : -1, .events = POLLIN};
        }
        (void)poll(p, 2, 20);
        for (int i = 0; i < 2; i++) {
            if ((p[i].revents & (POLLIN | POLLHUP)) != 0) {
                receive(i, argv);
            }
        }
        rc = judge(now);
        if (rc >= 0) {
            return finish(rc);
        }
        if (now > end) {
            (void)fprintf(stderr, "over the time limit\n");
            return finish(124);
        }
    }
}
