/* SPDX-License-Identifier: Apache-2.0
 * vmm/dev/section.h - the checks that every device's load begins and ends with, and checked reads
 * of single fields. @what names device and field in the message. */
#ifndef VMM_DEV_SECTION_H
#define VMM_DEV_SECTION_H

#include <inttypes.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

/* Bound of virtual times in sections (146 years): sums of them cannot wrap. */
#define SECTION_TIME_MAX (UINT64_C(1) << 62)

static inline int section_version(const char *what, uint32_t version, uint32_t known,
                                  struct plx_err *err)
{
    return version == known ? 0
                            : plx_fail(err, PLX_EVERSION,
                                       "%s: section version %" PRIu32 ", this build reads %" PRIu32,
                                       what, version, known);
}

/* After the last field was read. */
static inline int section_complete(const char *what, const struct rbuf *in, struct plx_err *err)
{
    return in->failed ? plx_fail(err, PLX_ETRUNCATED, "%s: section too short", what) : 0;
}

/* A field holds @value: refused unless @ok. */
static inline int section_field(const char *what, bool ok, uint64_t value, struct plx_err *err)
{
    return ok ? 0 : plx_fail(err, PLX_ECORRUPT, "%s cannot be 0x%" PRIx64, what, value);
}

#endif
