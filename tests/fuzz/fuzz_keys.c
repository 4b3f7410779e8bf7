/* Fuzzes the files that say who is who: secret and public keys, and the server's list of clients
 * (net/keys.c, allow_list.c). */
#define _POSIX_C_SOURCE 200809L
#include "fuzz.h"

#include "net/allow_list.h"
#include "net/keys.h"

#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_put("file", data, size);
    FUZZ_CHECK(chmod(path, 0600) == 0);

    struct fc_error err = {0};
    struct fc_key_pair *pair = NULL;
    enum fc_code code = fc_key_pair_read(&pair, path, &err);
    FUZZ_CHECK_ERROR(code, err);
    fc_key_pair_free(pair);

    struct fc_error err2 = {0};
    unsigned char key[FC_KEY_SIZE];
    code = fc_public_key_read(key, path, &err2);
    FUZZ_CHECK_ERROR(code, err2);

    struct fc_error err3 = {0};
    struct fc_allow_list list = {0};
    code = fc_allow_list_read(&list, path, &err3);
    FUZZ_CHECK_ERROR(code, err3);
    for (size_t i = 0; i < list.n; i++)
        FUZZ_CHECK(fc_allow_list_find(&list, list.clients[i].key) == &list.clients[i]);
    fc_allow_list_free(&list);
    return 0;
}
