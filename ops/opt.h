/* SPDX-License-Identifier: Apache-2.0
 * ops/opt.h - options of a subcommand from one table, and the values users write.
 *
 * getopt_long(3) does the parsing; the table gives names, help and what to do with a value. One
 * thread. */
#ifndef OPS_OPT_H
#define OPS_OPT_H

#include <stdint.h>

#include "base/err.h"

struct opt {
    const char *name;   /* without the dashes */
    const char *values; /* as in "FILE", or "MARK FILE" for two; NULL: a flag */
    const char *help;
    /* @values as given: none, one or two. Errors are reported with the option's name in front. */
    int (*set)(void *ctx, char *const *values, struct plx_err *err);
};

struct opt_command {
    const char *name;      /* "pollux run" */
    const char *arguments; /* what stands after the options; "" */
    const char *summary;
    const struct opt *options; /* ends with a NULL name */
    int min_args, max_args;
};

enum { OPT_HELP = 1 };

/* Parses argv[1..]; the arguments are left at argv[*first..argc). Returns 0, OPT_HELP (--help was
 * asked for and printed to stdout), or PLX_EINVAL and what set returned, with a message. */
int opt_parse(const struct opt_command *cmd, void *ctx, int argc, char **argv, int *first,
              struct plx_err *err);

/* A decimal number within min..max. Errors: PLX_EINVAL, PLX_ERANGE, naming @what. */
int opt_u64(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *out,
            struct plx_err *err);

#endif
