/* SPDX-License-Identifier: Apache-2.0
 * ops/pollux.c - the command line tool: one table of subcommands. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "ops/cmd.h"
#include "ops/disk_image.h"

#define VERSION "0.1.0"

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"run", "run one VM on this host", cmd_run},
    {"disk", "virtual disks: make, look at, change, convert, serve", cmd_disk},
    {"replay", "run a recording again and compare its digests", cmd_replay},
    {"image", "disk images in a store: push, list, run, ...", cmd_image},
    {"define", "define a VM by its domain XML", cmd_vm},
    {"undefine", "forget a stopped VM", cmd_vm},
    {"start", "start a VM, as a pair if it is protected", cmd_vm},
    {"list", "the VMs of the cluster", cmd_vm},
    {"info", "one VM or the cluster, with the latest events", cmd_vm},
    {"protect", "run a VM on two nodes from its next start on", cmd_vm},
    {"unprotect", "run a VM on one node only", cmd_vm},
    {"console", "the guest's console in this terminal", cmd_console},
    {"destroy", "stop a VM at once", cmd_vm},
    {"dumpxml", "print a VM's definition", cmd_vm},
};

static void usage(FILE *to)
{
    (void)fprintf(to, "usage: pollux COMMAND [options]\n\ncommands:\n");
    for (unsigned i = 0; i < PLX_COUNT(commands); i++) {
        (void)fprintf(to, "  %-12s%s\n", commands[i].name, commands[i].summary);
    }
    (void)fprintf(to, "\n`pollux COMMAND --help` lists a command's options; `pollux --version`\n");
}

static int run_command(int argc, char **argv)
{
    for (unsigned i = 0; i < PLX_COUNT(commands); i++) {
        if (strcmp(argv[0], commands[i].name) == 0) {
            return commands[i].run(argc, argv);
        }
    }
    (void)fprintf(stderr, "pollux: no command '%s' (see pollux --help)\n", argv[0]);
    return EXIT_ERROR;
}

int main(int argc, char **argv)
{
    log_init("pollux", LOG_WARN);
    disk_image_register();
    if (argc < 2) {
        usage(stderr);
        return EXIT_ERROR;
    }
    bool help = strcmp(argv[1], "help") == 0;
    if ((help && argc == 2) || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        usage(stdout);
        return EXIT_OK;
    }
    if (help) {
        char option[] = "--help", *of[] = {argv[2], option, NULL};
        return run_command(2, of);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("pollux " VERSION "\n");
        return EXIT_OK;
    }
    return run_command(argc - 1, argv + 1);
}
