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
    /* Names from hostile files are among the arguments: no escape code reaches a terminal. */
    for (char *p = err->text; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127)
            *p = '?';
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
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    /* The end of the text gives way: what follows the colon is cut to fit. */
    size_t used = strlen(err->text), room = sizeof err->text - used;
    if (room > 3) {
        memcpy(err->text + used, ": ", 2);
        size_t len = strlen(old) < room - 3 ? strlen(old) : room - 3;
        memcpy(err->text + used + 2, old, len);
        err->text[used + 2 + len] = '\0';
    }
    return err->code;
}

const char *fc_code_name(enum fc_code code)
{
    static const char *const names[] = {"ok",      "internal", "usage", "input",       "budget",
                                        "network", "memory",   "io",    "unsupported", "cancelled"};
    return (size_t)code < sizeof names / sizeof names[0] ? names[code] : "unknown";
}
