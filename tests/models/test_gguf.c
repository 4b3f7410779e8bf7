/* GGUF: metadata of every type, tensors, and files that lie. */
#define _GNU_SOURCE
#include "tests/models/files.h"

#include "models/gguf.h"
#include "models/model_file.h"

#include <math.h>

static struct fc_gguf *open_bytes(const struct fc_text *bytes, struct fc_error *err,
                                  enum fc_code *code)
{
    struct fc_gguf *g = NULL;
    *code = fc_gguf_open(&g, put_file("file.gguf", bytes->data, bytes->len), err);
    assert_true((*code == FC_OK) == (g != NULL));
    return g;
}

static struct fc_gguf *open_writer(const struct gguf_writer *w)
{
    struct fc_error err = {0};
    struct fc_text bytes = {0};
    enum fc_code code;
    gguf_join(w, &bytes);
    struct fc_gguf *g = open_bytes(&bytes, &err, &code);
    if (!g)
        fail_msg("%s", err.text);
    fc_text_free(&bytes);
    return g;
}

/* ---- metadata -------------------------------------------------------------------------------- */

static void add_scalars(struct gguf_writer *w)
{
    const struct {
        const char *key;
        uint32_t type;
        uint64_t bits;
        size_t bytes;
    } values[] = {{"u8", G_U8, 200, 1},
                  {"i8", G_I8, 0x80, 1},
                  {"u16", G_U16, 65535, 2},
                  {"i16", G_I16, 0xffff, 2},
                  {"u32", G_U32, 4294967295u, 4},
                  {"i32", G_I32, 0xfffffffe, 4},
                  {"u64", G_U64, (uint64_t)1 << 40, 8},
                  {"huge", G_U64, (uint64_t)1 << 63, 8},
                  {"i64", G_I64, (uint64_t)-5, 8},
                  {"true", G_BOOL, 1, 1},
                  {"false", G_BOOL, 0, 1}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        gguf_key(w, values[i].key, values[i].type);
        add_bytes(&w->values, &values[i].bits, values[i].bytes);
    }
    double pi = 3.141592653589793;
    gguf_f32(w, "f32", 0.5f);
    gguf_f32(w, "infinite", INFINITY);
    gguf_key(w, "f64", G_F64);
    add_bytes(&w->values, &pi, 8);
    gguf_string(w, "text", "na\303\257ve");
    gguf_string(w, "empty", "");
}

static void scalars(void **state)
{
    (void)state;
    struct gguf_writer w = {0};
    add_scalars(&w);
    struct fc_gguf *g = open_writer(&w);
    const struct {
        const char *key;
        int64_t value;
    } integers[] = {{"u8", 200},         {"i8", -128}, {"u16", 65535},         {"i16", -1},
                    {"u32", 4294967295}, {"i32", -2},  {"u64", 1099511627776}, {"i64", -5}};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        struct fc_error err = {0};
        int64_t v = 77;
        size_t size = 77;
        double d = 77;
        assert_int_equal(fc_gguf_int(g, integers[i].key, true, &v, &err), FC_OK);
        assert_true(v == integers[i].value);
        assert_int_equal(fc_gguf_double(g, integers[i].key, true, &d, &err), FC_OK);
        assert_true(d == (double)integers[i].value);
        enum fc_code code = fc_gguf_size(g, integers[i].key, true, &size, &err);
        assert_int_equal(code, v < 0 ? FC_ERR_INPUT : FC_OK);
        assert_true(size == (v < 0 ? 77 : (size_t)v));
    }
    struct fc_error err = {0};
    double d = 0;
    bool b = false;
    struct fc_gguf_string s = {0};
    assert_int_equal(fc_gguf_double(g, "f32", true, &d, &err), FC_OK);
    assert_true(d == 0.5);
    assert_int_equal(fc_gguf_double(g, "f64", true, &d, &err), FC_OK);
    assert_true(d == 3.141592653589793);
    assert_int_equal(fc_gguf_bool(g, "true", true, &b, &err), FC_OK);
    assert_true(b);
    assert_int_equal(fc_gguf_bool(g, "false", true, &b, &err), FC_OK);
    assert_false(b);
    assert_int_equal(fc_gguf_text(g, "text", true, &s, &err), FC_OK);
    assert_true(fc_gguf_string_is(s, "na\303\257ve"));
    assert_false(fc_gguf_string_is(s, "na"));
    assert_int_equal(fc_gguf_text(g, "empty", true, &s, &err), FC_OK);
    assert_int_equal(s.len, 0);
    fc_gguf_close(g);
    gguf_free(&w);
}

