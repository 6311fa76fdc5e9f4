/*
 * The protocol between PostgreSQL, Redis, the workers, the reaper and a socket, for the model checker Spin.
 *
 * A message only says that there is work; the claim chooses the prompt. Announcements may be lost; the feed is the truth
 * (infra/architecture.md). `make check-protocol` tries all steps in every order, with up to FAULTS faults at any place: a
 * wake-up or an announcement that is lost, a restart of Redis, a crash or a stall of a worker, a dropped socket. Time is
 * left out: what happens after a while may happen at once. What stands in atomic is one transaction, or one command of
 * Redis. Each macro in BROKEN_RULES (checks.py) breaks one rule, which must be noticed.
 */
#ifndef PROMPTS
#define PROMPTS 2
#endif
#ifndef FAULTS
#define FAULTS 2
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef CANCELS
#define CANCELS 1
#endif
#ifndef RETRIES
#define RETRIES 1
#endif
#define MAX_ATTEMPTS 2

mtype = { unsent, queued, pausing, processing, completed, failed, cancelled }

/* PostgreSQL: the rows of prompts, and their user's feed, whose entries are its numbers up to `seq`. */
mtype status[PROMPTS] = unsent;
byte attempt[PROMPTS];
byte attempt_limit[PROMPTS];
bool leased[PROMPTS];                   /* its lease has not lapsed */
byte seq;

/* Redis: how many wake-ups wait, and the announcements on their way to the API process of the socket. */
byte messages;
bool subscribed;
chan announcements = [2] of { byte };

/* The client of the socket: the newest number that it has received. */
byte seen;

/* For checking only. */
byte faults = FAULTS;
byte cancels = CANCELS, retries = RETRIES;  /* that users still ask for */
bool ended[PROMPTS];                    /* since it was last submitted or retried */
byte endings;
byte in_hand;                           /* wake-ups that are being sent, or were taken and have not led to a claim yet */

#define fault         atomic { faults > 0 -> faults-- }
#define unfinished(p) (status[p] == queued || status[p] == pausing || status[p] == processing)
#define done(p)       (status[p] == completed || status[p] == failed || status[p] == cancelled)
#define lapsed(p)     (status[p] == processing && !leased[p])
#if PROMPTS == 2
#define CLAIMABLE ((status[0] == queued) + (status[1] == queued))
#define BEST      (status[0] == queued -> 0 : 1)
#define ALL_DONE  (done(0) && done(1))
#else
#define CLAIMABLE ((status[0] == queued) + (status[1] == queued) + (status[2] == queued))
#define BEST      (status[0] == queued -> 0 : (status[1] == queued -> 1 : 2))
#define ALL_DONE  (done(0) && done(1) && done(2))
#endif

/* Every prompt comes to its end, and the client of the socket learns of each. */
#if WORKERS == 0
#define SETTLED (seen == seq)           /* prompts end by being cancelled */
#elif defined(NO_SOCKET)
#define SETTLED (ALL_DONE && seq == endings)
#else
#define SETTLED (ALL_DONE && seq == endings && seen == seq)
#endif
ltl settles { <>[] SETTLED }

/* A prompt ends: its status, its user's next number and the entry in the feed, in one transaction. */
inline end_prompt(how) {
    assert(!ended[p]);                  /* no prompt ends twice */
    ended[p] = true;
    endings++;
    status[p] = how;
#ifndef FEED_AFTER_COMMIT
    seq++;
#endif
    n = seq
}

/* After the commit, which has counted it as in_hand. */
inline send_wake_up() {
    atomic { if :: messages++ :: fault fi; in_hand-- }
}

/* After the commit. A reader that is slow, or not there, misses it. */
inline announce() {
#ifdef FEED_AFTER_COMMIT
    atomic { if :: seq++; n = seq :: fault; goto end fi };
#endif
#ifndef NO_SOCKET
    atomic {
        if
        :: subscribed && nfull(announcements) -> announcements!n
        :: !subscribed || full(announcements)
        :: fault
        fi;
        n = 0
    }
#else
    n = 0
#endif
}

proctype User(byte p) {
    byte n;
#ifdef WAKE_BEFORE_COMMIT
    in_hand++;
    send_wake_up();
    atomic { status[p] = queued; attempt_limit[p] = MAX_ATTEMPTS };
#else
    atomic { status[p] = queued; attempt_limit[p] = MAX_ATTEMPTS; in_hand++ };
    send_wake_up();
#endif
end:
    do
    :: atomic { unfinished(p) && cancels > 0 -> cancels--; end_prompt(cancelled) };
       announce()
    :: atomic { (status[p] == failed || status[p] == cancelled) && retries > 0 -> retries--;
                status[p] = queued; attempt_limit[p] = attempt[p] + MAX_ATTEMPTS; ended[p] = false; in_hand++ };
       send_wake_up()
    od
}

