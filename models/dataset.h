/* Data sets: our JSONL and the original files of CommonsenseQA, OpenBookQA, ARC and BoolQ.
 *
 *   ours           {"id", "task", "question", "choices": [texts], "answer": text, "rationale"?}
 *   CommonsenseQA  {"id", "question": {"stem", "choices": [{"label", "text"}]}, "answerKey"};
 *   ARC, OpenBookQA   OpenBookQA's "fact1", a sentence by people, is taken as the rationale
 *   BoolQ          {"question", "title", "passage", "answer": bool}: the question becomes
 *                  "PASSAGE\nQUESTION?", the choices "yes" and "no"
 */
#ifndef FC_MODELS_DATASET_H
#define FC_MODELS_DATASET_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define FC_DATASET_MAX_CHOICES 64

/* One example. Private text: never log it, never put it into an error. */
struct fc_example {
    char *id;
    char *question;
    char **choices; /* n_choices texts; none for free answers */
    size_t n_choices;
    char *answer;    /* NULL when unknown */
    size_t label;    /* index of the answer in choices; n_choices when unknown */
    char *rationale; /* written by people, NULL if none */
};

struct fc_dataset {
    struct fc_example *items;
    size_t n, capacity;
    char *task; /* "task" of the first example, "" if it has none */
};

/* Reads a file, its format recognised from its first record. Limits: 1 GiB, 4 MiB a line, 64
 * choices. Text must be UTF-8 without NUL (models/jsonl.h), questions and choices not empty. Errors
 * name the file, the line number and the field, never its content. Ids must be unique; a record
 * without one gets "line-N". With `need_answers`, a record whose answer is absent or is not among
 * its choices is an error. A file without records is an error. On failure *d is empty. */
enum fc_code fc_dataset_read(struct fc_dataset *d, const char *path, bool need_answers,
                             struct fc_error *err);
void fc_dataset_free(struct fc_dataset *d);

/* Whether the examples are multiple choice (judged by the first one): which default templates and
 * which scoring fit. */
bool fc_dataset_has_choices(const struct fc_dataset *d);

#endif
