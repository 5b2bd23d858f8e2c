/* SPDX-License-Identifier: Apache-2.0
 * ops/shadow_opt.h - the value of --shadow: how vCPUs keep translations. */
#ifndef OPS_SHADOW_OPT_H
#define OPS_SHADOW_OPT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "vmm/mmu/shadow.h"

#define SHADOW_OPT_VALUES "tagged=on|off,batch=N,lazy-ad=on|off,batch-shootdown=on|off"

/* Change in *@cfg what @text names. Errors: PLX_EINVAL, PLX_ERANGE, with a message. */
int shadow_opt(const char *text, struct shadow_config *cfg, struct plx_err *err);

/* Does @text name lazy-ad, which recordings and saved states have a value of already? */
bool shadow_opt_names_lazy_ad(const char *text);

/* One line: the counters that are not 0, as name=value. */
void shadow_print_counters(const struct shadow_counters *c, FILE *to);

#endif
