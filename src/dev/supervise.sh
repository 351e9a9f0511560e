# Looks after one throw-away server: starts and stops it as told on stdin, and when stdin ends, because its parent has
# ended in whatever way, stops it and removes its folder.
#
#   $1  folder, which this may use and remove    $2  folder of the server's programs    rest: arguments of the server
trap '' PIPE # To speak to a parent that has ended is no reason to leave its server behind.
folder=$1
bin=$2
shift 2
cd "$folder" || exit 1

stop() {
    [ -f pid ] || return 0
    kill -s "$1" "$(cat pid)" 2>/dev/null
    wait
    rm -f pid
}

if "$bin/initdb" -D data -U reveille -A scram-sha-256 --pwfile=password --no-sync -E UTF8 --locale=C >log 2>&1 </dev/null; then
    rm -f password
    echo initialised
else
    echo failed
fi

while read -r command argument; do
    case $command in
    start)
        rm -f exited
        (
            "$bin/postgres" -D data -p "$argument" "$@" &
            echo $! >pid
            wait $!
            echo $? >exited
        ) >>log 2>&1 </dev/null &
        echo started
        ;;
    stop)
        stop "$argument"
        echo stopped
        ;;
    keep)
        echo kept
        exit 0
        ;;
    esac
done

# The data is thrown away: no need to write it out first.
stop QUIT
cd / && rm -rf "$folder"
