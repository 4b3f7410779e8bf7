#define _POSIX_C_SOURCE 200809L
#include "net/allow_list.h"

#include "base/file.h"
#include "base/memory.h"
#include "net/keys.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#define BLANKS " \t"
#define NAME_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
#define MAX_TOKENS 1e15
#define MAX_RATE 1e6

struct word {
    const char *text;
    size_t len;
};

/* The next word of a line; empty at its end. */
static struct word next_word(const char **at, const char *end)
{
    while (*at < end && strchr(BLANKS, **at))
        ++*at;
    struct word w = {*at, 0};
    while (*at < end && !strchr(BLANKS, **at))
        ++*at;
    w.len = (size_t)(*at - w.text);
    return w;
}

/* A number of plain digits, with decimals if `fraction`; NaN for anything else. */
static double number(struct word w, bool fraction)
{
    char text[32];
    if (!w.len || w.len >= sizeof text)
        return NAN;
    memcpy(text, w.text, w.len);
    text[w.len] = '\0';
    size_t whole = strspn(text, "0123456789"), rest = w.len - whole;
    if (fraction && whole && text[whole] == '.' && rest > 1)
        rest = w.len - whole - 1 - strspn(text + whole + 1, "0123456789");
    return whole && !rest ? strtod(text, NULL) : NAN;
}

static bool is_option(struct word w, const char *name, struct word *value)
{
    size_t n = strlen(name);
    if (w.len < n || memcmp(w.text, name, n) != 0)
        return false;
    *value = (struct word){w.text + n, w.len - n};
    return true;
}

/* What is wrong with a word after the name; NULL: nothing. */
static const char *read_option(struct fc_client_identity *client, struct word w)
{
    struct word value;
    if (is_option(w, "tokens-per-day=", &value)) {
        double n = number(value, false);
        if (client->tokens_per_day)
            return "tokens-per-day comes twice";
        if (!(n >= 1 && n <= MAX_TOKENS))
            return "tokens-per-day: expected a whole number from 1";
        client->tokens_per_day = (uint64_t)n;
        return NULL;
    }
    if (is_option(w, "rate=", &value)) {
        double n = number(value, true);
        if (client->rate > 0)
            return "rate comes twice";
        if (!(n > 0 && n <= MAX_RATE))
            return "rate: expected a number above 0, such as 0.5 or 20";
        client->rate = n;
        return NULL;
    }
    return "expected tokens-per-day=N or rate=N after the name";
}

/* What is wrong with a line; NULL: nothing. */
static const char *read_line(struct fc_client_identity *client, const char *at, const char *end)
{
    struct word key = next_word(&at, end), name = next_word(&at, end), w;
    *client = (struct fc_client_identity){0};
    if (!fc_public_key_parse(client->key, key.text, key.len))
        return "expected a public key of 64 hexadecimal digits";
    if (!name.len || name.len >= FC_CLIENT_NAME_SIZE)
        return "expected a name of 1 to 63 bytes after the key";
    memcpy(client->name, name.text, name.len);
    if (strspn(client->name, NAME_BYTES) != name.len)
        return "expected a name of letters, digits, '.', '_' and '-'";
    while ((w = next_word(&at, end)).len) {
        const char *wrong = read_option(client, w);
        if (wrong)
            return wrong;
    }
    return NULL;
}

static const char *check_new(const struct fc_allow_list *list,
                             const struct fc_client_identity *client)
{
    for (size_t i = 0; i < list->n; i++) {
        if (memcmp(list->clients[i].key, client->key, FC_KEY_SIZE) == 0)
            return "this key is there already";
        if (strcmp(list->clients[i].name, client->name) == 0)
            return "this name is there already";
    }
    return NULL;
}

static enum fc_code read_lines(struct fc_allow_list *list, const char *path, const char *text,
                               size_t len, struct fc_error *err)
{
    size_t capacity = 0, line = 0;
    const char *end = text + len;
    for (const char *at = text, *stop; at < end; at = stop + 1) {
        struct fc_client_identity client;
        stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        line++;
        const char *first = at;
        struct word w = next_word(&first, stop);
        if (!w.len || w.text[0] == '#')
            continue;
        const char *wrong = read_line(&client, at, stop);
        if (!wrong)
            wrong = check_new(list, &client);
        if (wrong)
            return fc_fail(err, FC_ERR_INPUT, "%s: line %zu: %s", path, line, wrong);
        void *clients = list->clients;
        enum fc_code code =
            fc_grow(&clients, &capacity, list->n + 1, sizeof *list->clients, "clients", err);
        list->clients = clients;
        if (code != FC_OK)
            return code;
        list->clients[list->n++] = client;
    }
    return FC_OK;
}

enum fc_code fc_allow_list_read(struct fc_allow_list *list, const char *path, struct fc_error *err)
{
    struct stat st;
    struct fc_allow_list fresh = {0};
    char *text = NULL;
    size_t len = 0;
    enum fc_code code = fc_file_read(path, FC_ALLOW_LIST_BYTES, &text, &len, err);
    if (code == FC_OK && (stat(path, &st) != 0 || st.st_mode & 022))
        code = fc_fail(err, FC_ERR_INPUT,
                       "%s: others may write this list of clients: run chmod go-w on it", path);
    if (code == FC_OK)
        code = read_lines(&fresh, path, text, len, err);
    free(text);
    if (code == FC_OK) {
        fc_allow_list_free(list);
        *list = fresh;
    } else {
        fc_allow_list_free(&fresh);
    }
    return code;
}

const struct fc_client_identity *fc_allow_list_find(const struct fc_allow_list *list,
                                                    const unsigned char key[FC_KEY_SIZE])
{
    for (size_t i = 0; i < list->n; i++)
        if (memcmp(list->clients[i].key, key, FC_KEY_SIZE) == 0)
            return &list->clients[i];
    return NULL;
}

void fc_allow_list_free(struct fc_allow_list *list)
{
    free(list->clients);
    *list = (struct fc_allow_list){0};
}
