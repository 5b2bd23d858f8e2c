/* SPDX-License-Identifier: Apache-2.0
 * ops/pollux.c - the command line tool: one table of subcommands. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/cmd.h"

#define VERSION "0.1.0"

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"run", "run one VM on this host", cmd_run},
    {"replay", "run a recording again and compare its digests", cmd_replay},
};

static void usage(FILE *to)
{
    (void)fprintf(to, "usage: pollux COMMAND [options]\n\ncommands:\n");
    for (unsigned i = 0; i < PLX_COUNT(commands); i++) {
        (void)fprintf(to, "  %-12s%s\n", commands[i].name, commands[i].summary);
    }
    (void)fprintf(to, "\n`pollux COMMAND --help` lists a command's options; `pollux --version`\n");
}

int main(int argc, char **argv)
{
    log_init("pollux", LOG_WARN);
    if (argc < 2) {
        usage(stderr);
        return EXIT_ERROR;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        usage(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("pollux " VERSION "\n");
        return EXIT_OK;
    }
    for (unsigned i = 0; i < PLX_COUNT(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    (void)fprintf(stderr, "pollux: no command '%s' (see pollux --help)\n", argv[1]);
    return EXIT_ERROR;
}
