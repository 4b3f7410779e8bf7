/* Step 1: private prompts to perturbed ones, charged before they go on. */
#include "base/memory.h"
#include "cli/inference_private.h"
#include "cli/privacy_flags.h"

#include <string.h>

static void add_report(struct fc_run_report *sum, const struct fc_run_report *r)
{
    sum->texts += r->texts;
    sum->resent += r->resent;
    sum->draws += r->draws;
    sum->public_units += r->public_units;
    sum->cut_units += r->cut_units;
    sum->seconds += r->seconds;
    if (r->longest >= sum->longest) {
        sum->longest = r->longest;
        sum->document = r->document;
    }
    sum->client = r->client;
}

static enum fc_code perturb(struct fc_inference *inf, const struct fc_private_text *texts, size_t n,
                            struct fc_perturbed **out, struct fc_error *err)
{
    struct fc_run_report report;
    enum fc_code code = FC_OK;
    if (inf->perturber) {
        code = fc_perturber_run(inf->perturber, inf->options.ledger, texts, n, out, &report, err);
        if (code == FC_OK)
            add_report(&inf->report.privacy, &report);
        return code;
    }
    for (size_t i = 0; i < n && code == FC_OK; i++)
        code = fc_perturbed_unprotected(&out[i], texts[i].text, texts[i].len, err);
    return code;
}

/* Stores what will leave and hands it on; takes the prompt over. */
static enum fc_code pass_on(struct fc_inference *inf, struct fc_stage *stage, size_t index,
                            struct fc_perturbed *prompt, struct fc_error *err)
{
    size_t len;
    const char *text = fc_perturbed_text(prompt, &len);
    enum fc_code code = FC_OK;
    inf->report.documents[inf->report.n_documents++] = fc_perturbed_epsilon(prompt);
    const char *stored = inf->perturbed.texts[index];
    if (!stored)
        code = fc_store_put(&inf->perturbed, index, text, NULL, err);
    else if (strcmp(stored, text) != 0)
        code = fc_fail(err, FC_ERR_INPUT,
                       "%s: prompt %zu is another one than the ledger's: the folder goes with "
                       "another ledger; choose another --output",
                       inf->perturbed.path, index + 1);
    struct fc_work *work = code == FC_OK ? fc_alloc(1, sizeof *work, "prompt", err) : NULL;
    if (!work) {
        fc_perturbed_free(prompt);
        return code == FC_OK ? FC_ERR_MEMORY : code;
    }
    work->index = index;
    if (inf->received.texts[index] || inf->decoded.texts[index])
        fc_perturbed_free(prompt); /* its rationale came before a restart */
    else
        work->prompt = prompt;
    return fc_stage_put(stage, work, len);
}

static enum fc_code run_batch(struct fc_inference *inf, struct fc_stage *stage, size_t first,
                              size_t n, struct fc_error *err)
{
    struct fc_private_texts texts;
    struct fc_perturbed *out[FC_PERTURB_BATCH] = {0};
    const size_t *order = inf->order + first;
    enum fc_code code = fc_private_texts_render(&texts, inf->data, inf->templates, order, n, err);
    if (code == FC_OK)
        code = perturb(inf, texts.items, n, out, err);
    for (size_t i = 0; i < n; i++) {
        if (code == FC_OK)
            code = pass_on(inf, stage, order[i], out[i], err);
        else
            fc_perturbed_free(out[i]);
    }
    fc_private_texts_free(&texts);
    return code;
}

enum fc_code fc_perturb_stage(struct fc_stage *stage, void *context, struct fc_error *err)
{
    struct fc_inference *inf = context;
    enum fc_code code = FC_OK;
    for (size_t first = 0; first < inf->data->n && code == FC_OK; first += FC_PERTURB_BATCH) {
        size_t left = inf->data->n - first;
        code = run_batch(inf, stage, first, left < FC_PERTURB_BATCH ? left : FC_PERTURB_BATCH, err);
    }
    if (code == FC_OK && inf->perturber)
        fc_perturber_cost(inf->perturber, inf->report.privacy.draws, &inf->report.privacy.run);
    return code;
}
