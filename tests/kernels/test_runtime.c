/* Devices, pinned memory, events between two streams, and recorded work. */
#include "tests/kernels/harness.h"

static void test_devices(void **state)
{
    (void)state;
    struct kt t;
    struct fc_error why = {0};
    char text[160] = "", cut[8];
    kt_open(&t);
    int n = t.k->device_count(&why);
    assert_true(n >= 1);
    assert_int_equal(why.code, FC_OK);
    assert_true(t.k->describe(0, text, sizeof text));
    assert_true(strlen(text) > 4 && strchr(text, ','));
    assert_true(t.k->describe(0, cut, sizeof cut));
    assert_memory_equal(cut, text, sizeof cut - 1);
    assert_int_equal(cut[sizeof cut - 1], '\0');
    assert_false(t.k->describe(n, text, sizeof text));
    assert_false(t.k->describe(-1, text, sizeof text));
    kt_sync(&t); /* a question about a device that is not there leaves no error behind */
    kt_close(&t);
}

/* A pinned ring of two slots feeds ten steps: each step's input comes over a copy stream while the
 * step before computes, and its slot is filled again only after its copy is done. (Each step has
 * its own device buffer: with waits in both directions the simulator's late-async mode, which waits
 * for all of the other stream instead of the event, would run a copy too early.) */
static void test_ring(void **state)
{
    (void)state;
    enum { N = 1000, STEPS = 10 };
    struct kt t;
    struct fc_error err = {0};
    kt_open(&t);
    struct fc_stream *copies = t.k->copy_stream_open(t.s, &err);
    assert_non_null(copies);
    struct kt_array in = kt_array(&t, N * STEPS, KT_INT32), out = kt_array(&t, N * STEPS, KT_INT32);
    int32_t *slot[2];
    struct fc_event *filled[2];
    for (int i = 0; i < 2; i++) {
        slot[i] = t.k->host_alloc(t.s, N * sizeof(int32_t), &err);
        filled[i] = t.k->event_open(t.s, &err);
        assert_true(slot[i] && filled[i] && (uintptr_t)slot[i] % 64 == 0);
    }
    for (int step = 0; step < STEPS; step++) {
        int i = step % 2;
        int32_t *from = (int32_t *)in.p + step * N;
        t.k->event_sync(copies, filled[i]); /* the slot's last copy is done */
        for (int j = 0; j < N; j++)
            slot[i][j] = 1000 * step + j;
        t.k->upload(copies, from, slot[i], N * sizeof(int32_t));
        t.k->event_record(copies, filled[i]);
        t.k->event_wait(t.s, filled[i]);
        t.k->copy(t.s, (int32_t *)out.p + step * N, from, N * sizeof(int32_t));
    }
    kt_read(&t, &out);
    for (int step = 0; step < STEPS; step++)
        for (int j = 0; j < N; j++)
            assert_int_equal((int)out.ref[step * N + j], 1000 * step + j);
    assert_int_equal(t.k->sync(copies, &err), FC_OK);
    for (int i = 0; i < 2; i++) {
        t.k->host_free(t.s, slot[i]);
        t.k->event_close(t.s, filled[i]);
    }
    assert_null(t.k->host_alloc(t.s, SIZE_MAX - 7, &err));
    assert_int_equal(err.code, FC_ERR_MEMORY);
    t.k->host_free(t.s, NULL);
    t.k->event_close(t.s, NULL);
    t.k->stream_close(copies);
    kt_close(&t);
}

/* What one stream could not copy must not be taken for there by the stream that waits for it. */
static void test_error_passes(void **state)
{
    (void)state;
    struct kt t;
    struct fc_error err = {0};
    kt_open(&t);
    struct fc_stream *copies = t.k->copy_stream_open(t.s, &err);
    struct fc_event *there = t.k->event_open(t.s, &err);
    assert_true(copies && there);
    struct kt_array a = kt_random(&t, 8, FC_F32, 1), y = kt_array(&t, 8, FC_F32);
    struct fc_gemm bad = {
        .a = a.p, .b = a.p, .y = y.p, .m = 2, .n = 2, .k = 2, .lda = 2, .ldb = 2, .ldy = 1};
    t.k->gemm(copies, &bad);
    t.k->event_record(copies, there);
    t.k->event_wait(t.s, there);
    t.k->copy(t.s, y.p, a.p, a.bytes);
    assert_int_equal(t.k->sync(t.s, &err), FC_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "ldy 1"));
    kt_read(&t, &y);
    assert_true(isnan(y.ref[0]));
    err = (struct fc_error){0};
    assert_int_equal(t.k->sync(copies, &err), FC_ERR_INTERNAL);
    t.k->event_record(copies, there); /* and once it is mended, nothing is left of it */
    t.k->event_wait(t.s, there);
    kt_sync(&t);
    t.k->event_close(t.s, there);
    t.k->stream_close(copies);
    kt_close(&t);
}