static void wrong_types(void **state)
{
    (void)state;
    struct gguf_writer w = {0};
    add_scalars(&w);
    struct fc_gguf *g = open_writer(&w);
    int64_t v = 77, *list = NULL;
    size_t n = 77;
    double d = 77;
    bool b = true;
    struct fc_gguf_string s = {0};
#define REFUSED(call, words)                                                                       \
    do {                                                                                           \
        struct fc_error err = {0};                                                                 \
        enum fc_code code = call;                                                                  \
        assert_refused(code, &err, FC_ERR_INPUT, words);                                           \
    } while (0)
    REFUSED(fc_gguf_int(g, "huge", true, &v, &err), "\"huge\": expected an integer below 2^63");
    REFUSED(fc_gguf_int(g, "f32", true, &v, &err), "found float32");
    REFUSED(fc_gguf_int(g, "true", true, &v, &err), "found bool");
    REFUSED(fc_gguf_int(g, "text", true, &v, &err), "found string");
    REFUSED(fc_gguf_double(g, "text", true, &d, &err), "found string");
    REFUSED(fc_gguf_double(g, "infinite", true, &d, &err), "finite");
    REFUSED(fc_gguf_bool(g, "u8", true, &b, &err), "expected a bool, found uint8");
    REFUSED(fc_gguf_text(g, "u8", true, &s, &err), "expected a string, found uint8");
    REFUSED(fc_gguf_ints(g, "u8", true, &list, &n, &err), "found one uint8");
    REFUSED(fc_gguf_size(g, "nothing", true, &n, &err), "\"nothing\" is missing");
    struct fc_error err = {0};
    assert_int_equal(fc_gguf_size(g, "nothing", false, &n, &err), FC_OK);
    assert_int_equal(n, 77);
    assert_false(fc_gguf_has(g, "nothing"));
    assert_true(fc_gguf_has(g, "u8"));
    assert_true(v == 77 && d == 77 && b && !list);
    fc_gguf_close(g);
    gguf_free(&w);
}

static void arrays(void **state)
{
    (void)state;
    struct gguf_writer w = {0};
    const float floats[] = {0.25f, -1e30f};
    const int16_t shorts[] = {-3, 7, 32767};
    gguf_key(&w, "texts", G_ARRAY);
    add_u32(&w.values, G_STRING);
    add_u64(&w.values, 3);
    add_string(&w.values, "a");
    add_string(&w.values, "");
    add_string(&w.values, "long one");
    gguf_key(&w, "ints", G_ARRAY);
    add_u32(&w.values, G_I16);
    add_u64(&w.values, 3);
    add_bytes(&w.values, shorts, sizeof shorts);
    gguf_key(&w, "floats", G_ARRAY);
    add_u32(&w.values, G_F32);
    add_u64(&w.values, 2);
    add_bytes(&w.values, floats, sizeof floats);
    gguf_key(&w, "none", G_ARRAY);
    add_u32(&w.values, G_STRING);
    add_u64(&w.values, 0);
    struct fc_gguf *g = open_writer(&w);
    struct fc_error err = {0};
    struct fc_gguf_string *texts = NULL;
    int64_t *ints = NULL;
    float *reals = NULL;
    size_t n = 0;
    assert_int_equal(fc_gguf_texts(g, "texts", true, &texts, &n, &err), FC_OK);
    assert_int_equal(n, 3);
    assert_true(fc_gguf_string_is(texts[0], "a") && fc_gguf_string_is(texts[1], "") &&
                fc_gguf_string_is(texts[2], "long one"));
    free(texts);
    assert_int_equal(fc_gguf_ints(g, "ints", true, &ints, &n, &err), FC_OK);
    assert_int_equal(n, 3);
    assert_true(ints[0] == -3 && ints[1] == 7 && ints[2] == 32767);
    free(ints);
    assert_int_equal(fc_gguf_floats(g, "floats", true, &reals, &n, &err), FC_OK);
    assert_int_equal(n, 2);
    assert_memory_equal(reals, floats, sizeof floats);
    free(reals);
    assert_int_equal(fc_gguf_texts(g, "none", true, &texts, &n, &err), FC_OK);
    assert_int_equal(n, 0);
    free(texts);
    assert_refused(fc_gguf_ints(g, "texts", true, &ints, &n, &err), &err, FC_ERR_INPUT,
                   "found an array of string");
    fc_gguf_close(g);
    gguf_free(&w);
}

