/* SPDX-License-Identifier: Apache-2.0
 * base/err.c - error strings and messages. Pure; any thread. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#undef plx_fail /* for static analysis these are macros */
#undef plx_fail_errno
#undef plx_err_wrap

const char *plx_strerror(int rc)
{
    switch (rc) {
    case PLX_OK:
        return "success";
#define PLX_ERR_CASE_(name, text) \
    case PLX_##name:              \
        return text;
        PLX_ERRORS(PLX_ERR_CASE_)
#undef PLX_ERR_CASE_
    default:
        return "unknown error";
    }
}

static int errno_to_plx(int e)
{
    static const struct {
        int from, to;
    } map[] = {
        {ENOENT, PLX_ENOENT}, {EEXIST, PLX_EEXIST}, {EACCES, PLX_EACCES}, {EPERM, PLX_EACCES},
        {EBUSY, PLX_EBUSY},   {EAGAIN, PLX_EAGAIN}, {ENOMEM, PLX_ENOMEM}, {EINVAL, PLX_EINVAL},
    };

    for (size_t i = 0; i < sizeof map / sizeof map[0]; i++) {
        if (map[i].from == e) {
            return map[i].to;
        }
    }
    return PLX_EIO;
}

int plx_fail(struct plx_err *err, int rc, const char *fmt, ...)
{
    va_list ap;

    if (err != NULL) {
        va_start(ap, fmt);
        (void)vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
    }
    return rc;
}

int plx_fail_errno(struct plx_err *err, const char *fmt, ...)
{
    int e = errno;
    va_list ap;

    if (err != NULL) {
        va_start(ap, fmt);
        int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < sizeof err->msg) {
            (void)snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %s", strerror(e));
        }
    }
    return errno_to_plx(e);
}

int plx_err_wrap(struct plx_err *err, int rc, const char *fmt, ...)
{
    char inner[PLX_ERR_MSG_MAX];
    va_list ap;

    if (err != NULL) {
        memcpy(inner, err->msg, sizeof inner);
        inner[sizeof inner - 1] = '\0';
        va_start(ap, fmt);
        int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < sizeof err->msg) {
            (void)snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %s",
                           inner[0] != '\0' ? inner : plx_strerror(rc));
        }
    }
    return rc;
}
