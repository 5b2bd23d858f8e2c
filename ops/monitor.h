/* SPDX-License-Identifier: Apache-2.0
 * ops/monitor.h - the prompt behind Ctrl-A c, while the VM stands still between two slices.
 *
 * A line editor that is fed bytes and answers with what to do. One thread; pure but for printing
 * through the given function. */
#ifndef OPS_MONITOR_H
#define OPS_MONITOR_H

#include <stddef.h>
#include <stdint.h>

enum monitor_action { MONITOR_MORE, MONITOR_CONTINUE, MONITOR_INFO, MONITOR_SAVE, MONITOR_QUIT };

struct monitor {
    char line[1024];
    size_t len;
    char argument[1024];                        /* of MONITOR_SAVE: the file */
    void (*print)(void *ctx, const char *text); /* lines end in "\r\n": the terminal is raw */
    void *ctx;
};

void monitor_open(struct monitor *m); /* prints the prompt */
/* Consumes bytes up to the end of a command; *used says how many. */
enum monitor_action monitor_feed(struct monitor *m, const uint8_t *bytes, size_t len, size_t *used);

#endif
