#define _POSIX_C_SOURCE 200809L
#include "cli/openmp.h"

#include <stdlib.h>
#include <unistd.h>

/* A few microseconds: longer than a loop's threads differ, shorter than a time slice by far. */
#define SPIN_COUNT "2000"

void fc_openmp_settle(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY"))
        return;
    if (setenv("GOMP_SPINCOUNT", SPIN_COUNT, 1) == 0)
        execv("/proc/self/exe", argv);
    /* No /proc: slower beside other programs, nothing worse. */
}
