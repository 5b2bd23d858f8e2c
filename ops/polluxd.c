/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd.c - the daemon of a node: membership, roles, API, metrics, TAPs. See polluxd(8). */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "ops/polluxd/daemon.h"

#define KEY_PRESET "/etc/pollux/node.key"

static void usage(FILE *to)
{
    (void)fprintf(to,
                  "usage: polluxd [--config FILE]         run the daemon (" CONF_DEFAULT_PATH ")\n"
                  "       polluxd --keygen [--key FILE]   make this node's key (" KEY_PRESET ")\n"
                  "                                       and print its public half\n"
                  "       polluxd --check [--config FILE] read the configuration and stop\n");
}

static int keygen(const char *path)
{
    struct plx_err err = {""};
    struct curve_pair k;
    char hex[CURVE_KEY_HEX];

    if (curve_generate(&k, &err) != 0 || curve_write_file(path, &k, &err) != 0) {
        (void)fprintf(stderr, "polluxd: %s\n", err.msg);
        return EXIT_FAILURE;
    }
    (void)printf("public_key = %s\n", curve_hex(k.public_key, hex));
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    enum { CONFIG = 256, KEYGEN, KEY, CHECK, HELP };
    static const struct option options[] = {
        {"config", required_argument, NULL, CONFIG}, {"keygen", no_argument, NULL, KEYGEN},
        {"key", required_argument, NULL, KEY},       {"check", no_argument, NULL, CHECK},
        {"help", no_argument, NULL, HELP},           {NULL, 0, NULL, 0},
    };
    static struct conf conf;
    const char *config = CONF_DEFAULT_PATH, *key = KEY_PRESET;
    bool make_key = false, check = false;
    struct plx_err err = {""};
    int opt;

    log_init("polluxd", LOG_INFO);
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case CONFIG:
            config = optarg;
            break;
        case KEYGEN:
            make_key = true;
            break;
        case KEY:
            key = optarg;
            break;
        case CHECK:
            check = true;
            break;
        case HELP:
            usage(stdout);
            return EXIT_SUCCESS;
        default:
            usage(stderr);
            return EXIT_FAILURE;
        }
    }
    if (optind != argc) {
        usage(stderr);
        return EXIT_FAILURE;
    }
    if (make_key) {
        return keygen(key);
    }
    if (conf_load(config, &conf, &err) != 0 || (!check && daemon_run(&conf, &err) != 0)) {
        (void)fprintf(stderr, "polluxd: %s\n", err.msg);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
