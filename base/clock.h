/* Monotonic time in seconds: for rates, deadlines and progress; unrelated to the wall clock. */
#ifndef FC_BASE_CLOCK_H
#define FC_BASE_CLOCK_H

double fc_now(void);

/* Sleeps at least `seconds`, unless a signal comes first. */
void fc_sleep(double seconds);

#endif
