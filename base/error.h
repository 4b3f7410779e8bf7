/* Errors: every fallible function returns an fc_code and fills a struct fc_error.
 *
 * The code says what kind of thing went wrong, so that a program can choose its exit status; the
 * message says what was expected, what was found and what to do about it. Library functions never
 * print and never exit: only programs do. */
#ifndef FC_BASE_ERROR_H
#define FC_BASE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* Codes are also the exit statuses of the programs (cli/), so their values are part of the
 * interface and never change. */
enum fc_code {
    FC_OK = 0,
    FC_ERR_INTERNAL = 1,    /* a bug of ours, or a library refused what it should take */
    FC_ERR_USAGE = 2,       /* flags or configuration that cannot be meant */
    FC_ERR_INPUT = 3,       /* a file or message that is not what it claims to be */
    FC_ERR_BUDGET = 4,      /* the privacy budget does not cover what was asked */
    FC_ERR_NETWORK = 5,     /* no connection, or the peer stopped answering in time */
    FC_ERR_MEMORY = 6,      /* out of memory (host or device) */
    FC_ERR_IO = 7,          /* the operating system refused to read or write */
    FC_ERR_UNSUPPORTED = 8, /* well formed, but this build or model family cannot do it */
    FC_ERR_CANCELLED = 9    /* stopped by a signal or by fc_pipeline_cancel */
};

#define FC_ERROR_SIZE 512

/* The first error wins: fc_fail leaves an already filled error alone, so cleanup code may fail
 * again without hiding the cause. Zero-initialise before use: `struct fc_error err = {0};`. */
struct fc_error {
    enum fc_code code;
    char text[FC_ERROR_SIZE];
};

/* Fills *err (which may be NULL) unless it already holds an error; returns `code`, so that
 * `return fc_fail(err, FC_ERR_INPUT, ...)` reads as one step. The text is cut at FC_ERROR_SIZE.
 * Never pass private text (prompts, labels, keys) as an argument: errors reach logs. */
enum fc_code fc_fail(struct fc_error *err, enum fc_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prepends "prefix: " to the text of a filled error, to say in which file or stage it happened.
 * Returns err's code, FC_OK if err is NULL or holds none. */
enum fc_code fc_error_prefix(struct fc_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A short lower-case name of the code: "usage", "input", ... Static storage. */
const char *fc_code_name(enum fc_code code);

#ifdef __cplusplus
}
#endif

#endif
