# The parent of a run's command, which are the arguments. Its own process id is that of the init program's first child.

# an own name: another one may be a variable of the command's environment
polylocal_stopped=
trap polylocal_stopped=1 TERM INT
# signals for the command that a person sends to the container
trap : HUP QUIT USR1 USR2
# what a shell says of a program that a signal ended ("Terminated") is no output of the run
exec 3>&2 2>/dev/null
(exec "$@" 2>&3 3>&-)
code=$?
[ "$polylocal_stopped" ] || exit $code

# terminate.sh makes the file, and writes the exit code of the program that the stopped shell waited for
told=/dev/shm/.polylocal-stop
children=/proc/1/task/1/children
# of 50 ms each, where it was not terminate.sh that sent the signal: a script may end its processes by `kill 0`,
# and a process that ignores that must not keep the run from its end
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
