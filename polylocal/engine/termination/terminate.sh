# Sends SIGTERM to every process of the container once, except to the init program. Four kinds of processes are special:
#
# - Shells that wait for their programs are suspended (SIGSTOP) until the programs have ended. Then the pending SIGTERM
#   ends them before they start anything further. The exit code of the program is kept for entrypoint.sh.
# - Readers of a pipe into which a program still writes (`| tee log`) go on until the program has ended. Else a program
#   that prints while it saves would meet a broken pipe. They get SIGTERM when the last writer is gone.
# - Programs that only wait for another one (`timeout`, `sudo`, `flock`) get no signal. Some would pass SIGTERM on, and
#   many programs take a second SIGTERM as "end at once". The others would end, and the exit code would be lost.
# - Every other program that handles SIGTERM may pass it on, too, as `trap 'kill $pid; wait' TERM` does. Its children are
#   suspended for a moment, so that the two signals become one.
#
# Needs only the shell of the image, and `sleep`. Prints the ids of processes that only root may signal.
exec 2>/dev/null
told=/dev/shm/.polylocal-stop
# a former daemon, or a call whose answer was lost, has already sent the signals
[ -e $told ] && exit
main= held= fed= relays= closed= foreign= handlers= others= paused=

is_in() { case " $2 " in *" $1 "*) ;; *) return 1 ;; esac; }

