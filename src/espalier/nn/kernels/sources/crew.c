/* See crew.h. Threads are made at first need and kept; between calls they sleep, inside a call they wait briefly and
 * then give their core away, so that a busy machine loses nothing but time.
 */
#include "crew.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define MOST 64
#define PATIENCE 2000 /* looks before a core is given away */

static struct {
    pthread_mutex_t taken, lock;
    pthread_cond_t called;
    int members; /* threads there are, the caller not counted */
    long call;   /* counts calls: a thread works once a call */
    int count;   /* of this call */
    void (*work)(void *, int, int);
    void *what;
} crew = {.taken = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER};

static _Alignas(64) atomic_int arrived;
static _Alignas(64) atomic_uint meetings; /* goes round */

static void look_again(int *looks) {
    if (++*looks < PATIENCE) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    } else {
        sched_yield();
    }
}

void espalier_meet(int count) {
    if (count == 1) return;
    const unsigned meeting = atomic_load_explicit(&meetings, memory_order_acquire);
    if (atomic_fetch_add_explicit(&arrived, 1, memory_order_acq_rel) == count - 1) {
        atomic_store_explicit(&arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&meetings, meeting + 1, memory_order_release);
        return;
    }
    for (int looks = 0; atomic_load_explicit(&meetings, memory_order_acquire) == meeting;) look_again(&looks);
}

static void *serve(void *given) {
    const int number = (int)(long)given;
    pthread_mutex_lock(&crew.lock);
    for (long seen = crew.call - 1;;) { /* made within a call: it takes part in that one */
        while (crew.call == seen) pthread_cond_wait(&crew.called, &crew.lock);
        seen = crew.call;
        const int count = crew.count;
        void (*work)(void *, int, int) = crew.work;
        void *what = crew.what;
        pthread_mutex_unlock(&crew.lock);
        if (number < count) {
            work(what, number, count);
            espalier_meet(count);
        }
        pthread_mutex_lock(&crew.lock);
    }
    return NULL;
}

/* A forked child has no threads but its own. */
static void start_anew(void) {
    pthread_mutex_init(&crew.taken, NULL);
    pthread_mutex_init(&crew.lock, NULL);
    pthread_cond_init(&crew.called, NULL);
    crew.members = 0;
    atomic_store(&arrived, 0);
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, start_anew); }

/* As many of `count` as there are threads for; the lock is held. */
static int gather(int count) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    while (crew.members < count - 1) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, (void *)(long)(crew.members + 1)) != 0) break;
        pthread_detach(thread);
        crew.members++;
    }
    return crew.members + 1 < count ? crew.members + 1 : count;
}

void espalier_together(void (*work)(void *, int, int), void *what, int count) {
    if (count > MOST) count = MOST;
    if (count <= 1 || pthread_mutex_trylock(&crew.taken) != 0) {
        work(what, 0, 1);
        return;
    }
    pthread_mutex_lock(&crew.lock);
    crew.call++;
    crew.work = work;
    crew.what = what;
    crew.count = count = gather(count);
    pthread_cond_broadcast(&crew.called);
    pthread_mutex_unlock(&crew.lock);
    work(what, 0, count);
    espalier_meet(count);
    pthread_mutex_unlock(&crew.taken);
}
