#include "base/memory.h"
#include "privacy/perturbed_private.h"

#include <math.h>

enum fc_code fc_perturbed_make(struct fc_perturbed **out, const char *text, size_t len,
                               struct fc_error *err)
{
    struct fc_perturbed *p = fc_alloc(1, sizeof *p, "perturbed text", err);
    if (!p)
        return FC_ERR_MEMORY;
    p->len = len;
    p->text = fc_strndup(text, len, err);
    if (!p->text) {
        free(p);
        return FC_ERR_MEMORY;
    }
    *out = p;
    return FC_OK;
}

enum fc_code fc_perturbed_unprotected(struct fc_perturbed **out, const char *text, size_t len,
                                      struct fc_error *err)
{
    enum fc_code code = fc_perturbed_make(out, text, len, err);
    if (code == FC_OK)
        (*out)->epsilon = INFINITY;
    return code;
}

void fc_perturbed_free(struct fc_perturbed *p)
{
    if (!p)
        return;
    free(p->text);
    free(p);
}

const char *fc_perturbed_text(const struct fc_perturbed *p, size_t *len)
{
    if (len)
        *len = p->len;
    return p->text;
}

uint64_t fc_perturbed_draws(const struct fc_perturbed *p)
{
    return p->draws;
}

double fc_perturbed_epsilon(const struct fc_perturbed *p)
{
    return p->epsilon;
}

bool fc_perturbed_resent(const struct fc_perturbed *p)
{
    return p->resent;
}

bool fc_perturbed_protected(const struct fc_perturbed *p)
{
    return p->is_protected;
}

bool fc_perturbed_may_leave(const struct fc_perturbed *p)
{
    return p->charged || !p->is_protected;
}
