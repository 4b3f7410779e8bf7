#define _DEFAULT_SOURCE /* NSIG */
#include "cli/signals.h"

#include <signal.h>
#include <stddef.h>

/* A signal handler has no other way to speak to its program: the only globals of this kind. */
static atomic_int stop_requested;
static atomic_int requested[NSIG];

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stop_requested, 1);
}

void fc_signals_catch(void)
{
    struct sigaction action = {.sa_handler = on_signal,
                               .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void on_request(int number)
{
    atomic_store(&requested[number], 1);
}

void fc_signals_catch_request(int number)
{
    struct sigaction action = {.sa_handler = on_request, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

bool fc_signals_take(int number)
{
    return atomic_exchange(&requested[number], 0) != 0;
}

const atomic_int *fc_signals_flag(void)
{
    return &stop_requested;
}

bool fc_signals_stop(void)
{
    return atomic_load(&stop_requested) != 0;
}

enum fc_code fc_signals_check(struct fc_error *err)
{
    return fc_signals_stop() ? fc_fail(err, FC_ERR_CANCELLED, "stopped by a signal") : FC_OK;
}
