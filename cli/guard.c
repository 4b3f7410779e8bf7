#define _GNU_SOURCE
#include "cli/guard.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define LEAKS_ARE_CHECKED 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define LEAKS_ARE_CHECKED 1
#endif

enum fc_code fc_guard(struct fc_error *err)
{
    const struct rlimit none = {0, 0};
    umask(077);
    if (setrlimit(RLIMIT_CORE, &none) != 0)
        return fc_fail(err, FC_ERR_INTERNAL, "cannot forbid core files: %s", strerror(errno));
#ifndef LEAKS_ARE_CHECKED
    /* The limit alone does not stop a core that goes to a pipe (core(5)). */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return fc_fail(err, FC_ERR_INTERNAL, "cannot close the memory to other processes: %s",
                       strerror(errno));
#endif
    return FC_OK;
}
