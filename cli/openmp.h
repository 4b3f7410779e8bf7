/* How threads of a parallel loop wait for each other. */
#ifndef FC_CLI_OPENMP_H
#define FC_CLI_OPENMP_H

/* First thing in main. GNU OpenMP's threads spin for about 100 ms at the end of every loop, which
 * is free when a program has the cores to itself and ruins it otherwise: a client's decode stage
 * and its training, or a client and a server on one machine, stop each other for whole time slices
 * (measured: 5 to 50 times slower). Unless the user set GOMP_SPINCOUNT or OMP_WAIT_POLICY, this
 * starts the program again with a short spin. The variable is read when the library is loaded,
 * before main, so it cannot be set any later; the cost is one exec, under a millisecond.
 *
 * Measured on 2 cores, tokens/s of a training and a generating program side by side: 202 and 181
 * with the spin that is set here, 223 and 257 with GOMP_SPINCOUNT=100; alone, generation makes 511
 * and 400. So the default is for a program that has its cores, and whoever shares them sets 100. */
void fc_openmp_settle(char **argv);

#endif
