/* SPDX-License-Identifier: Apache-2.0
 * base/err.h - the project-wide error numbers and the message that travels with one.
 *
 * The sign of an int return says who is concerned: 0 done; negative, one of these; positive, an
 * event of the guest. A struct plx_err is filled where the failure is seen ("what, on what, what
 * to do") and gains context outward with plx_err_wrap. Every err parameter may be NULL. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define PLX_ERRORS(X)                  \
    X(EINVAL, "invalid argument")      \
    X(ENOMEM, "out of memory")         \
    X(EIO, "input/output error")       \
    X(ENOENT, "not found")             \
    X(EEXIST, "already exists")        \
    X(EACCES, "permission denied")     \
    X(EBUSY, "busy")                   \
    X(EAGAIN, "try again")             \
    X(ETIMEDOUT, "timed out")          \
    X(ECORRUPT, "corrupt data")        \
    X(ETRUNCATED, "truncated data")    \
    X(EVERSION, "unsupported version") \
    X(ENOTSUP, "not supported")        \
    X(ERANGE, "out of range")          \
    X(ECONN, "connection lost")        \
    X(EAUTH, "not authorised")         \
    X(ESTALE, "superseded")            \
    X(EDIVERGED, "replicas diverged")  \
    X(ECANCELED, "canceled")           \
    X(ESTATE, "not possible in this state")

enum plx_errno {
    PLX_OK = 0,
    PLX_ERR_BASE_ = -1000,
#define PLX_ERR_ENUM_(name, text) PLX_##name,
    PLX_ERRORS(PLX_ERR_ENUM_)
#undef PLX_ERR_ENUM_
        PLX_ERR_END_ /* one past the last */
};

enum { PLX_ERR_MSG_MAX = 512 };

struct plx_err {
    char msg[PLX_ERR_MSG_MAX]; /* empty until something failed; never ends in a newline */
};

/* Fixed text of an error number; "unknown error" for any other int. */
const char *plx_strerror(int rc);

/* Set the message and return @rc, so that a failure is one statement. */
int plx_fail(struct plx_err *err, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As plx_fail, with ": " and strerror(errno) appended; returns the number nearest to errno. */
int plx_fail_errno(struct plx_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put context in front of the message ("context: message") and return @rc. */
int plx_err_wrap(struct plx_err *err, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Static analysis does not follow @rc through a call with "...": a failure is never 0. */
#ifdef __clang_analyzer__
#define plx_fail(...)       ((void)plx_fail(__VA_ARGS__), PLX_EIO)
#define plx_fail_errno(...) ((void)plx_fail_errno(__VA_ARGS__), PLX_EIO)
#define plx_err_wrap(...)   ((void)plx_err_wrap(__VA_ARGS__), PLX_EIO)
#endif

#endif
