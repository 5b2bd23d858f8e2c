/* SPDX-License-Identifier: Apache-2.0
 * tests/fuzz/fuzz_reply.c - bytes of a polluxd as what the CLI's verbs are answered: read, judged
 * and printed. First byte: which verb, and whether as JSON or as text; the rest is the stream. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "base/io.h"
#include "ops/cmd.h"
#include "tests/fuzz/fuzz.h"

static char path[64];
static int listener;
static const uint8_t *answer;
static size_t answer_len;

/* Takes one request, whatever it is, and answers it. */
static void *serve(void *arg)
{
    uint8_t request[4096];
    int fd = accept(listener, NULL, NULL);

    (void)arg;
    PLX_CHECK(fd >= 0);
    (void)io_read_some(fd, request, sizeof request);
    (void)io_write_full(fd, answer, answer_len);
    (void)close(fd);
    return NULL;
}

static void forget(void)
{
    (void)unlink(path);
}

static void prepare(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    (void)snprintf(path, sizeof path, "/tmp/pollux-fuzz-reply-%d", (int)getpid());
    strcpy(a.sun_path, path);
    (void)signal(SIGPIPE, SIG_IGN);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    PLX_CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&a, sizeof a) == 0);
    PLX_CHECK(listen(listener, 1) == 0 && atexit(forget) == 0);
}

/* What is printed goes nowhere meanwhile. */
static int divert(int fd, int to)
{
    int kept = dup(fd);

    PLX_CHECK(kept >= 0 && dup2(to, fd) == fd);
    return kept;
}

static void restore(int fd, int kept)
{
    PLX_CHECK(dup2(kept, fd) == fd && close(kept) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const verbs[] = {"list", "info", "info", "start", "protect", "dumpxml"};
    enum { VM_FROM = 2 }; /* these are of a VM */
    char *argv[] = {NULL, (char *)(uintptr_t) "--socket", path, NULL, NULL, NULL};
    int argc = 3;
    pthread_t thread;

    if (listener == 0) {
        prepare();
    }
    if (size == 0) {
        return 0;
    }
    unsigned verb = data[0] / 2 % PLX_COUNT(verbs);
    argv[0] = (char *)(uintptr_t)verbs[verb];
    if (data[0] % 2 == 1) {
        argv[argc++] = (char *)(uintptr_t) "--json";
    }
    if (verb >= VM_FROM) {
        argv[argc++] = (char *)(uintptr_t) "vm";
    }
    answer = data + 1;
    answer_len = size - 1;
    PLX_CHECK(pthread_create(&thread, NULL, serve, NULL) == 0);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    PLX_CHECK(null >= 0 && fflush(stdout) == 0);
    int out = divert(STDOUT_FILENO, null), err = divert(STDERR_FILENO, null);
    int code = cmd_vm(argc, argv);
    PLX_CHECK(fflush(stdout) == 0);
    restore(STDOUT_FILENO, out);
    restore(STDERR_FILENO, err);
    (void)close(null);
    PLX_CHECK(code == EXIT_OK || code == EXIT_ERROR);
    PLX_CHECK(pthread_join(thread, NULL) == 0);
    return 0;
}
