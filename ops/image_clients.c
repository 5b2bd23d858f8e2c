/* SPDX-License-Identifier: Apache-2.0
 * ops/image_clients.c - see image_clients.h. */
#include "ops/image_clients.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "storage/server.h"

enum { CLIENTS_FILE_MAX = 1 << 20 };

/* A user for each key and right, so that a change of either is one of the user. */
static void name_user(struct authoriser_key *k, bool push)
{
    char hex[CURVE_KEY_HEX];

    (void)snprintf(k->user, sizeof k->user, "%c%.*s", push ? IMAGE_USER_PUSHES : IMAGE_USER_READS,
                   AUTHORISER_USER - 2, curve_hex(k->key, hex));
}

/* KEY [NAME] [push]; a name is for who reads the file. */
static int parse_line(char *line, const char *path, struct image_clients *out, struct plx_err *err)
{
    enum { KEY, NAME, WORD, FIELDS };
    static const char blanks[] = " \t\r";
    char *field[FIELDS + 1] = {NULL}, *save = NULL;
    struct authoriser_key k = {.key = {0}};
    unsigned i = 0, n = 0;

    for (char *f = strtok_r(line, blanks, &save); f != NULL && n <= FIELDS;
         f = strtok_r(NULL, blanks, &save)) {
        field[n++] = f;
    }
    bool push = n > 1 && strcmp(field[n - 1], "push") == 0;
    if (!curve_from_hex(field[KEY], k.key)) {
        return plx_fail(err, PLX_EINVAL, "%s: '%.20s...' is no public key (64 hex digits)", path,
                        field[KEY]);
    }
    if (n > FIELDS || (n == FIELDS && !push)) {
        return plx_fail(err, PLX_EINVAL,
                        "%s: after key and name only 'push' may stand, not '%.20s'", path,
                        field[n > FIELDS ? FIELDS : WORD]);
    }
    while (i < out->n && memcmp(out->keys[i].key, k.key, sizeof k.key) != 0) {
        i++;
    }
    if (i == AUTHORISER_KEYS) {
        return plx_fail(err, PLX_ERANGE, "%s names more than %d keys", path, AUTHORISER_KEYS);
    }
    name_user(&k, push);
    out->keys[i] = k;
    out->n += i == out->n;
    return 0;
}

int image_clients_parse(char *text, const char *path, struct image_clients *out,
                        struct plx_err *err)
{
    char *save = NULL;
    int rc = 0;

    *out = (struct image_clients){.n = 0};
    for (char *line = strtok_r(text, "\n", &save); line != NULL && rc == 0;
         line = strtok_r(NULL, "\n", &save)) {
        line += strspn(line, " \t\r");
        if (*line != '#' && *line != '\0') {
            rc = parse_line(line, path, out, err);
        }
    }
    for (unsigned i = 0; i < out->n; i++) {
        out->pushes = out->pushes || out->keys[i].user[0] == IMAGE_USER_PUSHES;
    }
    return rc;
}

/* Reading it again would not say anything else until the file is changed. */
static bool of_the_file(int rc)
{
    return rc == 0 || rc == PLX_EINVAL || rc == PLX_ERANGE || rc == PLX_EACCES;
}

int image_clients_read(const char *path, struct image_clients *out, struct stat *seen,
                       struct plx_err *err)
{
    struct stat before;
    struct wbuf text;

    /* Before it is read: a change while it is read is another one to see. */
    if (stat(path, &before) != 0) {
        return plx_fail_errno(err, "clients: cannot open %s", path);
    }
    int rc = io_read_file(path, CLIENTS_FILE_MAX, &text, err);
    if (rc != 0) {
        (void)plx_err_wrap(err, rc, "clients");
    } else {
        wbuf_u8(&text, 0);
        rc = text.failed ? plx_fail(err, PLX_ENOMEM, "clients: out of memory")
                         : image_clients_parse((char *)text.data, path, out, err);
        wbuf_free(&text);
    }
    if (of_the_file(rc)) {
        *seen = before;
    }
    return rc;
}
