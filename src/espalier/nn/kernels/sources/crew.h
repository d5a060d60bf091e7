/* A few threads that work on one call together and meet between its parts. Knows no work. */
#ifndef ESPALIER_CREW_H
#define ESPALIER_CREW_H

/* Run work(what, number, count) on the caller as number 0 and on count - 1 others; returns when all are done. Alone
 * where threads cannot be had or another caller has them. */
void espalier_together(void (*work)(void *what, int number, int count), void *what, int count);

/* Inside `work`: go on when everybody of the `count` has come here. */
void espalier_meet(int count);

#endif
