/* SPDX-License-Identifier: Apache-2.0
 * ops/monitor.c - the monitor's line editor and its table of commands. */
#include "ops/monitor.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

static const struct {
    const char *name, *help;
    enum monitor_action action;
} commands[] = {
    {"info", "what the VM has done so far", MONITOR_INFO},
    {"save", "save FILE: write the VM's state", MONITOR_SAVE},
    {"cont", "go on", MONITOR_CONTINUE},
    {"quit", "end the VM", MONITOR_QUIT},
};

void monitor_open(struct monitor *m)
{
    m->len = 0;
    m->print(m->ctx, "\r\npollux> ");
}

static enum monitor_action execute(struct monitor *m)
{
    char *argument = strchr(m->line, ' ');

    if (argument != NULL) {
        *argument++ = 0;
    }
    for (unsigned i = 0; i < PLX_COUNT(commands); i++) {
        if (strcmp(m->line, commands[i].name) != 0) {
            continue;
        }
        if (commands[i].action == MONITOR_SAVE) {
            if (argument == NULL || *argument == 0) {
                m->print(m->ctx, "save needs a file name\r\n");
                return MONITOR_MORE;
            }
            (void)snprintf(m->argument, sizeof m->argument, "%s", argument);
        }
        return commands[i].action;
    }
    if (m->line[0] != 0) {
        for (unsigned i = 0; i < PLX_COUNT(commands); i++) {
            char text[80];

            (void)snprintf(text, sizeof text, "%-6s %s\r\n", commands[i].name, commands[i].help);
            m->print(m->ctx, text);
        }
    }
    return MONITOR_MORE;
}

enum monitor_action monitor_feed(struct monitor *m, const uint8_t *bytes, size_t len, size_t *used)
{
    enum { BACKSPACE = 8, DELETE = 127, CTRL_D = 4 };

    for (size_t i = 0; i < len; i++) {
        char echo[2] = {(char)bytes[i], 0};
        enum monitor_action action;

        *used = i + 1;
        switch (bytes[i]) {
        case '\r':
        case '\n':
            m->print(m->ctx, "\r\n");
            m->line[m->len] = 0;
            m->len = 0;
            action = execute(m);
            if (action != MONITOR_MORE) {
                return action;
            }
            m->print(m->ctx, "pollux> ");
            break;
        case BACKSPACE:
        case DELETE:
            if (m->len > 0) {
                m->len--;
                m->print(m->ctx, "\b \b");
            }
            break;
        case CTRL_D:
            return MONITOR_CONTINUE;
        default:
            if (bytes[i] >= ' ' && m->len < sizeof m->line - 1) {
                m->line[m->len++] = (char)bytes[i];
                m->print(m->ctx, echo);
            }
            break;
        }
    }
    *used = len;
    return MONITOR_MORE;
}