#if WORKERS > 0
/* The fence: a worker changes a prompt only while its claim is the newest. */
#define newest (status[p] == processing && attempt[p] == mine)
#if defined(NO_FENCE)
#define fenced true
#elif defined(FENCE_WITHOUT_ATTEMPT)
#define fenced (status[p] == processing)
#else
#define fenced newest
#endif

active [WORKERS] proctype Worker() {
    byte p, mine, n;
end:
    atomic { messages > 0 -> messages--; in_hand++ };
#ifdef CLAIM_NOT_EXCLUSIVE
    atomic { if :: CLAIMABLE > 0 -> p = BEST :: else -> in_hand--; goto end fi };
    atomic { in_hand--; status[p] = processing; attempt[p]++; mine = attempt[p]; leased[p] = true };
#else
    atomic {
        in_hand--;
        if
        :: CLAIMABLE > 0 -> p = BEST;
           status[p] = processing; attempt[p]++; mine = attempt[p]; leased[p] = true
        :: CLAIMABLE == 0 -> goto end   /* a surplus message */
        :: fault; goto end              /* crash */
        fi
    };
#endif
    if
    :: skip                             /* an answer */
    :: atomic { newest && leased[p] && faults > 0 -> faults--; leased[p] = false };
       if
       :: skip                          /* a stall: it goes on when its lease has lapsed */
       :: goto idle                     /* crash */
       fi
    fi;
    atomic {
        if
        :: fenced -> end_prompt(completed)
        :: fenced && attempt[p] >= attempt_limit[p] -> end_prompt(failed)
        :: fenced && attempt[p] < attempt_limit[p] -> status[p] = pausing; goto idle
        :: !fenced -> goto idle
        fi;
        assert(attempt[p] == mine);     /* only the newest claim ends a prompt */
        p = 0; mine = 0
    };
    announce();
idle:
    atomic { p = 0; mine = 0; goto end }
}

/* Runs on every worker host, one at a time. */
active proctype Reaper() {
    byte p, n;
end:
    do
#ifndef NO_REAPER
#ifndef MESSAGE_IS_TRUTH
    :: atomic { messages == 0 && CLAIMABLE > 0 ->
                assert(faults < FAULTS || CLAIMABLE <= in_hand);    /* without a fault no wake-up is missing */
                messages = CLAIMABLE }
#endif
    :: atomic {
           if
           :: status[0] == pausing || lapsed(0) -> p = 0
           :: status[1] == pausing || lapsed(1) -> p = 1
#if PROMPTS == 3
           :: status[2] == pausing || lapsed(2) -> p = 2
#endif
           fi;
           if
           :: lapsed(p) && attempt[p] >= attempt_limit[p] -> end_prompt(failed)
           :: else -> status[p] = queued; in_hand++
           fi;
           p = 0
       };
       if
       :: n > 0 -> announce()
       :: n == 0 -> send_wake_up()
       fi
#endif
    :: false
    od
}

#endif

/* Whatever waits in Redis is lost, and so is what is published until the API process has subscribed again. */
active proctype RedisRestart() {
end:
    do
    :: atomic { fault; messages = 0; do :: announcements?_ :: empty(announcements) -> break od }
    od
}

#ifndef NO_SOCKET
/* It is a cursor over the feed. The connection may drop before the client has received what was sent. */
inline deliver(number) {
    atomic {
        cursor = number;
        if
        :: assert(cursor == seen + 1);  /* no event is missed, and none repeated */
           seen = cursor
        :: fault; goto dropped
        fi
    }
}

active proctype Socket() {
    byte cursor, newest_number, number;
dropped:
    atomic {
        subscribed = false;
        do :: announcements?_ :: empty(announcements) -> break od;
#ifndef CURSOR_OF_SERVER
        cursor = seen                   /* ?since= */
#endif
    };
    subscribed = true;
    newest_number = seq;
#ifdef NO_CATCH_UP
    cursor = newest_number;
    goto end;
#endif
catch_up:
    do
    :: cursor < newest_number -> deliver(cursor + 1)
    :: cursor >= newest_number -> break
    od;
end:
    do
    :: atomic { announcements?number ->
           if
#ifdef PUSH_AS_ANNOUNCED
           :: number <= cursor -> goto next
#else
           :: number <= cursor -> number = 0
#endif
           :: number == cursor + 1 -> goto next
#ifdef NO_CATCH_UP
           :: number > cursor + 1 -> goto next
#else
           :: number > cursor + 1 -> newest_number = seq; number = 0; goto catch_up
#endif
           fi }
#ifndef NO_FEED_CHECK
    :: atomic { cursor < seq -> newest_number = seq; goto catch_up }
#endif
    :: fault; goto dropped
    od;
next:
    deliver(number);
    number = 0;
    goto end
}
#endif

/* The same as `settles` for the executions that end, which is quicker to check. */
active proctype AtLast() {
    timeout -> assert(SETTLED)
}

init {
    atomic {
        run User(0);
        run User(1)
#if PROMPTS == 3
        ; run User(2)
#endif
    }
}
