/* SPDX-License-Identifier: Apache-2.0
 * ops/opt.c - tables of options over getopt_long(3). */
#include "ops/opt.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { OPTIONS_MAX = 40, CODE_BASE = 256, CODE_HELP = CODE_BASE + OPTIONS_MAX, HELP_COLUMN = 26 };

static void print_help(const struct opt_command *cmd)
{
    printf("usage: %s [options]%s%s\n%s\n\noptions:\n", cmd->name, *cmd->arguments ? " " : "",
           cmd->arguments, cmd->summary);
    for (const struct opt *o = cmd->options; o->name != NULL; o++) {
        char left[80];

        (void)snprintf(left, sizeof left, "--%s%s%s", o->name, o->values != NULL ? " " : "",
                       o->values != NULL ? o->values : "");
        if (strlen(left) >= HELP_COLUMN) {
            printf("  %s\n  %-*s%s\n", left, HELP_COLUMN, "", o->help);
        } else {
            printf("  %-*s%s\n", HELP_COLUMN, left, o->help);
        }
    }
    printf("  %-*s%s\n", HELP_COLUMN, "--help", "print this");
}

/* What getopt_long did not take. */
static int refuse(const struct opt_command *cmd, int n, char *given, struct plx_err *err)
{
    if (optopt > 0 && optopt < CODE_BASE) { /* there are no short ones */
        return plx_fail(err, PLX_EINVAL, "unknown option -%c (see %s --help)", optopt, cmd->name);
    }
    if (optopt == CODE_HELP || (optopt >= CODE_BASE && optopt < CODE_BASE + n)) {
        return plx_fail(err, PLX_EINVAL, "--%s takes no value (see %s --help)",
                        optopt == CODE_HELP ? "help" : cmd->options[optopt - CODE_BASE].name,
                        cmd->name);
    }
    return plx_fail(err, PLX_EINVAL, "unknown option %s (see %s --help)", given, cmd->name);
}

int opt_parse(const struct opt_command *cmd, void *ctx, int argc, char **argv, int *first,
              struct plx_err *err)
{
    struct option longs[OPTIONS_MAX + 2] = {0};
    int n = 0, code, rc;

    for (; cmd->options[n].name != NULL; n++) {
        PLX_CHECK(n < OPTIONS_MAX);
        longs[n] = (struct option){.name = cmd->options[n].name,
                                   .has_arg = cmd->options[n].values != NULL,
                                   .val = CODE_BASE + n};
    }
    longs[n] = (struct option){.name = "help", .val = CODE_HELP};
    optind = 0; /* anew, also after one that ended inside an argument (glibc) */
    opterr = 0;
    while ((code = getopt_long(argc, argv, ":", longs, NULL)) != -1) {
        const struct opt *o;
        char *values[2] = {optarg, NULL};

        if (code == CODE_HELP) {
            print_help(cmd);
            return OPT_HELP;
        }
        if (code == ':') {
            return plx_fail(err, PLX_EINVAL, "%s needs a value (see %s --help)", argv[optind - 1],
                            cmd->name);
        }
        if (code < CODE_BASE || code >= CODE_BASE + n) {
            return refuse(cmd, n, argv[optind - 1], err);
        }
        o = &cmd->options[code - CODE_BASE];
        if (o->values != NULL && strchr(o->values, ' ') != NULL) {
            if (optind >= argc) {
                return plx_fail(err, PLX_EINVAL, "--%s needs two values: %s", o->name, o->values);
            }
            values[1] = argv[optind++];
        }
        rc = o->set(ctx, values, err);
        if (rc != 0) {
            return plx_err_wrap(err, rc, "--%s", o->name);
        }
    }
    *first = optind;
    if (argc - optind < cmd->min_args) {
        return plx_fail(err, PLX_EINVAL, "an argument is missing: usage: %s [options] %s",
                        cmd->name, cmd->arguments);
    }
    if (argc - optind > cmd->max_args) {
        return plx_fail(err, PLX_EINVAL, "unexpected argument '%s' (see %s --help)",
                        argv[optind + cmd->max_args], cmd->name);
    }
    return 0;
}

int opt_u64(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *out,
            struct plx_err *err)
{
    char *end;
    unsigned long long v;

    if (text[0] < '0' || text[0] > '9') {
        return plx_fail(err, PLX_EINVAL, "%s must be a number, not '%s'", what, text);
    }
    errno = 0;
    v = strtoull(text, &end, 10);
    if (*end != 0) {
        return plx_fail(err, PLX_EINVAL, "%s must be a number, not '%s'", what, text);
    }
    if (errno != 0 || v < min || v > max) {
        return plx_fail(err, PLX_ERANGE, "%s must be from %" PRIu64 " to %" PRIu64 ", not %s", what,
                        min, max, text);
    }
    *out = v;
    return 0;
}
