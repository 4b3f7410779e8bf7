#define _POSIX_C_SOURCE 200809L /* chmod, time */
#include "net/results.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/utf8.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define NAME "answers.log"
#define RETRY 30.0              /* seconds until a disk that failed is tried again */
#define LAZY 1.0                /* seconds that what is forgotten may wait for the disk */
#define SLACK ((size_t)1 << 20) /* of dead records, before a rewrite is worth it */
#define BEFORE_TEXT 90          /* bytes of an ANSWER */

#define SECONDS_PER_DAY 86400

enum record { MODEL = 1, ANSWER = 2, FORGET = 3, SPENT = 4 };

static void say(struct fc_results *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void say(struct fc_results *r, const char *format, ...)
{
    char text[FC_ERROR_SIZE + 200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (r->options.notice)
        r->options.notice(r->options.context, text);
}

/* ---- records ---- */

static void add64(struct fc_text *t, uint64_t v)
{
    char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (char)(unsigned char)(v >> (8 * i));
    fc_text_add(t, bytes, 8);
}

static uint64_t read64(const unsigned char *p)
{
    uint64_t v = 0;
    for (int i = 8; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

static void begin_record(struct fc_text *t, enum record kind, const struct fc_item *item)
{
    char byte = (char)kind;
    fc_text_clear(t);
    fc_text_add(t, &byte, 1);
    if (!item)
        return;
    fc_text_add(t, (const char *)item->job->id, FC_JOB_ID_SIZE);
    add64(t, item->index);
}

static void answer_record(struct fc_text *t, const struct fc_item *item)
{
    char finish = (char)item->finish;
    begin_record(t, ANSWER, item);
    fc_text_add(t, (const char *)item->digest, FC_DIGEST_SIZE);
    fc_text_add(t, (const char *)item->job->owner.key, FC_KEY_SIZE);
    add64(t, item->n_tokens);
    add64(t, (uint64_t)item->when);
    fc_text_add(t, &finish, 1);
    fc_text_add(t, item->text, item->n_text);
}

static void spent_record(struct fc_text *t, const struct fc_party *p)
{
    begin_record(t, SPENT, NULL);
    fc_text_add(t, (const char *)p->key, FC_KEY_SIZE);
    add64(t, (uint64_t)p->day);
    add64(t, p->tokens - p->reserved);
}

static enum fc_code append(struct fc_results *r, struct fc_log *log, struct fc_error *err)
{
    enum fc_code code = fc_text_check(&r->payload, err);
    r->payload.failed = 0;
    return code == FC_OK ? fc_log_append(log, r->payload.data, r->payload.len, err) : code;
}

static size_t record_bytes(const struct fc_item *item)
{
    return FC_LOG_RECORD_HEAD + BEFORE_TEXT + item->n_text;
}

/* ---- reading back ---- */

struct reading {
    struct fc_results *results;
    bool begun; /* the model's record was read */
    int64_t now;
    size_t left_out;
};

static struct fc_job *job_of(struct fc_jobs *t, const unsigned char *id, const unsigned char *key)
{
    struct fc_job *job = fc_job_find(t, id);
    if (job)
        return job;
    job = fc_job_add(t, id);
    if (job) {
        job->orphan = true;
        job->contact = fc_now();
        memcpy(job->owner.key, key, FC_KEY_SIZE);
    }
    return job;
}

static bool is_old(const struct reading *x, int64_t when)
{
    return when < x->now && (double)x->now - (double)when > x->results->options.max_age;
}

static enum fc_code restore(struct reading *x, const unsigned char *p, size_t len,
                            struct fc_error *err)
{
    struct fc_jobs *t = x->results->table;
    const char *text = (const char *)p + BEFORE_TEXT;
    size_t n_text = len - BEFORE_TEXT;
    int64_t when = (int64_t)read64(p + 81);
    unsigned finish = p[89];
    uint64_t index = read64(p + 17);
    if (finish >= FC_ANSWER_FINISHES || n_text > FC_MAX_TEXT || index > FC_MAX_INDEX ||
        fc_utf8_prefix(text, n_text) != n_text)
        return fc_fail(err, FC_ERR_INPUT, "an answer that this program cannot have written");
    struct fc_job *job = is_old(x, when) ? NULL : job_of(t, p + 1, p + 41);
    struct fc_item *item = job ? fc_item_find(t, job, index) : NULL;
    if (item) /* the later one holds */
        fc_item_remove(t, item);
    if (!job || !t->count[FC_ITEM_FREE] || t->bytes + n_text > x->results->options.max_text_bytes) {
        x->left_out++;
        return FC_OK;
    }
    char *copy = fc_strndup(text, n_text, err);
    item = copy ? fc_item_add(t, job, index, "", 0, NULL, err) : NULL;
    if (!item) {
        free(copy);
        return FC_ERR_MEMORY;
    }
    memcpy(item->digest, p + 25, FC_DIGEST_SIZE);
    item->claimed = false;
    item->when = when;
    item->kept = FC_LOG_RECORD_HEAD + len;
    fc_item_finish(t, item, copy, n_text, (size_t)read64(p + 73), (enum fc_answer_finish)finish);
    return FC_OK;
}

static enum fc_code check_model(struct reading *x, const unsigned char *p, size_t len,
                                struct fc_error *err)
{
    const char *model = x->results->options.model;
    x->begun = true;
    if (len - 1 != strlen(model) || memcmp(p + 1, model, len - 1) != 0)
        return fc_fail(err, FC_ERR_INPUT,
                       "the folder keeps answers of another model or instruction: start the server "
                       "with those, or choose another folder");
    return FC_OK;
}

static enum fc_code read_record(void *context, const void *payload, size_t len,
                                struct fc_error *err)
{
    struct reading *x = context;
    struct fc_jobs *t = x->results->table;
    const unsigned char *p = payload;
    if (p[0] == MODEL)
        return check_model(x, p, len, err);
    if (x->begun && p[0] == ANSWER && len >= BEFORE_TEXT)
        return restore(x, p, len, err);
    if (x->begun && p[0] == SPENT && len == 49) {
        int64_t day = (int64_t)read64(p + 33);
        if (day == x->now / SECONDS_PER_DAY)
            fc_party_restore(x->results->admission, t, p + 1, day, read64(p + 41));
        return FC_OK;
    }
    if (!x->begun || p[0] != FORGET || len != 25)
        return fc_fail(err, FC_ERR_INPUT, "a record that this program cannot have written");
    struct fc_job *job = fc_job_find(t, p + 1);
    struct fc_item *item = job ? fc_item_find(t, job, read64(p + 17)) : NULL;
    if (item)
        fc_item_remove(t, item);
    return FC_OK;
}

/* Jobs all of whose answers were forgotten hold no place. Sets what lives on disk. */
static void settle(struct fc_results *r)
{
    struct fc_jobs *t = r->table;
    r->live = 0;
    for (size_t i = 0; i < t->max_jobs; i++)
        if (t->jobs[i].used && !t->jobs[i].n_items)
            fc_job_remove(t, &t->jobs[i]);
    for (size_t i = 0; i < t->max_items; i++)
        if (t->items[i].state == FC_ITEM_DONE)
            r->live += t->items[i].kept;
}

/* ---- rewriting ---- */

/* What clients have spent, or (only_unsaved) have spent since the last time. */
static enum fc_code write_spent(struct fc_results *r, struct fc_log *log, bool only_unsaved,
                                struct fc_error *err)
{
    struct fc_admission *a = r->admission;
    enum fc_code code = FC_OK;
    for (size_t i = 0; i < a->n && a->parties[i].used && code == FC_OK; i++) {
        struct fc_party *p = &a->parties[i];
        if (!p->named || p->tokens == p->reserved || (only_unsaved && !p->unsaved))
            continue;
        spent_record(&r->payload, p);
        code = append(r, log, err);
        p->unsaved = false;
    }
    return code;
}

/* The model, the budgets, and every answer that the table holds, as long as they fit. */
static enum fc_code write_table(void *context, struct fc_log *log, struct fc_error *err)
{
    struct fc_results *r = context;
    struct fc_jobs *t = r->table;
    begin_record(&r->payload, MODEL, NULL);
    fc_text_puts(&r->payload, r->options.model);
    enum fc_code code = append(r, log, err);
    if (code == FC_OK)
        code = write_spent(r, log, false, err);
    r->live = 0;
    for (size_t i = 0; i < t->max_items && code == FC_OK; i++) {
        struct fc_item *item = &t->items[i];
        item->kept = 0;
        if (item->state != FC_ITEM_DONE ||
            fc_log_bytes(log) + record_bytes(item) > r->options.max_bytes)
            continue;
        answer_record(&r->payload, item);
        code = append(r, log, err);
        item->kept = record_bytes(item);
        r->live += item->kept;
    }
    return code;
}

static void fail(struct fc_results *r, const char *why)
{
    if (!r->failing)
        say(r,
            "%s; the server goes on: answers that are not on disk would be generated again after a "
            "crash (trying again every %.0f s)",
            why, RETRY);
    r->failing = true;
    r->answers_wait = false;
    r->again = fc_now() + RETRY;
}

static void rewrite(struct fc_results *r)
{
    struct fc_error why = {0};
    if (fc_log_rewrite(r->log, write_table, r, &why) != FC_OK) {
        fail(r, why.text);
        return;
    }
    if (r->failing)
        say(r, "answers are kept on disk again");
    r->failing = r->answers_wait = false;
}

static bool rewrite_is_worth(const struct fc_results *r, size_t slack)
{
    return fc_log_bytes(r->log) > 2 * r->live + slack;
}

/* ---- the server's calls ---- */

void fc_results_add(struct fc_results *r, struct fc_item *item)
{
    struct fc_error why = {0};
    item->when = (int64_t)time(NULL);
    if (!r->log || r->failing)
        return;
    size_t bytes = record_bytes(item);
    if (fc_log_bytes(r->log) + bytes > r->options.max_bytes && rewrite_is_worth(r, SLACK / 16)) {
        rewrite(r); /* with this one */
        return;
    }
    bool fits = fc_log_bytes(r->log) + bytes <= r->options.max_bytes;
    if (!fits && !r->full)
        say(r,
            "the answers on disk have reached %zu bytes (--state-bytes): further ones are kept in "
            "memory only, until clients have taken theirs",
            r->options.max_bytes);
    r->full = !fits;
    if (!fits)
        return;
    answer_record(&r->payload, item);
    if (append(r, r->log, &why) != FC_OK) {
        fail(r, why.text);
        return;
    }
    item->kept = bytes;
    r->live += bytes;
    r->answers_wait = true;
}

void fc_results_forget(struct fc_results *r, struct fc_item *item)
{
    struct fc_error why = {0};
    if (!r->log || r->failing || !item->kept)
        return;
    r->live -= item->kept;
    item->kept = 0;
    begin_record(&r->payload, FORGET, item);
    if (append(r, r->log, &why) != FC_OK)
        fail(r, why.text);
}

void fc_results_sync(struct fc_results *r, double now)
{
    struct fc_error why = {0};
    if (!r->log || (!r->answers_wait && now < r->again))
        return;
    r->again = now + LAZY;
    if (r->failing || rewrite_is_worth(r, SLACK)) {
        rewrite(r);
        return;
    }
    r->answers_wait = false;
    if (write_spent(r, r->log, true, &why) != FC_OK || fc_log_sync(r->log, &why) != FC_OK)
        fail(r, why.text);
}

size_t fc_results_bytes(const struct fc_results *r)
{
    return r->log ? fc_log_bytes(r->log) : 0;
}

/* ---- life ---- */

static enum fc_code make_folder(const char *path, struct fc_error *err)
{
    if (fc_is_folder(path))
        return FC_OK;
    enum fc_code code = fc_make_folder(path, err);
    if (code == FC_OK && chmod(path, 0700) != 0)
        code = fc_fail(err, FC_ERR_IO, "%s: cannot make it private", path);
    return code;
}

enum fc_code fc_results_open(struct fc_results *r, const struct fc_results_options *options,
                             struct fc_jobs *table, struct fc_admission *admission,
                             struct fc_error *err)
{
    *r = (struct fc_results){.options = *options, .table = table, .admission = admission};
    if (!options->folder)
        return FC_OK;
    struct reading x = {.results = r, .now = (int64_t)time(NULL)};
    size_t dropped = 0;
    /* A log that was full under a larger bound is read all the same, and rewritten below. */
    enum fc_code code = make_folder(options->folder, err);
    if (code == FC_OK)
        code =
            fc_log_open(&r->log, options->folder, NAME, SIZE_MAX, read_record, &x, &dropped, err);
    if (code != FC_OK)
        return code;
    settle(r);
    size_t answers = table->count[FC_ITEM_DONE];
    if (dropped)
        say(r, "%s/" NAME ": dropped %zu bytes at the end that are no whole records",
            options->folder, dropped);
    if (x.left_out)
        say(r, "%s/" NAME ": left out %zu answers that are too old or have no place",
            options->folder, x.left_out);
    if (answers)
        say(r, "%s: took up %zu finished answers", options->folder, answers);
    return fc_log_rewrite(r->log, write_table, r, err);
}

void fc_results_close(struct fc_results *r)
{
    struct fc_error ignored = {0};
    if (r->log && !r->failing && write_spent(r, r->log, true, &ignored) == FC_OK)
        fc_log_sync(r->log, &ignored);
    fc_log_close(r->log);
    fc_text_free(&r->payload);
    *r = (struct fc_results){0};
}