/* ---- tensors --------------------------------------------------------------------------------- */

static void tensors(void **state)
{
    (void)state;
    struct gguf_writer w = {0};
    const uint64_t dims[] = {4, 3, 2};
    gguf_matrix(&w, "matrix", 2, 3, 1);
    gguf_matrix(&w, "vector", 0, 5, 2);
    gguf_describe(&w, "odd", 3, dims, 1000, w.data.len); /* a type of the future */
    struct fc_gguf *g = open_writer(&w);
    const struct fc_gguf_tensor *all, *t = fc_gguf_tensor(g, "matrix");
    assert_int_equal(fc_gguf_tensors(g, &all), 3);
    assert_non_null(t);
    assert_int_equal(t->n_dims, 2);
    assert_true(t->dims[0] == 3 && t->dims[1] == 2 && t->dims[2] == 1 && t->bytes == 24);
    assert_memory_equal(t->data, w.data.data, 24);
    t = fc_gguf_tensor(g, "vector");
    assert_true(t && t->n_dims == 1 && t->dims[0] == 5 && t->bytes == 20);
    assert_memory_equal(t->data, w.data.data + 32, 20);
    t = fc_gguf_tensor(g, "odd");
    assert_true(t && t->type == 1000 && t->bytes == 0);
    assert_null(fc_gguf_tensor(g, "matri"));
    assert_null(fc_gguf_tensor(g, "matrix2"));
    fc_gguf_close(g);
    gguf_free(&w);
}

/* ---- lies ------------------------------------------------------------------------------------ */

static void refuse_writer(struct gguf_writer *w, enum fc_code expected, const char *words)
{
    struct fc_error err = {0};
    struct fc_text bytes = {0};
    enum fc_code code;
    gguf_join(w, &bytes);
    fc_gguf_close(open_bytes(&bytes, &err, &code));
    assert_refused(code, &err, expected, words);
    fc_text_free(&bytes);
    gguf_free(w);
}

static void false_headers(void **state)
{
    (void)state;
    struct gguf_writer w = {.version = 1};
    refuse_writer(&w, FC_ERR_UNSUPPORTED, "version 1");
    w.version = 0x03000000;
    refuse_writer(&w, FC_ERR_UNSUPPORTED, "big-endian");
    w.n_values = (uint64_t)1 << 63;
    refuse_writer(&w, FC_ERR_INPUT, "claims 9223372036854775808 metadata values");
    w.n_tensors = UINT64_MAX;
    refuse_writer(&w, FC_ERR_INPUT, "claims 18446744073709551615 tensors");
    struct fc_text bytes = {0};
    struct fc_error err = {0};
    enum fc_code code;
    fc_text_puts(&bytes, "GGML\3\0\0\0");
    open_bytes(&bytes, &err, &code);
    assert_refused(code, &err, FC_ERR_INPUT, "magic");
    fc_text_free(&bytes);
}

static void false_metadata(void **state)
{
    (void)state;
    struct gguf_writer w = {0};
    gguf_key(&w, "k", 13);
    add_u64(&w.values, 0);
    refuse_writer(&w, FC_ERR_INPUT, "unknown type 13");
    gguf_key(&w, "k", G_ARRAY);
    add_u32(&w.values, G_ARRAY);
    add_u64(&w.values, 1);
    refuse_writer(&w, FC_ERR_UNSUPPORTED, "nested arrays");
    gguf_key(&w, "k", G_ARRAY);
    add_u32(&w.values, G_U64);
    add_u64(&w.values, (uint64_t)1 << 61); /* times 8 is 0 */
    refuse_writer(&w, FC_ERR_INPUT, "claims 2305843009213693952 metadata array elements");
    gguf_key(&w, "k", G_STRING);
    add_u64(&w.values, UINT64_MAX - 7);
    refuse_writer(&w, FC_ERR_INPUT, "claims 18446744073709551608 bytes");
    gguf_u32(&w, "k", 1);
    gguf_u32(&w, "k", 2);
    refuse_writer(&w, FC_ERR_INPUT, "\"k\" is there twice");
    const uint32_t bad[] = {0, 24, (uint32_t)1 << 31};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gguf_u32(&w, "general.alignment", bad[i]);
        refuse_writer(&w, FC_ERR_INPUT, "power of two");
    }
}

