#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum fc_code fc_fail(struct fc_error *err, enum fc_code code, const char *format, ...)
{
    if (!err || err->code != FC_OK)
        return code;
    err->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    return code;
}

enum fc_code fc_error_prefix(struct fc_error *err, const char *format, ...)
{
    if (!err || err->code == FC_OK)
        return FC_OK;
    char old[FC_ERROR_SIZE];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    int used = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof err->text)
        snprintf(err->text + used, sizeof err->text - (size_t)used, ": %s", old);
    return err->code;
}

const char *fc_code_name(enum fc_code code)
{
    static const char *const names[] = {"ok",      "internal", "usage", "input",       "budget",
                                        "network", "memory",   "io",    "unsupported", "cancelled"};
    return (size_t)code < sizeof names / sizeof names[0] ? names[code] : "unknown";
}
