/* Fuzzes models/safetensors.c: header, shapes, offsets. */
#include "fuzz.h"

#include "models/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_error err = {0};
    struct fc_safetensors *st = NULL;
    enum fc_code code = fc_safetensors_open(&st, fuzz_file(0, data, size), &err);
    FUZZ_CHECK_ERROR(code, err);
    const struct fc_safetensor *tensors;
    size_t n = code == FC_OK ? fc_safetensors_list(st, &tensors) : 0;
    for (size_t i = 0; i < n; i++) {
        fuzz_touch(tensors[i].data, tensors[i].bytes);
        FUZZ_CHECK(fc_safetensors_find(st, tensors[i].name));
    }
    fc_safetensors_close(st);
    return 0;
}
