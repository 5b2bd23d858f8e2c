/* SPDX-License-Identifier: Apache-2.0
 * Hunts: a polluxd that kills a replica it finds again, because that one took its time to answer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/polluxd/child_priv.h"
#include "proto/frame.h"

enum { INCARNATION = 0x1234 };

static struct daemon d;
static struct conf conf;

/* --- a replica without its daemon --------------------------------------------------------------
 */

static int listen_at(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    assert_true(strlen(path) < sizeof a.sun_path);
    strcpy(a.sun_path, path);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 4) == 0);
    return fd;
}

/* As ops/replica/control.c: one connection is taken, then nobody listens any more. It exits with 7
 * when the daemon lets go of it. */
static void replica(int listener, int go)
{
    Ctl__FromReplica m = CTL__FROM_REPLICA__INIT;
    Ctl__Hello h = CTL__HELLO__INIT;
    uint8_t vm[ROLES_UUID_LEN] = {1}, bytes[512];
    char c;

    if (read(go, &c, 1) != 1) {
        _exit(1);
    }
    int fd = accept(listener, NULL, NULL);
    (void)close(listener);
    h.version = CONTROL_VERSION;
    h.vm = (ProtobufCBinaryData){.len = sizeof vm, .data = vm};
    h.incarnation = INCARNATION;
    m.msg_case = CTL__FROM_REPLICA__MSG_HELLO;
    m.hello = &h;
    (void)packet_send(fd, bytes, ctl__from_replica__pack(&m, bytes), NULL, 0);
    while (recv(fd, bytes, sizeof bytes, 0) > 0) {
    }
    _exit(7);
}

/* --------------------------------------------------------------------------------------------- */

static void turns(void)
{
    for (int i = 0; i < 50; i++) {
        (void)uv_run(&d.loop, UV_RUN_NOWAIT);
        (void)usleep(2000);
    }
}

static unsigned children(void)
{
    unsigned n = 0;

    for (const struct child *c = d.children; c != NULL; c = c->next) {
        n += !c->closed;
    }
    return n;
}

/* A daemon, and a process that runs @body with the socket of a replica, which it finds at @path.
 * Returns its pid; *go is the other end of what @body reads. */
static pid_t start(void (*body)(int listener, int go), char path[PATH_MAX], int *go)
{
    int ends[2];

    log_init("test", LOG_ERROR);
    memset(&d, 0, sizeof d);
    d.conf = &conf;
    (void)snprintf(conf.run_dir, sizeof conf.run_dir, "/tmp/pollux-adopt-XXXXXX");
    assert_non_null(mkdtemp(conf.run_dir));
    child_socket_path(&d, INCARNATION, path);
    assert_int_equal(pipe(ends), 0);
    int listener = listen_at(path);
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(ends[1]); /* so that it ends with the test */
        body(listener, ends[0]);
    }
    (void)close(listener);
    (void)close(ends[0]);
    assert_int_equal(uv_loop_init(&d.loop), 0);
    *go = ends[1];
    return pid;
}

static void a_replica_that_answers_late_is_adopted(void **state)
{
    char path[PATH_MAX];
    int go, status;
    pid_t pid = start(replica, path, &go);

    (void)state;
    for (int second = 0; second < 3; second++) {
        child_scan(&d);
        turns();
        assert_int_equal(children(), 1);
    }
    assert_int_equal(write(go, "x", 1), 1);
    turns();
    assert_non_null(child_find(&d, INCARNATION));
    assert_int_equal(children(), 1);
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);

    d.stopping = true;
    child_detach_all(&d);
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&d.loop), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    (void)unlink(path);
    assert_int_equal(rmdir(conf.run_dir), 0);
}

static void hang_up(int listener, int go)
{
    char c;

    (void)close(accept(listener, NULL, NULL));
    _exit(read(go, &c, 1) == 1 ? 7 : 1);
}

/* Who only hangs up has not said who it is: nobody is killed for that, and it is looked for again.
 */
static void one_that_hangs_up_is_left_alone(void **state)
{
    char path[PATH_MAX];
    int go, status;
    pid_t pid = start(hang_up, path, &go);

    (void)state;
    child_scan(&d);
    turns();
    assert_int_equal(children(), 0);
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(write(go, "x", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&d.loop), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(conf.run_dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_replica_that_answers_late_is_adopted),
        cmocka_unit_test(one_that_hangs_up_is_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
