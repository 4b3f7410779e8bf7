/* What the CUDA kernels touch, counted by the simulator: 32-byte sectors against each kernel's
 * floor, conflicts in shared memory, bytes of local memory. The same figures on any machine.
 *
 * The simulator writes its counts when a process ends, so every row runs in a process of its own:
 * this program again, with the row's number in ROW_VARIABLE. */
#define _POSIX_C_SOURCE 200809L

#include "base/file.h"
#include "base/json.h"
#include "bench/bench.h"
#include "bench/counters.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROW_VARIABLE "FEDCOT_BENCH_COUNTER"
#define STATS_VARIABLE "PTXSIM_STATS"

enum { SECTOR = 32, MOST_STATISTICS = 1 << 20 };

extern char **environ;

/* Sums over the kernels of a row. */
struct counts {
    double launches, sectors, conflicts, requests, local_bytes;
};

static double number(const cJSON *line, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(line, name);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

static void add_line(struct counts *c, const cJSON *line, const char *only)
{
    const char *kernel = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "kernel"));
    if (only && !(kernel && strstr(kernel, only)))
        return;
    c->launches += number(line, "launches");
    c->sectors += number(line, "gld_sectors") + number(line, "gst_sectors") +
                  number(line, "cpasync_sectors") + number(line, "tma_sectors");
    c->conflicts += number(line, "shared_ld_extra") + number(line, "shared_st_extra");
    c->requests += number(line, "shared_ld_requests") + number(line, "shared_st_requests");
    c->local_bytes += number(line, "local_ld_bytes") + number(line, "local_st_bytes");
}

static enum fc_code read_counts(const char *path, const char *only, struct counts *c,
                                struct fc_error *err)
{
    char *text = NULL;
    size_t len = 0;
    enum fc_code code = fc_file_read(path, MOST_STATISTICS, &text, &len, err);
    for (char *at = text; code == FC_OK && at && *at;) {
        size_t n = strcspn(at, "\n");
        cJSON *line = fc_json_parse(at, n, "the simulator's statistics", err);
        if (line)
            add_line(c, line, only);
        else
            code = err->code;
        cJSON_Delete(line);
        at += n + (at[n] == '\n');
    }
    free(text);
    if (code == FC_OK && c->launches == 0)
        code = fc_fail(err, FC_ERR_UNSUPPORTED,
                       "counters: no kernel was counted; the case needs the simulator's libraries "
                       "first in LD_LIBRARY_PATH");
    return code;
}

