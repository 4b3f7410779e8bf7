/* Safetensors: reading, shards, and files that lie. */
#define _GNU_SOURCE
#include "tests/models/files.h"

#include "models/safetensors.h"

/* A file from its JSON header and n bytes of data 0, 1, 2, ... */
static const char *write_file(const char *name, const char *header, size_t n)
{
    struct fc_text bytes = {0};
    add_u64(&bytes, strlen(header));
    fc_text_puts(&bytes, header);
    for (size_t i = 0; i < n; i++) {
        char byte = (char)i;
        fc_text_add(&bytes, &byte, 1);
    }
    const char *path = put_file(name, bytes.data, bytes.len);
    fc_text_free(&bytes);
    return path;
}

static void reads(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_safetensors *st;
    const char *path =
        write_file("good.safetensors",
                   "{\"__metadata__\":{\"format\":\"pt\"},"
                   "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                   "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                   "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[8,8]},"
                   "\"scalar\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[20,28]}}   ",
                   28);
    if (fc_safetensors_open(&st, path, &err) != FC_OK)
        fail_msg("%s", err.text);
    const struct fc_safetensor *all;
    assert_int_equal(fc_safetensors_list(st, &all), 4);
    assert_string_equal(all[0].name, "a"); /* sorted */
    const struct fc_safetensor *t = fc_safetensors_find(st, "b");
    assert_true(t && t->n_dims == 2 && t->dims[0] == 2 && t->dims[1] == 3 && t->dims[2] == 1);
    assert_string_equal(t->dtype, "BF16");
    assert_int_equal(t->bytes, 12);
    for (size_t i = 0; i < 12; i++)
        assert_int_equal(t->data[i], 8 + i);
    t = fc_safetensors_find(st, "scalar");
    assert_true(t && t->n_dims == 0 && t->bytes == 8 && t->data[0] == 20);
    assert_null(fc_safetensors_find(st, "c"));
    assert_null(fc_safetensors_find(st, "__metadata__"));
    fc_safetensors_close(st);
    assert_int_equal(fc_safetensors_open(&st, write_file("none.safetensors", "{}", 0), &err),
                     FC_OK);
    assert_int_equal(fc_safetensors_list(st, &all), 0);
    assert_null(fc_safetensors_find(st, "a"));
    fc_safetensors_close(st);
    fc_safetensors_close(NULL);
}

