/* SPDX-License-Identifier: Apache-2.0
 * tests/model/team.pml - the barrier between the parts of a round (vmm/sched/team.c), for spin.
 *
 * The words have the names they have there, and every atomic step is one of its. A futex wait is
 * one step that looks at the word and goes to sleep; a wake lets every sleeper on that word go on.
 * The spinning before it changes nothing but time and is left out.
 *
 * Checked over every order of steps: nobody sleeps for ever (no invalid end state), each task runs
 * exactly once a run and only inside of it, and team_run returns only when all of them have.
 * Built with -DLOST_WAKEUP, the waker looks at the sleepers first: spin must then find a deadlock. */
#ifndef MEMBERS
#define MEMBERS 2
#endif
#define RUNS 3

byte round = 0;
byte left = 0;
byte sleepers = 0;
bool quit = false;
byte done[MEMBERS + 1]; /* tasks that a thread has run */
bool asleep_round[MEMBERS + 1];
bool asleep_left = false;
byte run_no = 0;        /* of the caller, for the assertions alone */
bool inside = false;

inline wake_round()
{
    byte k = 0;
    d_step {
        do
        :: k <= MEMBERS -> asleep_round[k] = false; k++
        :: else -> break
        od;
        k = 0
    }
}

proctype member(byte i)
{
    byte seen = 0;
    byte now_left;

loop:
    /* wait_while(&round, seen) */
    if
    :: round != seen -> goto go
    :: round == seen -> sleepers++
    fi;
again:
    if
    :: round != seen -> sleepers--; goto go
    :: round == seen
    fi;
    atomic { /* FUTEX_WAIT: sleeps only if the word still has the value */
        if
        :: round == seen -> asleep_round[i] = true
        :: else
        fi
    }
    !asleep_round[i];
    goto again;
go:
    seen++;
    if
    :: quit -> goto end
    :: else
    fi;
    assert(inside);
    done[i]++;
    assert(done[i] == run_no);
    atomic { left--; now_left = left }
    if
    :: now_left == 0 ->
        if
        :: sleepers != 0 -> asleep_left = false
        :: else
        fi
    :: else
    fi;
    goto loop;
end:
    skip
}

active proctype caller()
{
    byte i, seen_left, had;

    i = 1;
    do
    :: i <= MEMBERS -> run member(i); i++
    :: else -> break
    od;
    do
    :: run_no < RUNS ->
        atomic { run_no++; inside = true }
        left = MEMBERS;
#ifdef LOST_WAKEUP
        had = sleepers;
        round++;
        if
        :: had != 0 -> wake_round()
#else
        round++;
        if
        :: sleepers != 0 -> wake_round()
#endif
        :: else
        fi;
        done[0]++;
        do
        :: atomic { seen_left = left; if :: seen_left == 0 -> break :: else fi };
            sleepers++;
            do
            :: left != seen_left -> break
            :: left == seen_left ->
                atomic {
                    if
                    :: left == seen_left -> asleep_left = true
                    :: else
                    fi
                };
                !asleep_left
            od;
            sleepers--
        od;
        i = 0;
        d_step {
            do
            :: i <= MEMBERS -> assert(done[i] == run_no); i++
            :: else -> break
            od;
            inside = false
        }
    :: else -> break
    od;
    quit = true;
    round++;
    wake_round()
}
