/* The texts of the method: prompt to perturb, instruction to the server, decode, predict and
 * explain, as templates with {{field}} placeholders.
 *
 * A template is bound to the set of fields that it may name when it is compiled, so a template for
 * the server's instruction that names a raw field is refused before any data is read. */
#ifndef FC_MODELS_TEMPLATE_H
#define FC_MODELS_TEMPLATE_H

#include "base/error.h"
#include "base/memory.h"
#include "models/dataset.h"

struct fc_template; /* compiled, immutable */

/* Compiles text; fields[n_fields] are the names it may use, blanks inside the braces are allowed.
 * FC_ERR_INPUT names the unknown field, its position and the allowed ones, the unclosed "{{", or
 * bytes that are not UTF-8. `{{{{` writes "{{". */
enum fc_code fc_template_compile(struct fc_template **t, const char *text, const char *where,
                                 const char *const *fields, size_t n_fields, struct fc_error *err);
void fc_template_free(struct fc_template *t);

/* Whether the text names fields[field] of compile. */
bool fc_template_uses(const struct fc_template *t, size_t field);

/* Appends the text with values[i] for fields[i] of compile; values are inserted as they are (braces
 * in them mean nothing), NULL as nothing. */
enum fc_code fc_template_render(const struct fc_template *t, const char *const *values,
                                struct fc_text *out, struct fc_error *err);

/* The five texts of one task, and where loss begins: in predict and explain the model learns the
 * target that follows the prompt. Values come in the order of the fields below; {{choices}} is the
 * choices joined by ", ".
 *
 * Every word of the rendered `perturb` is replaced, its own words too, and each costs budget: keep
 * it short. `predict` does not list the choices: each is scored as its continuation, " bank", by
 * the sum of its tokens' log-probabilities. That, and the wording, were chosen by measured
 * zero-shot accuracy: docs/templates.md has the figures. */
struct fc_task_templates {
    struct fc_template *perturb;  /* {{question}} {{choices}}: the text whose words are perturbed */
    struct fc_template *instruct; /* {{perturbed}} only: the user message for the server's LLM */
    struct fc_template *decode;   /* {{question}} {{choices}} {{perturbed}} {{rationale}} */
    struct fc_template *predict;  /* {{question}} {{choices}}: the prompt whose continuation is
                                     the answer */
    struct fc_template *explain;  /* {{question}} {{choices}}: ... is the rationale */
};

/* Built-in defaults for multiple choice and free answers; with `file` (JSON: {"perturb": "...",
 * ...}) those of its keys replace the defaults. FC_ERR_INPUT for an unknown key, and for a text
 * without the field that makes it about the example: {{question}}, in instruct {{perturbed}}, in
 * decode {{rationale}}. */
enum fc_code fc_task_templates_open(struct fc_task_templates *t, bool multiple_choice,
                                    const char *file, struct fc_error *err);
void fc_task_templates_free(struct fc_task_templates *t);

#endif
