/* SPDX-License-Identifier: Apache-2.0
 * storage/client_wire.c - what an image client says (proto/image.proto). */
#include <zmq.h>

#include "storage/client_priv.h"

static void send_message(struct image_client *c, Img__ToServer *m)
{
    m->version = CLIENT_PROTOCOL;
    wbuf_clear(&c->out);
    size_t len = img__to_server__get_packed_size(m);
    uint8_t *at = wbuf_grow(&c->out, len);
    if (at != NULL && c->socket != NULL) {
        (void)img__to_server__pack(m, at);
        (void)zmq_send(c->socket, at, len, ZMQ_DONTWAIT);
    }
}

#define SEND_EMPTY(c, field, CASE, INIT)              \
    do {                                              \
        Img__ToServer send_m = IMG__TO_SERVER__INIT;  \
        INIT;                                         \
        send_m.msg_case = IMG__TO_SERVER__MSG_##CASE; \
        send_m.field = &send_part;                    \
        send_message(c, &send_m);                     \
    } while (0)

void client_send_hello(struct image_client *c)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Hello hello = IMG__HELLO__INIT;

    hello.instance = c->instance;
    hello.connection = c->connection;
    m.msg_case = IMG__TO_SERVER__MSG_HELLO;
    m.hello = &hello;
    send_message(c, &m);
}

void client_send_ping(struct image_client *c)
{
    SEND_EMPTY(c, ping, PING, Img__Ping send_part = IMG__PING__INIT);
}

void client_send_bye(struct image_client *c)
{
    SEND_EMPTY(c, bye, BYE, Img__Bye send_part = IMG__BYE__INIT);
}

void client_send_credit(struct image_client *c)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Credit credit = IMG__CREDIT__INIT;

    credit.received = c->received;
    m.msg_case = IMG__TO_SERVER__MSG_CREDIT;
    m.credit = &credit;
    send_message(c, &m);
}

void client_send_open(struct image_client *c, const char *name, const char *tag)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Open open = IMG__OPEN__INIT;

    open.name = (char *)(uintptr_t)name;
    open.tag = (char *)(uintptr_t)tag;
    m.msg_case = IMG__TO_SERVER__MSG_OPEN;
    m.open = &open;
    send_message(c, &m);
}

void client_send_want(struct image_client *c, unsigned urgency, uint8_t *ids, size_t n)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__Want want = IMG__WANT__INIT;

    if (n > 0) {
        want.ids = (ProtobufCBinaryData){.len = n * SHA256_LEN, .data = ids};
        want.urgency = urgency;
        m.msg_case = IMG__TO_SERVER__MSG_WANT;
        m.want = &want;
        send_message(c, &m);
    }
}

void client_send_post(struct image_client *c, Img__Post *post)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;

    m.msg_case = IMG__TO_SERVER__MSG_POST;
    m.post = post;
    send_message(c, &m);
}

void client_send_list(struct image_client *c, const char *pattern, const char *os, const char *app)
{
    Img__ToServer m = IMG__TO_SERVER__INIT;
    Img__List list = IMG__LIST__INIT;

    list.pattern = (char *)(uintptr_t)pattern;
    list.os = (char *)(uintptr_t)os;
    list.app = (char *)(uintptr_t)app;
    m.msg_case = IMG__TO_SERVER__MSG_LIST;
    m.list = &list;
    send_message(c, &m);
}
