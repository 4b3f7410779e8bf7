/* The state that the stages of cli/inference.h share. Each field has one owner while they run. */
#ifndef FC_CLI_INFERENCE_PRIVATE_H
#define FC_CLI_INFERENCE_PRIVATE_H

#include "cli/inference.h"
#include "net/client.h"

#include <pthread.h>

#define FC_PERTURB_BATCH 32    /* texts perturbed and charged at once */
#define FC_EXCHANGE_WINDOW 256 /* prompts at the server at once */
#define FC_DECODE_WINDOW 64    /* prompts in the decoder's generator at once */
#define FC_DECODE_MOST 8192    /* tokens that its KV cache holds at least (engine/generate.h) */

/* An example on its way. Texts are in the stores; only what may leave is carried. */
struct fc_work {
    size_t index;
    struct fc_perturbed
        *prompt; /* NULL once it was sent, or when its rationale is already stored */
    bool refused;
};
void fc_work_free(void *work);

struct fc_inference {
    struct fc_session *session;
    const struct fc_task_templates *templates;
    const struct fc_dataset *data;
    const size_t *order;
    struct fc_inference_options options;
    char *folder, *server;

    struct fc_store perturbed; /* written by the perturb stage, read by decode */
    struct fc_store received;  /* exchange; read by decode */
    struct fc_store decoded;   /* decode */

    struct fc_device perturb_device; /* a stream of its own for the ranking */
    struct fc_model perturb_model;   /* the session's weights on that stream: not freed */
    struct fc_perturber *perturber;
    struct fc_inference_report report;

    struct fc_pipeline *pipeline;
    bool joined;
    enum fc_code code; /* of the pipeline, once joined */
    struct fc_error error;

    pthread_mutex_t lock; /* of the next three */
    pthread_cond_t changed;
    unsigned char *ready; /* [data->n] 1: finished, 2: refused */
    size_t n_ready;
};

/* The stages; context is the struct fc_inference. */
enum fc_code fc_perturb_stage(struct fc_stage *stage, void *context, struct fc_error *err);
enum fc_code fc_exchange_stage(struct fc_stage *stage, void *context, struct fc_error *err);
enum fc_code fc_decode_stage(struct fc_stage *stage, void *context, struct fc_error *err);

#endif
