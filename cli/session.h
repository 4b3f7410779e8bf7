/* What every computing command opens first: device, model file, tokenizer, weights. */
#ifndef FC_CLI_SESSION_H
#define FC_CLI_SESSION_H

#include "cli/options.h"
#include "engine/model.h"
#include "models/chat.h"

struct fc_session {
    struct fc_device dev;
    struct fc_model_file *file;
    struct fc_tokenizer *tok;
    struct fc_model model;
    enum fc_chat_format chat; /* as flagged; FC_CHAT_AUTO until fc_session_chat */
};

/* Opens the device of the flags and says on stderr what it is and, where `auto` did not take a GPU,
 * why not. */
enum fc_code fc_session_device(struct fc_device *dev, const struct fc_compute_flags *compute,
                               struct fc_error *err);

/* Opens all of it and says on stderr what was taken: "model ... 134.5M weights, gguf Q4_1 -> bf16,
 * cpu (2 threads)". max_ctx as for fc_model_load; keep_quantised: by fc_model_load_quantised. Release with fc_session_close, also after an
 * error. */
enum fc_code fc_session_open(struct fc_session *s, const struct fc_model_flags *model,
                             const struct fc_compute_flags *compute, size_t max_ctx,
                             bool keep_quantised, struct fc_error *err);
void fc_session_close(struct fc_session *s);

/* Settles the chat format: the flag's, or the one that the model's files show. */
enum fc_code fc_session_chat(struct fc_session *s, struct fc_error *err);

/* What two runs must share to give the same answers, as "llama bf16 HASH": the hash is over all
 * weights, the chat format, and `extra` (an instruction around the prompts; may be NULL). */
#define FC_FINGERPRINT_SIZE 128
enum fc_code fc_session_fingerprint(const struct fc_session *s, const char *extra,
                                    char text[FC_FINGERPRINT_SIZE], struct fc_error *err);

/* Prints the effective configuration on stderr, and stores it as FOLDER/job.json unless folder is
 * NULL. */
enum fc_code fc_session_record(const struct fc_options *options, const char *folder,
                               struct fc_error *err);

/* Prints a summary: one JSON line on stdout under --json, else "name value" lines. Deletes it; NULL
 * is the FC_ERR_MEMORY of who made it. */
enum fc_code fc_print_summary(const struct fc_options *options, cJSON *summary,
                              struct fc_error *err);

#endif
