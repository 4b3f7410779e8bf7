/* Fuzzes the client's ledger (privacy/ledger_file.c, ledger_records.c, ledger.c). An input that
 * begins with '+' is a list of records without hashes: they are sealed here with the key, or
 * nothing behind the chain of hashes would ever be reached. */
#include "fuzz.h"

#include "base/memory.h"
#include "privacy/ledger.h"

#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

static unsigned char key[32];

static void seal_line(struct fc_text *out, unsigned char hash[32], const char *line, size_t len)
{
    char hex[65];
    crypto_generichash_state state;
    crypto_generichash_init(&state, key, sizeof key, 32);
    crypto_generichash_update(&state, hash, 32);
    crypto_generichash_update(&state, (const unsigned char *)line, len);
    crypto_generichash_final(&state, hash, 32);
    fc_text_puts(out, sodium_bin2hex(hex, sizeof hex, hash, 32));
    fc_text_puts(out, " ");
    fc_text_add(out, line, len);
    fc_text_puts(out, "\n");
}

static const char *put_sealed(const char *data, size_t size)
{
    unsigned char hash[32] = {0};
    struct fc_text out = {0};
    for (const char *end = data + size; data < end;) {
        const char *stop = memchr(data, '\n', (size_t)(end - data));
        size_t len = (size_t)((stop ? stop : end) - data);
        seal_line(&out, hash, data, len);
        data += len + 1;
    }
    const char *path = fuzz_put("ledger", out.data ? out.data : "", out.len);
    fc_text_free(&out);
    return path;
}

static void use(struct fc_ledger *l)
{
    struct fc_ledger_facts facts;
    struct fc_spent spent;
    fc_ledger_facts(l, &facts);
    fc_ledger_spent(l, &spent);
    FUZZ_CHECK(facts.documents == fc_ledger_entries(l));
    for (size_t i = 0; i < facts.n_mechanisms; i++) {
        struct fc_ledger_share share;
        fc_ledger_share(l, i, &share);
        FUZZ_CHECK(share.documents <= facts.documents);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[512];
    struct fc_error err = {0};
    struct fc_ledger *l = NULL;
    FUZZ_CHECK(sodium_init() >= 0);
    FUZZ_CHECK(chmod(fuzz_put("ledger.key", key, sizeof key), 0600) == 0);
    bool sealed = size > 0 && data[0] == '+';
    snprintf(path, sizeof path, "%s",
             sealed ? put_sealed((const char *)data + 1, size - 1)
                    : fuzz_put("ledger", data, size));
    enum fc_code code = fc_ledger_look(&l, path, &err);
    FUZZ_CHECK_ERROR(code, err);
    if (code == FC_OK)
        use(l);
    fc_ledger_close(l);
    return 0;
}
