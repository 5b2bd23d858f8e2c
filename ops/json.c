/* SPDX-License-Identifier: Apache-2.0
 * ops/json.c - see json.h. */
#include "ops/json.h"

#include <inttypes.h>
#include <stddef.h>

static void put_text(struct json *j, const char *s)
{
    (void)fputc('"', j->to);
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            (void)fprintf(j->to, "\\%c", c);
        } else if (c < 0x20) {
            (void)fprintf(j->to, "\\u%04x", c);
        } else {
            (void)fputc(c, j->to);
        }
    }
    (void)fputc('"', j->to);
}

static void put_key(struct json *j, const char *key)
{
    if (!j->first) {
        (void)fputc(',', j->to);
    }
    (void)fprintf(j->to, "\n%*s", (int)(2 * j->depth), "");
    j->first = false;
    if (key != NULL) {
        put_text(j, key);
        (void)fputs(": ", j->to);
    }
}

static void enter(struct json *j, const char *key, char bracket)
{
    put_key(j, key);
    (void)fputc(bracket, j->to);
    j->depth++;
    j->first = true;
}

void json_begin(struct json *j, FILE *to)
{
    *j = (struct json){.to = to, .depth = 1, .first = true};
    (void)fputc('{', to);
}

void json_end(struct json *j)
{
    (void)fputs("\n}\n", j->to);
}

void json_object(struct json *j, const char *key)
{
    enter(j, key, '{');
}

void json_array(struct json *j, const char *key)
{
    enter(j, key, '[');
}

void json_close(struct json *j, char bracket)
{
    j->depth--;
    if (!j->first) {
        (void)fprintf(j->to, "\n%*s", (int)(2 * j->depth), "");
    }
    (void)fputc(bracket, j->to);
    j->first = false;
}

void json_string(struct json *j, const char *key, const char *value)
{
    put_key(j, key);
    put_text(j, value);
}

void json_u64(struct json *j, const char *key, uint64_t value)
{
    put_key(j, key);
    (void)fprintf(j->to, "%" PRIu64, value);
}

void json_bool(struct json *j, const char *key, bool value)
{
    put_key(j, key);
    (void)fputs(value ? "true" : "false", j->to);
}
