/* SPDX-License-Identifier: Apache-2.0
 * ops/polluxd/domain.h - a VM's definition: libvirt domain XML, with Pollux's own settings in
 *
 *     <metadata><p:vm xmlns:p="urn:pollux:domain:1"><p:protect>yes</p:protect>...</p:vm></metadata>
 *
 * (libvirt.org, "Domain XML format".) External entities and document types are refused, and so is
 * an element that stands twice where one is meant. What is understood but not acted on, and
 * elements that are unknown where they stand, are reported as warnings with their line. */
#ifndef OPS_POLLUXD_DOMAIN_H
#define OPS_POLLUXD_DOMAIN_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "consensus/roles.h"
#include "vmm/cpu/cpu.h"

enum {
    DOMAIN_DISKS_MAX = 8,
    DOMAIN_NICS_MAX = 4,
    DOMAIN_CMDLINE_MAX = 2048,
    DOMAIN_WARNINGS_MAX = 16,
    DOMAIN_WARNING_MAX = 160,
    UUID_TEXT = 37
};

struct domain_disk {
    char path[PATH_MAX];
    bool readonly;
};

struct domain_nic {
    char bridge[16]; /* empty: the node's default */
    uint8_t mac[6];
    bool has_mac;
};

struct domain {
    char name[ROLES_NAME_MAX];
    uint8_t uuid[ROLES_UUID_LEN];
    bool has_uuid;
    uint64_t memory; /* bytes */
    unsigned vcpus;
    enum cpu_model cpu;
    char kernel[PATH_MAX], initrd[PATH_MAX]; /* initrd may be empty */
    char cmdline[DOMAIN_CMDLINE_MAX];
    struct domain_disk disks[DOMAIN_DISKS_MAX];
    unsigned ndisks;
    struct domain_nic nics[DOMAIN_NICS_MAX];
    unsigned nnics;
    bool rng;
    /* metadata */
    bool protect;
    char primary[64], backup[64]; /* nodes to prefer; empty: any */
    char state_file[PATH_MAX];    /* start from this state; empty: boot */

    char warnings[DOMAIN_WARNINGS_MAX][DOMAIN_WARNING_MAX];
    unsigned nwarnings; /* more than DOMAIN_WARNINGS_MAX: the rest was not kept */
};

/* Errors: PLX_EINVAL with what is wrong and where. */
int domain_parse(const char *xml, size_t len, struct domain *d, struct plx_err *err);

/* The MAC of NIC @i: as defined, or one derived from the UUID, the same on every node. */
void domain_mac(const struct domain *d, const uint8_t uuid[ROLES_UUID_LEN], unsigned i,
                uint8_t mac[6]);

bool uuid_parse(const char *s, uint8_t out[ROLES_UUID_LEN]); /* with or without hyphens */
const char *uuid_text(const uint8_t uuid[ROLES_UUID_LEN], char out[UUID_TEXT]);

#endif
