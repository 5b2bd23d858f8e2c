/* SPDX-License-Identifier: Apache-2.0
 * base/log.h - lines to stderr, by level, with the wall time and the program's name. Any thread;
 * one write(2) a line. Level from POLLUX_LOG (error, warn, info, debug) or log_init. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* @program is borrowed for ever. Without this call the name is "pollux", the level LOG_WARN. */
void log_init(const char *program, enum log_level level);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
