/* SPDX-License-Identifier: Apache-2.0
 * ops/shadow_opt.c - see shadow_opt.h. */
#include "ops/shadow_opt.h"

#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "ops/opt.h"

enum { TEXT_MAX = 128 };

static int set_switch(const char *name, const char *value, bool *out, struct plx_err *err)
{
    if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0) {
        return plx_fail(err, PLX_EINVAL, "%s is on or off, not '%s'", name, value);
    }
    *out = strcmp(value, "on") == 0;
    return 0;
}

static int set_batch(const char *value, unsigned *out, struct plx_err *err)
{
    uint64_t n;
    int rc = opt_u64(value, "batch", 1, SHADOW_BATCH_MAX, &n, err);

    if (rc == 0 && (n & (n - 1)) != 0) {
        return plx_fail(err, PLX_EINVAL, "batch is a power of two up to %d, not %s",
                        SHADOW_BATCH_MAX, value);
    }
    *out = rc == 0 ? (unsigned)n : *out;
    return rc;
}

static int set_one(const char *name, const char *value, struct shadow_config *cfg,
                   struct plx_err *err)
{
    const struct {
        const char *name;
        bool *out;
    } switches[] = {
        {"tagged", &cfg->tagged},
        {"lazy-ad", &cfg->lazy_ad},
        {"batch-shootdown", &cfg->batch_shootdown},
    };

    if (strcmp(name, "batch") == 0) {
        return set_batch(value, &cfg->batch, err);
    }
    for (unsigned i = 0; i < PLX_COUNT(switches); i++) {
        if (strcmp(name, switches[i].name) == 0) {
            return set_switch(name, value, switches[i].out, err);
        }
    }
    return plx_fail(err, PLX_EINVAL, "'%s' is none of tagged, batch, lazy-ad, batch-shootdown",
                    name);
}

int shadow_opt(const char *text, struct shadow_config *cfg, struct plx_err *err)
{
    char copy[TEXT_MAX], *rest = copy, *word;
    int rc = 0;

    if (strlen(text) >= sizeof copy) {
        return plx_fail(err, PLX_EINVAL, "longer than %d characters", TEXT_MAX - 1);
    }
    memcpy(copy, text, strlen(text) + 1);
    while (rc == 0 && (word = strsep(&rest, ",")) != NULL) {
        char *value = strchr(word, '=');
        if (value == NULL) {
            return plx_fail(err, PLX_EINVAL, "'%s' has no value (%s)", word, SHADOW_OPT_VALUES);
        }
        *value++ = '\0';
        rc = set_one(word, value, cfg, err);
    }
    return rc;
}

bool shadow_opt_names_lazy_ad(const char *text)
{
    return strstr(text, "lazy-ad=") != NULL;
}

void shadow_print_counters(const struct shadow_counters *c, FILE *to)
{
    (void)fprintf(to, "shadow:");
#define X(name, text)                                      \
    if (c->name != 0) {                                    \
        (void)fprintf(to, " %s=%" PRIu64, #name, c->name); \
    }
    SHADOW_COUNTERS(X)
#undef X
    (void)fprintf(to, "\n");
}
