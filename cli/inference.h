/* Steps 1 to 3 of FedCoT as a pipeline that runs beside the caller:
 *
 *     perturb -> exchange with the server -> decode -> collect
 *
 * Each stage has a thread, and its own device stream where it computes. Examples go through in the
 * order in which training will want them. What a stage has made is on disk before it goes on, in
 * the output folder, so a job that was killed goes on from there with the same texts:
 *
 *     identity.json     what the texts depend on: another job is refused the folder
 *     server.json       the same of the server's model
 *     perturbed.jsonl   {"id", "prompt"}        what left the client
 *     received.jsonl    {"id", "text", ...}     the server's rationales
 *     rationales.jsonl  {"id", "text", ...}     decoded, as trained on */
#ifndef FC_CLI_INFERENCE_H
#define FC_CLI_INFERENCE_H

#include "cli/key_flags.h"
#include "cli/progress.h"
#include "cli/session.h"
#include "cli/store.h"
#include "engine/pipeline.h"
#include "engine/samples.h"
#include "models/template.h"
#include "privacy/perturb.h"

struct fc_inference_options {
    int threads;                                  /* of the ranking's stream; 0: all cores */
    const char *folder;                           /* exists */
    const char *name;                             /* "FedCoT", "unprotected": in messages */
    const char *server;                           /* URL */
    const struct fc_keys *keys;                   /* of the session with it; borrowed */
    double timeout;                               /* seconds without a word from the server */
    const struct fc_perturber_options *perturber; /* read by start only; NULL: raw texts leave,
                                                     on public data only */
    struct fc_ledger *ledger;                     /* borrowed; NULL only with perturber NULL */
    bool decode;        /* false: the server's rationales are trained on as they are */
    size_t max_tokens;  /* of a rationale */
    double temperature; /* of the server's sampling */
    uint64_t seed;      /* example i draws with seed + i */
};

enum { FC_STAGE_PERTURB, FC_STAGE_EXCHANGE, FC_STAGE_DECODE, FC_STAGE_COLLECT, FC_STAGES };

/* What it did; complete after fc_inference_finish. */
struct fc_inference_report {
    struct fc_stage_stats stages[FC_STAGES];
    struct fc_run_report privacy; /* sums over batches */
    double *documents;            /* pure epsilon of each document; owned by the inference */
    size_t n_documents;
    size_t server_tokens, decoded_tokens, refused;
    double server_seconds; /* from the first prompt sent to the last rationale received */
    double decode_seconds;
    uint64_t bytes_out, bytes_in, resends;
    char server_model[128];
};

struct fc_inference;

/* Starts the stages. `session` (packed if decode) is the decode stage's until finish; order[n] are
 * indexes of examples of `data`. FC_ERR_INPUT if the folder holds the texts of another job,
 * FC_ERR_BUDGET if the ledger does not cover this one; both before anything is perturbed. */
enum fc_code fc_inference_start(struct fc_inference **inf, struct fc_session *session,
                                const struct fc_task_templates *templates,
                                const struct fc_dataset *data, const size_t *order,
                                const struct fc_inference_options *options, struct fc_error *err);

/* Waits until the example's rationale is there, showing progress meanwhile. *text is NULL if the
 * server refused the prompt; valid until fc_inference_free. Returns the pipeline's error if it
 * failed. */
enum fc_code fc_inference_wait(struct fc_inference *inf, size_t index, const char **text,
                               struct fc_error *err);

/* The pipeline's error if it has failed, else FC_OK at once: for a caller that is busy with
 * something else meanwhile. */
enum fc_code fc_inference_check(struct fc_inference *inf, struct fc_error *err);

/* Waits for the whole pipeline, showing progress, and fills the report. */
enum fc_code fc_inference_finish(struct fc_inference *inf, struct fc_inference_report *report,
                                 struct fc_error *err);

/* The stored texts of an example, NULL where there is none; after finish. */
void fc_inference_texts(const struct fc_inference *inf, size_t index, const char **perturbed,
                        const char **received, const char **rationale);

/* The mechanism in use; NULL for unprotected. */
const struct fc_perturber *fc_inference_perturber(const struct fc_inference *inf);

/* Stops what still runs and frees. NULL is fine. */
void fc_inference_free(struct fc_inference *inf);

#endif
