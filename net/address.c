#define _POSIX_C_SOURCE 200809L
#include "net/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static enum fc_code parse_port(const char *text, unsigned *port, struct fc_error *err)
{
    unsigned value = 0;
    size_t digits = strspn(text, "0123456789");
    if (digits >= 1 && digits <= 5 && text[digits] == '\0')
        sscanf(text, "%5u", &value);
    if (value < 1 || value > 65535)
        return fc_fail(err, FC_ERR_USAGE,
                       "address: port \"%.20s\", expected 1 to 65535 (0, a free port of the "
                       "system's choice, is not supported: name one)",
                       text);
    *port = value;
    return FC_OK;
}

#define HOST_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"

/* Whether a host is written as one; *loopback whether it is this machine whatever happens. */
static bool read_host(const char *host, bool *ipv6, bool *loopback)
{
    struct in_addr v4;
    struct in6_addr v6;
    size_t n = strlen(host);
    *ipv6 = n > 2 && host[0] == '[' && host[n - 1] == ']';
    if (*ipv6) {
        char inner[64];
        memcpy(inner, host + 1, n - 2);
        inner[n - 2] = '\0';
        bool good = inet_pton(AF_INET6, inner, &v6) == 1;
        *loopback = good && memcmp(&v6, &in6addr_loopback, sizeof v6) == 0;
        return good;
    }
    bool numeric = inet_pton(AF_INET, host, &v4) == 1;
    *loopback = numeric && ntohl(v4.s_addr) >> 24 == 127;
    return numeric || strcmp(host, "*") == 0 || strspn(host, HOST_BYTES) == n;
}

static enum fc_code parse_tcp(struct fc_address *address, const char *text, bool encrypted,
                              struct fc_error *err)
{
    char host[64];
    unsigned port = 0;
    bool loopback = false;
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || (size_t)(colon - text) >= sizeof host)
        return fc_fail(err, FC_ERR_USAGE, "address tcp://%.60s: expected tcp://HOST:PORT", text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    enum fc_code code = parse_port(colon + 1, &port, err);
    if (code != FC_OK)
        return code;
    if (strcmp(host, "localhost") == 0)
        strcpy(host, "127.0.0.1");
    bool good = read_host(host, &address->ipv6, &loopback);
    if (encrypted && !good)
        return fc_fail(err, FC_ERR_USAGE, "address tcp://%.60s: expected tcp://HOST:PORT", text);
    if (!encrypted && !loopback)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "address tcp://%.60s: only loopback (127.0.0.0/8, [::1], localhost) is "
                       "allowed, because the connection is not encrypted; give both ends keys "
                       "(--key; see fedcot help keygen), or forward a port with ssh -L "
                       "%u:127.0.0.1:%u HOST and use tcp://127.0.0.1:%u",
                       text, port, port, port);
    snprintf(address->text, sizeof address->text, "tcp://%s:%u", host, port);
    return FC_OK;
}

enum fc_code fc_address_parse(struct fc_address *address, const char *text, bool encrypted,
                              struct fc_error *err)
{
    *address = (struct fc_address){0};
    if (strncmp(text, "tcp://", 6) == 0)
        return parse_tcp(address, text + 6, encrypted, err);
    bool local = (strncmp(text, "ipc://", 6) == 0 && text[6] != '\0') ||
                 (strncmp(text, "inproc://", 9) == 0 && text[9] != '\0');
    if (!local || strlen(text) >= sizeof address->text)
        return fc_fail(err, FC_ERR_USAGE,
                       "address \"%.60s\": expected tcp://127.0.0.1:PORT or ipc://PATH, at most %d "
                       "bytes",
                       text, FC_ADDRESS_SIZE - 1);
    strcpy(address->text, text);
    return FC_OK;
}
