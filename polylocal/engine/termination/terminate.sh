# Sends SIGTERM to every process of the container once, but for the init program. Beyond that:
#
# - A shell that waits for its programs is held (SIGSTOP) until they have ended. It then ends at its SIGTERM before it
#   runs anything further. The exit code of its program is left for entrypoint.sh.
# - What reads from a pipe that a program still writes into (`| tee log`) goes on until the program has ended: a
#   program that prints while it saves must meet no broken pipe. It is told when nobody writes any more.
# - What only waits for the program that it runs (`timeout`, `sudo`, `flock`) is not told. Some pass SIGTERM on, and
#   programs take a second one as "now"; the others end at it, and nobody knows the program's exit code.
# - Whatever else handles SIGTERM may pass it on, too, as `trap 'kill $pid; wait' TERM` does. Its children are stopped
#   for a moment: while they are, a second signal is one with the first.
#
# Uses nothing of the image but its shell, and `sleep`. Prints the ids of processes that only root may signal.
exec 2>/dev/null
told=/dev/shm/.polylocal-stop
# a daemon before this one, or a call whose answer was lost, has told them
[ -e $told ] && exit
main= held= fed= relays= closed= foreign= handlers= others= paused=

is_in() { case " $2 " in *" $1 "*) ;; *) return 1 ;; esac; }

# sets name, state, parent, and status: how a process ended that nobody has asked for its end yet
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

# Whether it may pass a SIGTERM on to its children. Those that are not told may if somebody may pass one to them.
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

# Whether SIGTERM ends it: it neither ignores nor catches it. A bash with an EXIT trap catches all signals that would
# end it, and ends at them.
ends_at_sigterm() {
  while read -r key value; do
    case $key$value in
    SigCgt:*[67ef][abef]??) is_shell $1 || return 1 ;;
    SigCgt:*[4567cdef]??? | SigIgn:*[4567cdef]???) return 1 ;;
    esac
  done </proc/$1/status
}

# whether a process writes into what it reads from
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
    # su and sudo would stop with it
    look_at $above && case $name in su | sudo | runuser) return ;; esac
    held="$held $1"
  fi
}

# until it is stopped: a SIGTERM before that would end it; `looks` is how often that is looked for at most
hold() {
  while look_at $1; do
    case $state in T | Z) return ;; esac
    [ $((looks -= 1)) -gt 0 ] || return
    [ $looks -gt 40 ] || sleep 0.01 || return
  done
}

# Whether the kernel shows 0 instead of the status: to a process that may not trace it. `timeout` closes itself to all
# just before it ends.
is_hidden() {
  is_in $1 "$closed" || { is_in $1 "$relays" && [ $status = 0 ] && ! read -r line </proc/$1/io; }
}

# Lets a shell go whose programs have ended. Its exit code is the last of theirs that is neither 0 nor 143, else 0 if
# one is, else 143.
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

# Ends what reads from a pipe that nobody writes into, after a while in which it can come to its end by itself.
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
  # also what stopped together with a shell
  kill -CONT -1
}

# no `:`, whose failed redirection would end this shell
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
  # at once: no process that starts meanwhile is left out
  kill -TERM -1
fi
[ "$paused" ] && {
  sleep 0.2 || sleep 1
  kill -CONT $paused
}
[ "$held$fed" ] && { exec </dev/null >/dev/null; see_to_the_end; } &
echo $foreign
