/* SPDX-License-Identifier: Apache-2.0
 * base/log.c - see log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *log_program = "pollux";
static int log_threshold = LOG_WARN;

void log_init(const char *program, enum log_level level)
{
    const char *env = getenv("POLLUX_LOG");

    log_program = program;
    log_threshold = (int)level;
    for (int i = 0; env != NULL && i <= LOG_DEBUG; i++) {
        if (strcmp(env, level_names[i]) == 0) {
            log_threshold = i;
        }
    }
}

void log_line(enum log_level level, const char *fmt, ...)
{
    char line[1024];
    struct tm tm;
    va_list ap;
    int n, m;

    if ((int)level > log_threshold) {
        return;
    }
    uint64_t now = clock_wall_ns();
    time_t secs = (time_t)(now / 1000000000U);
    (void)gmtime_r(&secs, &tm);
    n = snprintf(line, sizeof line, "%02d:%02d:%02d.%06u %s[%d] %s: ", tm.tm_hour, tm.tm_min,
                 tm.tm_sec, (unsigned)(now / 1000 % 1000000), log_program, (int)getpid(),
                 level_names[level]);
    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    n += m < 0 ? 0 : m;
    if ((size_t)n > sizeof line - 2) {
        n = (int)sizeof line - 2;
    }
    line[n++] = '\n';
    (void)io_write_full(STDERR_FILENO, line, (size_t)n);
}
