/* SPDX-License-Identifier: Apache-2.0
 * ops/json.h - JSON written as it goes (RFC 8259). One thread; the FILE is borrowed. */
#ifndef OPS_JSON_H
#define OPS_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
    FILE *to;
    unsigned depth;
    bool first; /* nothing was written yet in the innermost object or array */
};

void json_begin(struct json *j, FILE *to); /* opens the outermost object */
void json_end(struct json *j);             /* closes it, and the line */
/* @key is NULL inside an array. */
void json_object(struct json *j, const char *key);
void json_array(struct json *j, const char *key);
void json_close(struct json *j, char bracket); /* '}' or ']' */
void json_string(struct json *j, const char *key, const char *value);
void json_u64(struct json *j, const char *key, uint64_t value);
void json_bool(struct json *j, const char *key, bool value);

#endif