static void false_tensors(void **state)
{
    (void)state;
    const struct {
        size_t n_dims;
        uint64_t dims[5];
        uint32_t type;
        uint64_t offset;
        const char *words;
    } cases[] = {
        {0, {0}, 0, 0, "1 to 4 dimensions, found 0"},
        {5, {1, 1, 1, 1, 1}, 0, 0, "1 to 4 dimensions, found 5"},
        {2, {8, 0}, 0, 0, "dimension 1 is 0"},
        {1, {(uint64_t)1 << 63}, 0, 0, "too large"},
        {2, {(uint64_t)1 << 32, (uint64_t)1 << 32}, 0, 0, "too large"},
        {1, {((uint64_t)1 << 62) + 1}, 0, 0, "too large"}, /* times 4 wraps to 4 */
        {1, {33}, 8, 0, "do not divide into the blocks of 32 of type Q8_0"},
        {1, {255}, 12, 0, "blocks of 256 of type Q4_K"},
        {1, {8}, 0, 4, "not a multiple of 32"},
        {1, {8}, 0, 64, "do not lie within"},
        {1, {8}, 0, UINT64_MAX - 31, "do not lie within"},
        {1, {8}, 999, (uint64_t)1 << 40, "do not lie within"},
        {1, {17}, 0, 0, "do not lie within the 64 bytes"},
        {1, {16}, 0, 0, "overlap"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_writer w = {0};
        gguf_matrix(&w, "one", 0, 8, 1);
        gguf_matrix(&w, "two", 0, 8, 1);
        gguf_describe(&w, "false", cases[i].n_dims, cases[i].dims, cases[i].type, cases[i].offset);
        refuse_writer(&w, FC_ERR_INPUT, cases[i].words);
    }
    struct gguf_writer w = {0};
    gguf_matrix(&w, "same", 0, 8, 1);
    gguf_matrix(&w, "same", 0, 8, 1);
    refuse_writer(&w, FC_ERR_INPUT, "\"same\" is there twice");
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* Touches everything that an open file hands out. */
static void use_all(const struct fc_gguf *g)
{
    static const char *const keys[] = {"general.architecture", "llama.block_count", "list", "words",
                                       "llama.rope.freq_base"};
    volatile size_t sum = 0;
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        int64_t v, *ints = NULL;
        double d;
        bool b;
        struct fc_gguf_string s = {0}, *strings = NULL;
        float *floats = NULL;
        size_t n = 0;
        fc_gguf_int(g, keys[k], false, &v, NULL);
        fc_gguf_double(g, keys[k], false, &d, NULL);
        fc_gguf_bool(g, keys[k], false, &b, NULL);
        fc_gguf_text(g, keys[k], false, &s, NULL);
        for (size_t i = 0; i < s.len; i++)
            sum += (unsigned char)s.data[i];
        fc_gguf_ints(g, keys[k], false, &ints, &n, NULL);
        fc_gguf_floats(g, keys[k], false, &floats, &n, NULL);
        n = 0;
        fc_gguf_texts(g, keys[k], false, &strings, &n, NULL);
        for (size_t i = 0; i < n; i++)
            sum += strings[i].len ? (unsigned char)strings[i].data[strings[i].len - 1] : 0;
        free(ints);
        free(floats);
        free(strings);
    }
    const struct fc_gguf_tensor *t;
    size_t n = fc_gguf_tensors(g, &t);
    for (size_t i = 0; i < n; i++)
        sum += t[i].bytes ? t[i].data[0] + t[i].data[t[i].bytes - 1] : 0u;
}

/* The same file as a whole model: configuration, shapes and weights. */
static void use_model(const char *path)
{
    struct fc_error err = {0};
    struct fc_model_file *file;
    enum fc_code code = fc_model_file_open(&file, path, &err);
    assert_refused_or_fine(code, &err);
    if (code != FC_OK)
        return;
    const struct fc_params *params = fc_model_file_params(file);
    for (size_t i = 0; i < params->n; i++) {
        float *weights = fc_alloc(params->items[i].count, sizeof *weights, "weights", &err);
        assert_non_null(weights);
        assert_int_equal(fc_model_file_read(file, &params->items[i], FC_F32, weights, &err), FC_OK);
        assert_int_equal(fc_model_file_read(file, &params->items[i], FC_BF16, weights, &err),
                         FC_OK);
        free(weights);
    }
    fc_model_file_close(file);
}

static void write_model(struct fc_text *bytes)
{
    struct gguf_writer w = {0};
    gguf_llama_values(&w);
    gguf_key(&w, "list", G_ARRAY);
    add_u32(&w.values, G_F32);
    add_u64(&w.values, 2);
    add_u64(&w.values, 0x3f8000003f800000);
    gguf_key(&w, "words", G_ARRAY);
    add_u32(&w.values, G_STRING);
    add_u64(&w.values, 2);
    add_string(&w.values, "one");
    add_string(&w.values, "two");
    gguf_llama_tensors(&w);
    gguf_join(&w, bytes);
    gguf_free(&w);
}

static void truncated_everywhere(void **state)
{
    (void)state;
    struct fc_text bytes = {0};
    write_model(&bytes);
    for (size_t len = 0; len <= bytes.len; len++) {
        struct fc_error err = {0};
        enum fc_code code;
        struct fc_text part = {.data = bytes.data, .len = len};
        struct fc_gguf *g = open_bytes(&part, &err, &code);
        assert_refused_or_fine(code, &err);
        assert_true(len < bytes.len ? code == FC_ERR_INPUT : code == FC_OK);
        fc_gguf_close(g);
    }
    use_model(test_path("file.gguf")); /* whole again, and a model */
    fc_text_free(&bytes);
}

static void flipped_bytes(void **state)
{
    (void)state;
    struct fc_text bytes = {0};
    write_model(&bytes);
    uint64_t random = 20240607;
    size_t opened = 0, head = 1400; /* metadata and descriptions; the weights may be anything */
    assert_true(head < bytes.len);
    for (size_t round = 0; round < 3000; round++) {
        char *copy = fc_strndup(bytes.data, bytes.len, NULL);
        for (size_t i = 0; i < 1 + round % 3; i++) {
            char *byte = &copy[next_random(&random) % head];
            switch (next_random(&random) % 3) {
            case 0:
                *byte = (char)next_random(&random);
                break;
            case 1:
                *byte = (char)(*byte ^ (1 << next_random(&random) % 8));
                break;
            default:
                *byte = (char)0xff;
            }
        }
        struct fc_error err = {0};
        enum fc_code code;
        struct fc_text part = {.data = copy, .len = bytes.len};
        struct fc_gguf *g = open_bytes(&part, &err, &code);
        assert_refused_or_fine(code, &err);
        if (g) {
            use_all(g);
            opened++;
        }
        fc_gguf_close(g);
        use_model(test_path("file.gguf"));
        free(copy);
    }
    assert_true(opened > 100 && opened < 3000); /* both ends were reached */
    fc_text_free(&bytes);
}

static void missing_file(void **state)
{
    (void)state;
    struct fc_error err = {0};
    struct fc_gguf *g;
    assert_refused(fc_gguf_open(&g, test_path("absent"), &err), &err, FC_ERR_IO, "absent");
    fc_gguf_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars),       cmocka_unit_test(wrong_types),
        cmocka_unit_test(arrays),        cmocka_unit_test(tensors),
        cmocka_unit_test(false_headers), cmocka_unit_test(false_metadata),
        cmocka_unit_test(false_tensors), cmocka_unit_test(truncated_everywhere),
        cmocka_unit_test(flipped_bytes), cmocka_unit_test(missing_file),
    };
    limit_memory();
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
