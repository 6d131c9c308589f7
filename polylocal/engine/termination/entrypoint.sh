# The parent of a run's command. The arguments are the command. This shell is the first child of the init program.

# the prefix keeps the name apart from variables in the environment of the command
polylocal_stopped=
trap polylocal_stopped=1 TERM INT
# a user sends these signals to the container for the command, not for this shell
trap : HUP QUIT USR1 USR2
# the shell's own message about a program that a signal ended ("Terminated") is no output of the run
exec 3>&2 2>/dev/null
(exec "$@" 2>&3 3>&-)
code=$?
[ "$polylocal_stopped" ] || exit $code

# terminate.sh creates this file, and writes the exit code of the program for which the suspended shell waited
told=/dev/shm/.polylocal-stop
children=/proc/1/task/1/children
# The number of checks, 50 ms apart, if the signal did not come from terminate.sh. A script may end its processes by
# `kill 0`, and a process that ignores this must not delay the end of the run.
looks=200

is_alone() {
  [ -r $children ] || { kill -0 -1 && return 1; return 0; }
  read -r pids <$children
  for pid in $pids; do [ "$pid" = $$ ] || return 1; done
}

until is_alone; do
  [ -e $told ] || [ $((looks -= 1)) -gt 0 ] || break
  sleep 0.05 || sleep 1 || break
done
[ $code = 143 ] && read -r status <$told && [ "$status" -ge 0 ] && code=$status
exit $code