# Sets name, state, parent, and status: the wait status of a zombie.
look_at() {
  read -r line </proc/$1/stat || return
  name=${line#*\(} name=${name%)*}
  set -- ${line##*) }
  state=$1 parent=$2 status=${50}
}

find_children() {
  children=
  if [ -r /proc/$1/task/$1/children ]; then
    for entry in /proc/$1/task/*/children; do # each thread has its own
      pids=
      read -r pids <$entry
      [ -z "$pids" ] || children="$children$pids "
    done
    return
  fi
  for entry in /proc/[0-9]*; do
    look_at ${entry#/proc/} && [ "$parent" = $1 ] && children="$children ${entry#/proc/}"
  done
}

is_shell() {
  for file in sh bash dash ash ksh zsh; do
    [ /proc/$1/exe -ef /bin/$file ] || [ /proc/$1/exe -ef /usr/local/bin/$file ] && return
  done
}

# Whether a process may pass a SIGTERM on to its children. One that gets no signal may do so if its parent may.
may_pass_on() {
  is_in $1 "0 1 $main $held $others" && return 1
  is_in $1 "$handlers" && return
  look_at $1 || return
  case $name in
  su | sudo | runuser) return 1 ;; # would stop with their children
  timeout | flock | tini | dumb-init | uv) may_pass_on $parent && return ;;
  *)
    while read -r key value; do
      case $key$value in SigCgt:*[4567cdef]???) handlers="$handlers $1" && return ;; esac
    done </proc/$1/status
    ;;
  esac
  others="$others $1"
  return 1
}

# Whether SIGTERM ends a process: it neither ignores nor catches it. A bash with an EXIT trap catches all signals that
# end it, and ends nevertheless.
ends_at_sigterm() {
  while read -r key value; do
    case $key$value in
    SigCgt:*[67ef][abef]??) is_shell $1 || return 1 ;;
    SigCgt:*[4567cdef]??? | SigIgn:*[4567cdef]???) return 1 ;;
    esac
  done </proc/$1/status
}

# Whether any process writes into the standard input of a process.
is_fed() {
  for entry in /proc/[0-9]*; do
    [ $entry/fd/1 -ef /proc/$1/fd/0 ] || [ $entry/fd/2 -ef /proc/$1/fd/0 ] && return
  done
  return 1
}

sort_in() {
  look_at $1 || return
  [ /proc/$1/exe -ef /proc/$1/exe ] || closed="$closed $1"
  case $name in
  timeout | flock | tini | dumb-init | uv | su | sudo | runuser)
    find_children $1
    [ -z "$children" ] || { relays="$relays $1" && return; } # `flock` may still wait for its lock
    ;;
  esac
  kill -0 $1 || { [ -e /proc/$1 ] && foreign="$foreign $1" || return; }
  [ -p /proc/$1/fd/0 ] || is_shell $1 || return
  ends_at_sigterm $1 || return
  above=$parent
  find_children $1
  if [ -p /proc/$1/fd/0 ] && is_fed $1 && { [ -z "$children" ] || ! is_shell $1; }; then
    fed="$fed $1"
  elif is_shell $1; then
    # su and sudo suspend themselves together with their child
    look_at $above && case $name in su | sudo | runuser) return ;; esac
    held="$held $1"
  fi
}

# Waits until a process is suspended, since an earlier SIGTERM would end it. `looks`: the number of checks for all.
hold() {
  while look_at $1; do
    case $state in T | Z) return ;; esac
    [ $((looks -= 1)) -gt 0 ] || return
    [ $looks -gt 40 ] || sleep 0.01 || return
  done
}

# Whether the kernel hides the wait status: it shows 0 to a process that may not trace the other one. `timeout` forbids
# tracing just before it ends.
is_hidden() {
  is_in $1 "$closed" || { is_in $1 "$relays" && [ $status = 0 ] && ! read -r line </proc/$1/io; }
}

# Resumes a shell whose programs have ended. Its exit code is the last one of theirs that is neither 0 nor 143; else 0 if
# one is 0; else 143.
settle() {
  find_children $1
  code=143
  for child in $children; do
    is_in $child "$fed" && continue
    look_at $child || continue
    [ $state = Z ] || return
    eval "known=\$code_$child"
    [ "$known" ] || is_hidden $child || {
      [ $((status & 127)) = 0 ] && known=$((status >> 8)) || known=$((128 + (status & 127)))
    }
    case $known in
    '' | 143) ;;
    0) [ $code = 143 ] && code=0 ;;
    *) code=$known ;;
    esac
  done
  eval "code_$1=$code"
  look_at $1 || return 0
  while is_in $parent "$relays"; do
    eval "code_$parent=$code"
    look_at $parent || break
  done
  [ $parent = "$main" ] && echo $code >$told
  kill -CONT $1
}

# Ends the reader of a pipe without writers, after some time in which it can end by itself.
drain() {
  look_at $1 && [ $state != Z ] || return 0
  is_fed $1 && { eval "idle_$1=0"; return 1; }
  eval "idle_$1=\$((idle_$1 + 1)); idle=\$idle_$1"
  [ $idle -gt 5 ] && kill -TERM $1
}

see_to_the_end() {
  until [ -z "$held$fed" ]; do
    left=
    for pid in $held; do settle $pid || left="$left $pid"; done
    held=$left left=
    for pid in $fed; do drain $pid || left="$left $pid"; done
    fed=$left
    [ -z "$held$fed" ] || sleep 0.05 || sleep 1 || break
  done
  # this also resumes processes that were suspended together with a shell
  kill -CONT -1
}

# not `:`, since a failed redirection of a special builtin ends the shell
true >$told
find_children 1
main=${children%% *}
for entry in /proc/[0-9]*; do
  pid=${entry#/proc/}
  [ $pid = 1 ] || [ $pid = $$ ] || sort_in $pid
done
for entry in /proc/[0-9]*; do
  pid=${entry#/proc/}
  is_in $pid "1 $$ $main $held $fed $relays $foreign" && continue
  look_at $pid && may_pass_on $parent && paused="$paused $pid"
done
[ "$held$paused" ] && kill -STOP $held $paused
for pid in $held; do looks=50 && hold $pid; done
looks=50 # for all: a process that waits for a disk may take its time
for pid in $paused; do hold $pid; done
if [ "$fed$relays" ]; then
  list=$paused # first: `timeout` lets its program go on by itself
  for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    [ $pid = 1 ] || [ $pid = $$ ] || is_in $pid "$fed $relays $paused" || list="$list $pid"
  done
  kill -TERM $list
else
  # one call for all, so that it includes processes that start meanwhile
  kill -TERM -1
fi
[ "$paused" ] && {
  sleep 0.2 || sleep 1
  kill -CONT $paused
}
[ "$held$fed" ] && { exec </dev/null >/dev/null; see_to_the_end; } &
echo $foreign
