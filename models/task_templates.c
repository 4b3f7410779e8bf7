/* The default texts of the method, and files that replace them. docs/templates.md has the
 * measurements behind the choice. */
#include "base/json.h"
#include "models/template.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { TEMPLATE_FILE_LIMIT = 1 << 20 };

/* The two that stay on the client and are trained on are short: what they say, training replaces.
 * The server's ends in a place to continue, and shows by examples what is wanted, because a small
 * language model follows examples better than orders; the examples cost little, as the server
 * computes this common beginning once. Their questions are broken on purpose, like perturbed ones.
 */
static const char choice_instruct[] =
    "Some words of each question were replaced by similar or random words. Work out what the "
    "question is probably about, and explain in one or two short sentences which answer fits and "
    "why. Do not mention the replaced words.\n"
    "\n"
    "Question: Where would you put a plates after cleaning it ? cupboard , garden , office , "
    "river\n"
    "Explanation: Clean dishes are stored in the kitchen until they are needed again. A cupboard "
    "is where dishes are kept, so the answer is cupboard.\n"
    "\n"
    "Question: The boy was tired because them had run all morning, what should he did ? sleep , "
    "shout , drive , purple\n"
    "Explanation: Running for a long time uses up energy, and a tired person needs rest. Sleeping "
    "gives rest, so the answer is sleep.\n"
    "\n"
    "Question: Which of those plant needs least waters in summer ? rose , cactus , lettuce\n"
    "Explanation: A cactus grows in dry places and keeps water in its thick stem. It can live "
    "without rain for a long time, so the answer is cactus.\n"
    "\n"
    "Question: {{perturbed}}\n"
    "Explanation:";

static const char free_instruct[] =
    "Some words of each problem were replaced by similar or random words. Work out what the "
    "problem probably is, and explain in a few short sentences, step by step, how to solve it.\n"
    "\n"
    "Problem: Anna have 12 apples and gives 5 to his brothers. How much pears are left ?\n"
    "Explanation: Anna starts with 12 apples. She gives away 5, so 12 - 5 = 7 are left. The answer "
    "is 7.\n"
    "\n"
    "Problem: A trains drives 60 mile in one hours. Which far does it drives in 3 week ?\n"
    "Explanation: The train goes 60 miles in each hour. In 3 hours it goes 3 x 60 = 180 miles. The "
    "answer is 180.\n"
    "\n"
    "Problem: {{perturbed}}\n"
    "Explanation:";

static const char choice_decode[] =
    "Someone explained a question without having seen it clearly: some of its words had been "
    "replaced by others, so the first explanation may be about something else. Write a short "
    "explanation that fits the real question, and use what is right in the first one.\n"
    "\n"
    "Real question: Where do you keep plates after washing them?\n"
    "Choices: cupboard, garden, office\n"
    "Replaced question: Where do us hold bowls before wash him ? shelf , lawn , desk\n"
    "First explanation: Bowls are held on a shelf so that they stay dry. The answer is shelf.\n"
    "Explanation: Plates are put away in the kitchen so that they stay clean and dry. A cupboard "
    "is where plates are kept, so the answer is cupboard.\n"
    "\n"
    "Real question: {{question}}\n"
    "Choices: {{choices}}\n"
    "Replaced question: {{perturbed}}\n"
    "First explanation: {{rationale}}\n"
    "Explanation:";

static const char free_decode[] =
    "Someone explained a problem without having seen it clearly: some of its words and numbers had "
    "been replaced by others. Write a short explanation that solves the real problem, and use what "
    "is right in the first one.\n"
    "\n"
    "Real problem: Anna has 12 apples and gives 5 to her brother. How many apples are left?\n"
    "Replaced problem: Mary have 15 pears but gave 4 for his sister . How much pear is left ?\n"
    "First explanation: Mary starts with 15 pears and gives 4 away, so 15 - 4 = 11 are left.\n"
    "Explanation: Anna starts with 12 apples and gives 5 away, so 12 - 5 = 7 are left. The answer "
    "is 7.\n"
    "\n"
    "Real problem: {{question}}\n"
    "Replaced problem: {{perturbed}}\n"
    "First explanation: {{rationale}}\n"
    "Explanation:";