#define TENSOR(name, dtype, shape, offsets)                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void lies(void **state)
{
    (void)state;
    const struct {
        const char *header;
        size_t bytes;
        enum fc_code code;
        const char *words;
    } cases[] = {
        {"[]", 0, FC_ERR_INPUT, "not a JSON object"},
        {"{", 0, FC_ERR_INPUT, "not valid JSON"},
        {"{} {}", 0, FC_ERR_INPUT, "after the JSON value"},
        {"{\"t\":3}", 0, FC_ERR_INPUT, "\"t\": expected an object"},
        {"{\"t\":{}}", 0, FC_ERR_INPUT, "\"dtype\" is missing"},
        {"{\"t\":{\"dtype\":5}}", 0, FC_ERR_INPUT, "\"dtype\": expected a string"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,4]}}", 4, FC_ERR_INPUT,
         "shape: expected an array"},
        {"{" TENSOR("t", "F32", "[-1]", "[0,4]") "}", 4, FC_ERR_INPUT, "shape: expected at most"},
        {"{" TENSOR("t", "F32", "[1.5]", "[0,4]") "}", 4, FC_ERR_INPUT, "shape: expected at most"},
        {"{" TENSOR("t", "F32", "[1e300]", "[0,4]") "}", 4, FC_ERR_INPUT, "shape: expected"},
        {"{" TENSOR("t", "F32", "[\"1\"]", "[0,4]") "}", 4, FC_ERR_INPUT, "shape: expected"},
        {"{" TENSOR("t", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, FC_ERR_INPUT,
         "at most 8 whole numbers"},
        {"{" TENSOR("t", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0, FC_ERR_INPUT,
         "shape is too large"},
        {"{" TENSOR("t", "F32", "[2]", "[0,4]") "}", 4, FC_ERR_INPUT,
         "need 8 bytes, data_offsets give 4"},
        {"{" TENSOR("t", "F33", "[1]", "[0,4]") "}", 4, FC_ERR_UNSUPPORTED, "unknown dtype"},
        {"{" TENSOR("t", "F32", "[1]", "[0]") "}", 4, FC_ERR_INPUT, "do not lie within"},
        {"{" TENSOR("t", "F32", "[1]", "[4,0]") "}", 4, FC_ERR_INPUT, "do not lie within"},
        {"{" TENSOR("t", "F32", "[1]", "[0,4,8]") "}", 8, FC_ERR_INPUT, "data_offsets: expected"},
        {"{" TENSOR("t", "F32", "[1]", "[4,8]") "}", 4, FC_ERR_INPUT, "do not lie within the 4"},
        {"{" TENSOR("t", "F32", "[1]", "[9007199254740992,9007199254740992]") "}", 4, FC_ERR_INPUT,
         "do not lie within"},
        {"{" TENSOR("t", "F32", "[1]", "[4,8]") "}", 8, FC_ERR_INPUT, "after a gap"},
        {"{" TENSOR("t", "F32", "[1]", "[0,4]") "}", 8, FC_ERR_INPUT, "8 bytes of data"},
        {"{" TENSOR("t", "F32", "[2]", "[0,8]") "," TENSOR("u", "F32", "[1]", "[4,8]") "}", 8,
         FC_ERR_INPUT, "overlaps"},
        {"{" TENSOR("t", "F32", "[1]", "[0,4]") "," TENSOR("t", "F32", "[1]", "[4,8]") "}", 8,
         FC_ERR_INPUT, "\"t\" is there twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fc_error err = {0};
        struct fc_safetensors *st = NULL;
        enum fc_code code = fc_safetensors_open(
            &st, write_file("bad.safetensors", cases[i].header, cases[i].bytes), &err);
        assert_null(st);
        assert_refused(code, &err, cases[i].code, cases[i].words);
    }
}

static void false_lengths(void **state)
{
    (void)state;
    const uint64_t lengths[] = {3,          1000,          (uint64_t)200 << 20, (uint64_t)1 << 63,
                                UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct fc_error err = {0};
        struct fc_text bytes = {0};
        struct fc_safetensors *st;
        add_u64(&bytes, lengths[i]);
        fc_text_puts(&bytes, "{}");
        assert_refused(
            fc_safetensors_open(&st, put_file("len.safetensors", bytes.data, bytes.len), &err),
            &err, FC_ERR_INPUT, "the header claims");
        fc_text_free(&bytes);
    }
}

/* Nesting far beyond what a recursive parser could follow. */
static void deep_json(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_safetensors *st;
    size_t depth = 200000;
    char *header = fc_alloc(depth + 1, 1, "header", &err);
    memset(header, '[', depth);
    assert_refused(fc_safetensors_open(&st, write_file("deep.safetensors", header, 0), &err), &err,
                   FC_ERR_INPUT, "not valid JSON");
    free(header);
}

/* ---- shards ---------------------------------------------------------------------------------- */

static enum fc_code open_shards(const char *index, struct fc_safetensors **st, struct fc_error *err)
{
    write_file("one.safetensors", "{" TENSOR("a", "F32", "[1]", "[0,4]") "}", 4);
    write_file("two.safetensors", "{" TENSOR("b", "F32", "[2]", "[0,8]") "}", 8);
    put_file("model.safetensors.index.json", index, strlen(index));
    *st = NULL;
    return fc_safetensors_open_folder(st, test_folder, err);
}

static void shards(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_safetensors *st;
    const struct fc_safetensor *all;
    if (open_shards("{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"one.safetensors\","
                    "\"b\":\"two.safetensors\"}}",
                    &st, &err) != FC_OK)
        fail_msg("%s", err.text);
    assert_int_equal(fc_safetensors_list(st, &all), 2);
    assert_int_equal(fc_safetensors_find(st, "b")->bytes, 8);
    fc_safetensors_close(st);
}

static void false_indexes(void **state)
{
    (void)state;
    const struct {
        const char *index;
        enum fc_code code;
        const char *words;
    } cases[] = {
        {"{}", FC_ERR_INPUT, "\"weight_map\": expected an object"},
        {"{\"weight_map\":{}}", FC_ERR_INPUT, "expected 1 to"},
        {"{\"weight_map\":{\"a\":7}}", FC_ERR_INPUT, "name of a file in this folder"},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", FC_ERR_INPUT, "in this folder"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", FC_ERR_INPUT, "in this folder"},
        {"{\"weight_map\":{\"a\":\"..\"}}", FC_ERR_INPUT, "in this folder"},
        {"{\"weight_map\":{\"a\":\"three.safetensors\"}}", FC_ERR_IO, "three.safetensors"},
        {"{\"weight_map\":{\"c\":\"one.safetensors\"}}", FC_ERR_INPUT, "\"c\" is missing from"},
        {"{\"weight_map\":", FC_ERR_INPUT, "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fc_error err = {0};
        struct fc_safetensors *st;
        enum fc_code code = open_shards(cases[i].index, &st, &err);
        assert_null(st);
        assert_refused(code, &err, cases[i].code, cases[i].words);
    }
    struct fc_error err = {0};
    struct fc_safetensors *st;
    unlink(test_path("model.safetensors.index.json"));
    assert_refused(fc_safetensors_open_folder(&st, test_folder, &err), &err, FC_ERR_INPUT,
                   "found neither");
}

/* ---- damage ---------------------------------------------------------------------------------- */

static const char damaged_header[] = "{\"__metadata__\":{\"format\":\"pt\"}," TENSOR(
    "w.weight", "F32", "[2,3]", "[0,24]") "," TENSOR("w.bias", "BF16", "[3]", "[24,30]") "}";

static void truncated_everywhere(void **state)
{
    (void)state;
    char *data;
    size_t len;
    assert_int_equal(fc_file_read(write_file("whole", damaged_header, 30), 4096, &data, &len, NULL),
                     FC_OK);
    for (size_t cut = 0; cut <= len; cut++) {
        struct fc_error err = {0};
        struct fc_safetensors *st = NULL;
        enum fc_code code = fc_safetensors_open(&st, put_file("cut.safetensors", data, cut), &err);
        assert_refused_or_fine(code, &err);
        assert_int_equal(code, cut < len ? FC_ERR_INPUT : FC_OK);
        fc_safetensors_close(st);
    }
    free(data);
}

static void flipped_bytes(void **state)
{
    (void)state;
    char *data;
    size_t len, opened = 0;
    uint64_t random = 77;
    assert_int_equal(fc_file_read(write_file("whole", damaged_header, 30), 4096, &data, &len, NULL),
                     FC_OK);
    for (size_t round = 0; round < 3000; round++) {
        char copy[512];
        assert_true(len <= sizeof copy);
        memcpy(copy, data, len);
        copy[next_random(&random) % len] = (char)next_random(&random);
        if (round % 2) /* digits become other digits: JSON that is well formed, and false */
            for (size_t i = 8; i < len; i++)
                if (copy[i] >= '0' && copy[i] <= '9' && next_random(&random) % 8 == 0)
                    copy[i] = (char)('0' + next_random(&random) % 10);
        struct fc_error err = {0};
        struct fc_safetensors *st = NULL;
        const struct fc_safetensor *all;
        assert_refused_or_fine(fc_safetensors_open(&st, put_file("flip", copy, len), &err), &err);
        volatile size_t sum = 0;
        for (size_t i = st ? fc_safetensors_list(st, &all) : 0; i-- > 0;)
            for (size_t k = 0; k < all[i].bytes; k++)
                sum += all[i].data[k];
        opened += st != NULL;
        fc_safetensors_close(st);
    }
    assert_true(opened > 100 && opened < 3000);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads),
        cmocka_unit_test(lies),
        cmocka_unit_test(false_lengths),
        cmocka_unit_test(deep_json),
        cmocka_unit_test(shards),
        cmocka_unit_test(false_indexes),
        cmocka_unit_test(truncated_everywhere),
        cmocka_unit_test(flipped_bytes),
    };
    limit_memory();
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
