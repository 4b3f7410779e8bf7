/* Errors that only the CUDA back end has: each is reported once, with what to do, and the stream
 * works afterwards. */
#include "tests/kernels/harness.h"

static void expect(struct kt *t, struct fc_stream *s, enum fc_code code, const char *text)
{
    struct fc_error err = {0};
    assert_int_equal(t->k->sync(s, &err), code);
    if (!strstr(err.text, text))
        fail_msg("expected an error with \"%s\", found \"%s\"", text, err.text);
}

/* Launches a kernel: the error of an earlier call must not be taken for its own. */
static void expect_working(struct kt *t)
{
    struct kt_array a = kt_random(t, 33, FC_F32, 1), y = kt_array(t, 33, FC_F32);
    t->k->cast(t->s, y.p, FC_F32, a.p, FC_F32, 33);
    kt_check(t, &y, a.ref, 0, "after the error");
}

static void test_call_refused(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    struct kt_array a = kt_random(&t, 16, FC_F32, 1);
    t.k->free(t.s, a.p); /* lies within an allocation: CUDA refuses it */
    expect(&t, t.s, FC_ERR_INTERNAL, "cudaFree(p) failed at memory.cu");
    expect_working(&t);
    kt_close(&t);
}

static void test_sync_while_recording(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    t.k->graph_begin(t.s);
    expect(&t, t.s, FC_ERR_INTERNAL, "between graph_begin and graph_end");
    assert_null(t.k->graph_end(t.s));
    expect_working(&t);
    kt_close(&t);
}

/* Scratch cannot be allocated in a recording: of weights from another stream, say. */
static void test_unseen_weights_while_recording(void **state)
{
    (void)state;
    struct kt t;
    struct fc_error err = {0};
    kt_open(&t);
    struct fc_stream *fresh = t.k->stream_open(0, 0, &err);
    assert_non_null(fresh);
    struct kt_array x = kt_random(&t, 16, FC_F32, 1), y = kt_array(&t, 16, FC_F32);
    struct fc_packed *w = t.k->pack(t.s, x.p, 4, 4, FC_F32);
    kt_sync(&t);
    t.k->graph_begin(fresh);
    t.k->gemm_packed(fresh, y.p, FC_F32, x.p, w, 1);
    assert_null(t.k->graph_end(fresh));
    expect(&t, fresh, FC_ERR_INTERNAL, "has not multiplied before");
    t.k->unpack(t.s, w);
    t.k->stream_close(fresh);
    expect_working(&t);
    kt_close(&t);
}

static void test_copy_stream(void **state)
{
    (void)state;
    struct kt t;
    struct fc_error err = {0};
    kt_open(&t);
    struct fc_stream *copies = t.k->copy_stream_open(t.s, &err);
    assert_non_null(copies);
    struct kt_array a = kt_random(&t, 16, FC_F32, 1), y = kt_array(&t, 16, FC_F32);
    struct fc_gemm g = {.a = a.p, .b = a.p, .y = y.p, .m = 4, .n = 4, .k = 4, .lda = 4, .ldb = 4};
    g.ldy = 4;
    t.k->gemm(copies, &g);
    expect(&t, copies, FC_ERR_INTERNAL, "a copy stream multiplies nothing");
    assert_null(t.k->pack(copies, a.p, 4, 4, FC_F32));
    expect(&t, copies, FC_ERR_UNSUPPORTED, "cannot pack");
    t.k->stream_close(copies);
    expect_working(&t);
    kt_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call_refused),
        cmocka_unit_test(test_sync_while_recording),
        cmocka_unit_test(test_unseen_weights_while_recording),
        cmocka_unit_test(test_copy_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
