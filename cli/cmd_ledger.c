/* `fedcot ledger`: what a client has spent, from its ledger alone. */
#include "cli/commands.h"
#include "cli/metrics.h"
#include "cli/session.h"
#include "privacy/ledger.h"

#include <sodium.h>
#include <string.h>

struct ledger_flags {
    const char *head;
    bool moved;
};

#define FIELD(name) offsetof(struct ledger_flags, name)

static const struct fc_option ledger_options[] = {
    {.name = "head",
     .type = FC_OPT_STRING,
     .offset = FIELD(head),
     .metavar = "HEAD",
     .help =
         "also compare with this head: DIR/ledger.head of `distill`, P.jsonl.head of `perturb`"},
    {.name = "moved",
     .type = FC_OPT_FLAG,
     .offset = FIELD(moved),
     .help = "accept the ledger where it lies now, and replace HEAD by its own; you say that no "
             "other copy is in use"},
    {0}};

static const struct fc_option_group groups[] = {{"Ledger", ledger_options, 0}, {0}};

static const struct fc_command_spec spec = {
    .program = "fedcot",
    .name = "ledger",
    .summary = "Show what a client has spent, and verify its ledger",
    .description =
        "Reads a ledger and its key, verifies the chain of hashes over every record, and prints "
        "what was charged: per mechanism and in all, as pure epsilon, as zCDP, and at the ledger's "
        "delta. A job may be running. Exit status 3: the ledger is damaged, its key is another, or "
        "it does not contain the record of HEAD.\n\n"
        "A ledger that was copied, or put back from a backup, is refused by the jobs, because it "
        "would spend the budget twice; --moved accepts it.",
    .groups = groups,
    .arguments = "FILE",
};

static bool add_hash(cJSON *o, const char *name, const unsigned char hash[32])
{
    char hex[65];
    sodium_bin2hex(hex, sizeof hex, hash, 32);
    return cJSON_AddStringToObject(o, name, hex) != NULL;
}

/* JSON has no infinity: cJSON prints null, which says that there is no such figure. */
static bool add_spent(cJSON *o, size_t documents, const struct fc_spent *s)
{
    const struct fc_metric figures[] = {{"documents", (double)documents},
                                        {"units", (double)s->draws},
                                        {"epsilon_pure", s->pure},
                                        {"rho", s->rho},
                                        {"delta", s->delta},
                                        {"epsilon_zcdp", s->zcdp},
                                        {"epsilon_renyi", s->renyi},
                                        {"epsilon", s->epsilon}};
    bool whole = true;
    for (size_t i = 0; i < sizeof figures / sizeof figures[0] && whole; i++)
        whole = cJSON_AddNumberToObject(o, figures[i].name, figures[i].value) != NULL;
    return whole;
}

static bool add_shares(cJSON *o, const struct fc_ledger *l, size_t n)
{
    cJSON *list = cJSON_AddArrayToObject(o, "mechanisms");
    bool whole = list != NULL;
    for (size_t i = 0; i < n && whole; i++) {
        struct fc_ledger_share share;
        fc_ledger_share(l, i, &share);
        cJSON *item = cJSON_CreateObject();
        whole = item && add_hash(item, "mechanism", share.hash) &&
                cJSON_AddNumberToObject(item, "epsilon_per_unit", share.epsilon) &&
                add_spent(item, share.documents, &share.spent);
        if (whole)
            whole = cJSON_AddItemToArray(list, item);
        else
            cJSON_Delete(item);
    }
    return whole;
}