/* Runs this program for one row; its statistics go to `path`. */
static enum fc_code spawn_row(size_t row, const char *path, struct fc_error *err)
{
    char text[32];
    char *arguments[] = {"fedcot-bench", "--device", "cuda", "counters", NULL};
    posix_spawn_file_actions_t quiet; /* the child prints this case's title too */
    pid_t child;
    int status = 0;
    (void)snprintf(text, sizeof text, "%zu", row);
    if (setenv(ROW_VARIABLE, text, 1) != 0 || setenv(STATS_VARIABLE, path, 1) != 0 ||
        setenv("PTXSIM_THREADS", "1", 1) != 0)
        return fc_fail(err, FC_ERR_MEMORY, "counters: out of memory");
    int failed = posix_spawn_file_actions_init(&quiet);
    if (!failed) {
        failed = posix_spawn_file_actions_addopen(&quiet, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        if (!failed)
            failed = posix_spawn(&child, "/proc/self/exe", &quiet, NULL, arguments, environ);
        (void)posix_spawn_file_actions_destroy(&quiet);
    }
    (void)unsetenv(ROW_VARIABLE);
    (void)unsetenv(STATS_VARIABLE);
    if (failed)
        return fc_fail(err, FC_ERR_IO, "counters: this program could not be started again: %s",
                       strerror(failed));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return fc_fail(err, FC_ERR_IO, "counters: waitpid: %s", strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fc_fail(err, FC_ERR_UNSUPPORTED,
                       "counters: %s ended with status %d, see above; the case needs a build with "
                       "CUDA and the simulator's libraries first in LD_LIBRARY_PATH",
                       fc_counter_rows[row].name,
                       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return FC_OK;
}

static enum fc_code measure_row(size_t row, struct counts *c, struct fc_error *err)
{
    char path[] = "/tmp/fedcot-counters-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0)
        return fc_fail(err, FC_ERR_IO, "%s: %s", path, strerror(errno));
    (void)close(fd);
    enum fc_code code = spawn_row(row, path, err);
    if (code == FC_OK)
        code = read_counts(path, fc_counter_rows[row].only, c, err);
    (void)unlink(path);
    return code;
}

static enum fc_code add_result(cJSON *results, const struct fc_counter_row *r, double ratio,
                               const struct counts *c, struct fc_error *err)
{
    cJSON *o = cJSON_CreateObject();
    if (!o || !cJSON_AddStringToObject(o, "name", r->name) ||
        !cJSON_AddStringToObject(o, "shape", r->shape) ||
        !cJSON_AddNumberToObject(o, "sectors", c->sectors) ||
        !cJSON_AddNumberToObject(o, "times_floor", ratio) ||
        !cJSON_AddNumberToObject(o, "conflicts", c->conflicts) ||
        !cJSON_AddNumberToObject(o, "local_bytes", c->local_bytes) ||
        !cJSON_AddItemToArray(results, o)) {
        cJSON_Delete(o);
        return fc_fail(err, FC_ERR_MEMORY, "results: out of memory");
    }
    return FC_OK;
}

/* The child: the row of that number on the device. */
static enum fc_code run_row(struct fc_bench_context *context, const char *number_of_row,
                            struct fc_error *err)
{
    struct fc_counter_job job = {.k = context->dev.k, .s = context->dev.stream};
    unsigned long wanted = strtoul(number_of_row, NULL, 10), row = 0;
    while (row < wanted && fc_counter_rows[row].name)
        row++;
    if (!fc_counter_rows[row].name)
        return fc_fail(err, FC_ERR_USAGE, "%s: no row %s", ROW_VARIABLE, number_of_row);
    fc_counter_rows[row].run(&job);
    if (job.err.code == FC_OK)
        return job.k->sync(job.s, err);
    return fc_fail(err, job.err.code, "%s", job.err.text);
}

/* Prints a row; false when it passes its limit. */
static bool print_row(const struct fc_counter_row *r, double least, const struct counts *c,
                      double ratio)
{
    bool fits = (r->limit == 0 || ratio <= r->limit) && c->local_bytes == 0;
    char limit[16] = "-";
    if (r->limit > 0)
        (void)snprintf(limit, sizeof limit, "%.2f", r->limit);
    printf("%-19s %-36s %9.1f %6.3f %6s %9.0f %9.0f %6.0f%s\n", r->name, r->shape, least / 1024,
           ratio, limit, c->requests, c->conflicts, c->local_bytes, fits ? "" : "  OVER");
    fflush(stdout);
    return fits;
}

enum fc_code fc_case_counters(struct fc_bench_context *context, struct fc_error *err)
{
    const char *own = getenv(ROW_VARIABLE);
    if (own)
        return run_row(context, own, err);
    size_t over = 0;
    printf("%-19s %-36s %9s %6s %6s %9s %9s %6s\n", "entry", "shape", "KiB floor", "times", "limit",
           "shared", "conflicts", "local");
    for (size_t i = 0; fc_counter_rows[i].name; i++) {
        const struct fc_counter_row *r = &fc_counter_rows[i];
        struct fc_counter_job dry = {0};
        struct counts c = {0};
        r->run(&dry);
        enum fc_code code = measure_row(i, &c, err);
        if (code != FC_OK)
            return code;
        double ratio = c.sectors * SECTOR / dry.floor;
        over += !print_row(r, dry.floor, &c, ratio);
        code = add_result(context->results, r, ratio, &c, err);
        if (code != FC_OK)
            return code;
    }
    if (over)
        return fc_fail(err, FC_ERR_INTERNAL,
                       "counters: %zu rows are over their limit or use local memory", over);
    return FC_OK;
}