/* `begin; step; end; launch` does the step once on every back end; what is launched again does it
 * again with what lies at the same addresses then. */
static void test_graph(void **state)
{
    (void)state;
    struct kt t;
    kt_open(&t);
    struct kt_array a = kt_random(&t, 300, FC_F32, 1), b = kt_random(&t, 300, FC_F32, 1);
    struct kt_array x = kt_array(&t, 300, FC_F32), y = kt_array(&t, 300, FC_F32);
    t.k->copy(t.s, x.p, a.p, a.bytes);
    t.k->range_push("step");
    t.k->graph_begin(t.s);
    t.k->copy(t.s, y.p, x.p, x.bytes);
    struct fc_graph *g = t.k->graph_end(t.s);
    t.k->range_pop();
    if (g)
        t.k->graph_launch(t.s, g);
    kt_check_same_bits(&t, &a, &y, "after the first step");
    if (g) {
        t.k->copy(t.s, x.p, b.p, b.bytes);
        kt_check_same_bits(&t, &a, &y, "before the second launch");
        t.k->graph_launch(t.s, g);
        kt_check_same_bits(&t, &b, &y, "after the second launch");
    }
    t.k->graph_free(t.s, g);
    kt_close(&t);
}

/* Products in a recording: general and packed, of shapes that ran before, padded and not. */
static void test_graph_products(void **state)
{
    (void)state;
    enum { M = 70, N = 48, K = 40 };
    struct kt t;
    kt_open(&t);
    struct kt_array x = kt_random(&t, M * K, FC_BF16, 1), w = kt_random(&t, N * K, FC_BF16, 1);
    struct kt_array y = kt_array(&t, M * N, FC_BF16), z = kt_array(&t, M * N, FC_F32);
    struct kt_array again_y = kt_array(&t, M * N, FC_BF16), again_z = kt_array(&t, M * N, FC_F32);
    struct fc_packed *packed = t.k->pack(t.s, w.p, N, K, FC_BF16);
    struct fc_gemm g = {.a = x.p, .b = w.p, .m = M, .n = N, .k = K, .lda = K, .ldb = K, .ldy = N};
    g.trans_b = true;
    g.type = g.y_type = FC_BF16;
    g.y = y.p;
    t.k->gemm(t.s, &g);
    t.k->gemm_packed(t.s, z.p, FC_F32, x.p, packed, M);
    g.y = again_y.p;
    t.k->graph_begin(t.s);
    t.k->gemm(t.s, &g);
    t.k->gemm_packed(t.s, again_z.p, FC_F32, x.p, packed, M);
    struct fc_graph *graph = t.k->graph_end(t.s);
    if (graph)
        t.k->graph_launch(t.s, graph);
    kt_check_same_bits(&t, &y, &again_y, "a recorded product");
    kt_check_same_bits(&t, &z, &again_z, "a recorded product with packed weights");
    t.k->graph_free(t.s, graph);
    t.k->unpack(t.s, packed);
    kt_close(&t);
}

/* An error while a step is recorded: no graph, the error once, and the stream works again. */
static void test_graph_error(void **state)
{
    (void)state;
    struct kt t;
    struct fc_error err = {0};
    kt_open(&t);
    struct kt_array a = kt_random(&t, 16, FC_F32, 1), y = kt_array(&t, 16, FC_F32);
    struct fc_gemm bad = {.a = a.p, .b = a.p, .y = y.p, .m = 2, .n = 2, .k = 2, .lda = 1};
    t.k->graph_begin(t.s);
    t.k->gemm(t.s, &bad);
    t.k->copy(t.s, y.p, a.p, a.bytes);
    assert_null(t.k->graph_end(t.s));
    assert_int_equal(t.k->sync(t.s, &err), FC_ERR_INTERNAL);
    t.k->copy(t.s, y.p, a.p, a.bytes);
    kt_check_same_bits(&t, &a, &y, "after the error");
    kt_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_error_passes),   cmocka_unit_test(test_graph),
        cmocka_unit_test(test_graph_products), cmocka_unit_test(test_graph_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
