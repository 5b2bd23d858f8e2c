/* SPDX-License-Identifier: Apache-2.0
 * ops/cmd.h - the subcommands of `pollux`. ops/pollux.c holds the one table of them. */
#ifndef OPS_CMD_H
#define OPS_CMD_H

/* argv[0] is the subcommand's name. Returns the exit code; errors were printed. */
int cmd_run(int argc, char **argv);
int cmd_disk(int argc, char **argv);
struct run_image; /* ops/cmd_run.h */
int cmd_run_image(int argc, char **argv, const struct run_image *image);
int cmd_replay(int argc, char **argv);
int cmd_vm(int argc, char **argv); /* the verbs that ask the daemon */
int cmd_console(int argc, char **argv);
int cmd_image(int argc, char **argv);

/* Exit codes of `pollux run` and `pollux replay`; those of a debug exit are (v << 1) | 1. */
enum { EXIT_OK = 0, EXIT_ERROR = 1, EXIT_TRIPLE_FAULT = 3, EXIT_DIVERGED = 4, EXIT_TIMEOUT = 124 };

#endif