static const char *const example_fields[] = {"question", "choices"};
static const char *const instruct_fields[] = {"perturbed"};
static const char *const decode_fields[] = {"question", "choices", "perturbed", "rationale"};

#define FIELDS(list) list, sizeof(list) / sizeof(list)[0]

static const struct text {
    const char *name;
    size_t offset; /* of the compiled template in struct fc_task_templates */
    const char *const *fields;
    size_t n_fields;
    size_t needed; /* the field without which the text would say the same of every example */
    const char *choice, *free;
} texts[] = {
    {"perturb", offsetof(struct fc_task_templates, perturb), FIELDS(example_fields), 0,
     "{{question}} {{choices}}", "{{question}}"},
    {"instruct", offsetof(struct fc_task_templates, instruct), FIELDS(instruct_fields), 0,
     choice_instruct, free_instruct},
    {"decode", offsetof(struct fc_task_templates, decode), FIELDS(decode_fields), 3, choice_decode,
     free_decode},
    {"predict", offsetof(struct fc_task_templates, predict), FIELDS(example_fields), 0,
     "Q: {{question}}\nA:", "Q: {{question}}\nA:"},
    {"explain", offsetof(struct fc_task_templates, explain), FIELDS(example_fields), 0,
     "Q: {{question}}\nExplanation:", "Q: {{question}}\nExplanation:"},
};

enum { N_TEXTS = sizeof texts / sizeof texts[0] };

static struct fc_template **slot(struct fc_task_templates *t, const struct text *text)
{
    return (struct fc_template **)(void *)((char *)t + text->offset);
}

static enum fc_code check_keys(const cJSON *object, const char *file, struct fc_error *err)
{
    if (!cJSON_IsObject(object))
        return fc_fail(err, FC_ERR_INPUT, "%s: expected a JSON object of texts", file);
    const cJSON *item;
    cJSON_ArrayForEach(item, object)
    {
        size_t i = 0;
        while (i < N_TEXTS && strcmp(texts[i].name, item->string) != 0)
            i++;
        if (i == N_TEXTS)
            return fc_fail(
                err, FC_ERR_INPUT,
                "%s: unknown text \"%.40s\", expected perturb, instruct, decode, predict "
                "or explain",
                file, item->string);
    }
    return FC_OK;
}

static enum fc_code compile(struct fc_task_templates *t, const struct text *text,
                            const char *source, const char *file, struct fc_error *err)
{
    char where[320];
    snprintf(where, sizeof where, "%.280s: %s", file ? file : "built-in templates", text->name);
    enum fc_code code =
        fc_template_compile(slot(t, text), source, where, text->fields, text->n_fields, err);
    if (code == FC_OK && !fc_template_uses(*slot(t, text), text->needed))
        code = fc_fail(err, FC_ERR_INPUT, "%s: does not name {{%s}}", where,
                       text->fields[text->needed]);
    return code;
}

enum fc_code fc_task_templates_open(struct fc_task_templates *t, bool multiple_choice,
                                    const char *file, struct fc_error *err)
{
    *t = (struct fc_task_templates){0};
    cJSON *own = NULL;
    enum fc_code code = FC_OK;
    if (file) {
        struct fc_error why = {0};
        own = fc_json_read_file(file, TEMPLATE_FILE_LIMIT, &why);
        code = own ? check_keys(own, file, err) : fc_fail(err, why.code, "%s", why.text);
    }
    for (size_t i = 0; i < N_TEXTS && code == FC_OK; i++) {
        const char *given = NULL;
        if (own)
            code = fc_json_string(own, texts[i].name, false, &given, file, err);
        const char *source = given ? given : multiple_choice ? texts[i].choice : texts[i].free;
        if (code == FC_OK)
            code = compile(t, &texts[i], source, given ? file : NULL, err);
    }
    cJSON_Delete(own);
    if (code != FC_OK)
        fc_task_templates_free(t);
    return code;
}

void fc_task_templates_free(struct fc_task_templates *t)
{
    for (size_t i = 0; i < N_TEXTS; i++)
        fc_template_free(*slot(t, &texts[i]));
    *t = (struct fc_task_templates){0};
}