static cJSON *summarize(const struct fc_ledger *l, const char *path, struct fc_error *err)
{
    struct fc_ledger_facts facts;
    struct fc_spent spent;
    struct fc_budget budget = fc_ledger_budget(l);
    fc_ledger_facts(l, &facts);
    fc_ledger_spent(l, &spent);
    cJSON *o = cJSON_CreateObject();
    bool whole = o && cJSON_AddStringToObject(o, "command", "ledger") &&
                 cJSON_AddStringToObject(o, "ledger", path) &&
                 cJSON_AddNumberToObject(o, "version", (double)facts.version) &&
                 cJSON_AddNumberToObject(o, "records", (double)facts.records) &&
                 add_hash(o, "head", facts.head) &&
                 cJSON_AddBoolToObject(o, "in_place", facts.in_place || facts.version == 1) &&
                 cJSON_AddNumberToObject(o, "torn_bytes", (double)facts.torn) &&
                 cJSON_AddNumberToObject(o, "budget", budget.epsilon) &&
                 add_spent(o, facts.documents, &spent) && add_shares(o, l, facts.n_mechanisms);
    if (whole)
        return o;
    cJSON_Delete(o);
    fc_fail(err, FC_ERR_MEMORY, "summary: out of memory");
    return NULL;
}

static void print_line(const char *name, double epsilon, size_t documents, const struct fc_spent *s)
{
    char each[40], pure[40], zcdp[40], least[40];
    printf("%-16.16s  %9s %10zu %10llu  %12s %12s %12s\n", name,
           epsilon > 0 ? fc_format_up(each, epsilon, 4) : "", documents,
           (unsigned long long)s->draws, fc_format_up(pure, s->pure, 2),
           fc_format_up(zcdp, s->zcdp, 2), fc_format_up(least, s->epsilon, 2));
}

static void print_table(const struct fc_ledger *l)
{
    struct fc_ledger_facts facts;
    struct fc_spent spent;
    struct fc_budget budget = fc_ledger_budget(l);
    char hex[65], rho[40];
    fc_ledger_facts(l, &facts);
    fc_ledger_spent(l, &spent);
    printf("%-16s  %9s %10s %10s  %12s %12s %12s\n", "mechanism", "each", "documents", "units",
           "pure", "zCDP", "least");
    for (size_t i = 0; i < facts.n_mechanisms; i++) {
        struct fc_ledger_share share;
        fc_ledger_share(l, i, &share);
        sodium_bin2hex(hex, sizeof hex, share.hash, sizeof share.hash);
        print_line(hex, share.epsilon, share.documents, &share.spent);
    }
    print_line("in all", 0, facts.documents, &spent);
    printf("\nzCDP rho %s; zCDP and least at delta %g; ", fc_format_up(rho, spent.rho, 4),
           spent.delta);
    if (budget.epsilon > 0)
        printf("budget %g%s\n", budget.epsilon, budget.delta > 0 ? "" : " (pure)");
    else
        puts("no budget");
    sodium_bin2hex(hex, sizeof hex, facts.head, sizeof facts.head);
    printf("%zu records, version %zu, head %s\n", facts.records, facts.version, hex);
    if (facts.torn)
        printf("%zu bytes of an unfinished record, never sent: the next job drops them\n",
               facts.torn);
    if (facts.version == 1)
        puts("version 1 has no chain: what was changed on purpose does not show; the next job "
             "begins one");
    else if (!facts.in_place)
        puts("this is a copy: jobs refuse it until --moved accepts it");
}

enum fc_code fc_cmd_ledger(int argc, char **argv, struct fc_error *err)
{
    struct ledger_flags flags;
    struct fc_options options = {0};
    struct fc_ledger *ledger = NULL;
    enum fc_code code = fc_options_parse(&options, &spec, &flags, argc, argv, err);
    if (code != FC_OK || options.done)
        goto cleanup;
    if (options.n_arguments != 1) {
        code = fc_fail(err, FC_ERR_USAGE, "expected one FILE, the ledger, found %zu",
                       options.n_arguments);
        goto cleanup;
    }
    const char *path = options.arguments[0];
    if (flags.moved)
        code = fc_ledger_moved(path, flags.head, err);
    if (code == FC_OK)
        code = fc_ledger_look(&ledger, path, err);
    if (code == FC_OK && flags.head)
        code = fc_ledger_compare(ledger, flags.head, err);
    if (code == FC_OK && options.json)
        code = fc_print_summary(&options, summarize(ledger, path, err), err);
    else if (code == FC_OK)
        print_table(ledger);
cleanup:
    fc_ledger_close(ledger);
    fc_options_free(&options);
    return code;
}
